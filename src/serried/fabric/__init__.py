"""Many chips as one machine: what do the wires between them cost?

In: a fabric file and the collectives that a layout asks for. Out: seconds per collective, by size, degree and
placement on the tiers.
"""

from serried.fabric.spec import CollectiveProfile, Fabric, Tier

__all__ = ["CollectiveProfile", "Fabric", "Tier"]
