"""What is in a fabric: switches and cables by level, what a cut through the middle carries, where it is thin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serried.topology.clos import LEVELS, Clos
from serried.topology.network import Wired
from serried.topology.reduction import reduced_fabric

__all__ = ["Level", "Summary", "summarise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level, from the chip up: groups of chips, switches, live and all cables to the level above."""

    name: str
    groups: int
    switches: int
    chips: int
    cables: int
    dead_cables: int
    cable_bandwidth_bytes_per_s: float
    oversubscription: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """levels: from the chip up. bisection_bytes_per_s: one way across a cut that halves the chips."""

    chips: int
    nodes: int
    levels: tuple[Level, ...]
    bisection_bytes_per_s: float


def summarise(wired: Wired) -> Summary:
    """Counts of the network between scale-up domains, and of the domains."""
    network = wired.outer
    if not isinstance(network, Clos):
        levels = tuple(Level(name=block.name, groups=1, switches=0, chips=wired.chips, cables=block.count,
                             dead_cables=int((pace <= 0.0).sum()), oversubscription=1.0,
                             cable_bandwidth_bytes_per_s=float(pace.max(initial=0.0)))
                       for block in network.blocks
                       for pace in [network.bandwidth_bytes_per_s_L[block.first:block.first + block.count]])
        return Summary(chips=wired.chips, nodes=wired.node_count, levels=levels,
                       bisection_bytes_per_s=_flat_bisection(wired))
    fabric = reduced_fabric(wired.topology)
    ratios = [tier.oversubscription for tier in fabric.tiers if not tier.scale_up] or [1.0]
    levels = tuple(Level(
        name=LEVELS[level], groups=network.groups_K[level], chips=int(np.bincount(network.group_KE[level]).max()),
        switches=0 if level == 0 else network.groups_K[level] * network.paths_K[level - 1],
        cables=0 if level == len(network.uplinks_K) else network.live_K[level].size,
        dead_cables=0 if level == len(network.uplinks_K) else int((network.live_K[level] == 0.0).sum()),
        cable_bandwidth_bytes_per_s=0.0 if level == len(network.uplinks_K) else network.bandwidth_bytes_per_s_K[level],
        oversubscription=1.0 if level == 0 else ratios[min(level, len(ratios) - 1)])
        for level in range(len(network.uplinks_K) + 1))
    widths = [float(network.bandwidth_bytes_per_s_L[block.first:block.first + block.count].sum())
              for block in network.blocks[2 * len(network.uplinks_K):3 * len(network.uplinks_K)]]
    return Summary(chips=wired.chips, nodes=wired.node_count, levels=levels, bisection_bytes_per_s=min(widths) / 2.0)


def _flat_bisection(wired: Wired) -> float:
    """Links from the lower half of the chips (and of the switches) to the upper half."""
    ends, chips = wired.outer.ends(), wired.chips
    side = np.zeros(chips + len(ends.switch_names), dtype=bool)
    side[:chips // 2] = True
    side[chips:chips + len(ends.switch_names) // 2] = True
    pace = wired.outer.bandwidth_bytes_per_s_L[:len(ends.source_L)]
    return float(pace[side[ends.source_L] & ~side[ends.target_L]].sum())
