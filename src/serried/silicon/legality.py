"""What a chip file may not say: figures no chip can have, and figures that contradict each other.

A slip of a unit ("3350 TB/s") would otherwise pass as a miracle. The ranges are generous: from one core of a
processor to ten times what is announced.
"""

from __future__ import annotations

from collections.abc import Mapping

from serried.catalogue import Figure
from serried.errors import BadInput
from serried.units import format_quantity

__all__ = ["FIGURE_RANGES", "refuse_illegal"]

#: Lowest and highest value that is believed, in the figure's base unit.
FIGURE_RANGES: Mapping[str, tuple[float, float]] = {
    "matrix_peak": (1e9, 1e18), "sustained_matrix": (1e9, 1e18),
    "vector_peak": (1e9, 1e17), "core_count": (1, 1e5), "clock": (1e8, 1e10),
    "scratchpad_per_core": (2**10, 2**34), "cache": (2**16, 2**40), "cache_bandwidth": (1e10, 1e16),
    "hbm_capacity": (2**28, 2**44), "hbm_bandwidth": (1e9, 1e15), "sustained_bandwidth": (1e8, 1e15),
    "scaleup_bandwidth": (1e8, 1e14), "scaleup_domain": (1, 1e6), "nic_bandwidth": (1e7, 1e13),
    "host_bandwidth": (1e8, 1e13),
    "board_power": (1, 1e5), "idle_power": (0.1, 1e5), "price": (10, 1e7), "rent": (1e-7, 1), "launch": (1e-8, 1e-2),
}
_WHOLE = ("core_count", "scaleup_domain")


def refuse_illegal(figures: Mapping[str, Figure], file: str) -> None:
    """Raise BadInput for the first figure that is out of range, not whole where it counts, or contradicts another."""
    for name, figure in figures.items():
        family = name.partition(".")[0]
        low, high = FIGURE_RANGES[family]
        if not low <= figure.value <= high:
            raise BadInput(file=file, field=f"figures.{name}.value", value=format_quantity(figure.value, figure.unit),
                           expected=f"{format_quantity(low, figure.unit)} to {format_quantity(high, figure.unit)}",
                           remedy="Check the unit of the figure.")
        if family in _WHOLE and figure.value != int(figure.value):
            raise BadInput(file=file, field=f"figures.{name}.value", value=figure.value, expected="a whole number",
                           remedy="Count them.")
    idle, board = figures.get("idle_power"), figures.get("board_power")
    if idle is not None and board is not None and idle.value > board.value:
        raise BadInput(file=file, field="figures.idle_power.value", value=format_quantity(idle.value, "W"),
                       expected=f"at most the board power, {format_quantity(board.value, 'W')}",
                       remedy="Correct one of them.")
