"""What computes?

In: a chip file. Out: a `Chip`: engines, memories, links, power and price as data, each figure with provenance.
No chip name appears in code: a rival is a row.
"""

from serried.silicon.spec import CHIP_FIGURES, NUMBER_FORMATS, Chip, read_chip

__all__ = ["CHIP_FIGURES", "NUMBER_FORMATS", "Chip", "read_chip"]
