"""Many chips as one machine: what do the wires between them cost?

In: a fabric file, the table of the collective library that drives it, and the collectives that a layout asks for.
Out: seconds per collective, by size, degree and placement on the tiers; which algorithm and protocol it takes.
"""

from serried.fabric.collective import Choice, choose, collective_time_s, stolen_shares
from serried.fabric.fleet import read_fleet
from serried.fabric.spec import OPERATIONS, CollectiveProfile, Fabric, Fleet, Pool, Tier
from serried.fabric.tables import read_collectives, read_fabric

__all__ = ["OPERATIONS", "Choice", "CollectiveProfile", "Fabric", "Fleet", "Pool", "Tier", "choose",
           "collective_time_s", "read_collectives", "read_fabric", "read_fleet", "stolen_shares"]
