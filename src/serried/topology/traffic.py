"""Which chips send to which, phase by phase, when a collective runs over scale-up domains.

Between domains every chip talks through its own adapter to the chip of the same place in another domain (its rail),
except in a flat all-to-all.

Axes: D = domain of the job in rank order; P = place in a domain; F = flow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from serried.topology.spec import Floats, Indices

__all__ = ["PATTERNS", "Phase", "axis_flows", "phases"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Flows at the same time. weight: share of the network bytes that move in this phase. load_F: relative sizes."""

    source_F: Indices
    target_F: Indices
    load_F: Floats
    weight: float = 1.0


#: Algorithm -> who sends to whom between domains.
PATTERNS = {"ring": "ring", "hierarchical": "ring", "tree": "tree", "switch": "tree", "one-shot": "shift",
            "two-shot": "shift", "halving-doubling": "exchange", "bruck": "bruck", "direct": "flat", "pairwise": "flat",
            "rail-aligned": "shift", "two-level": "shift"}


def phases(pattern: str, chips_DP: Indices, rng: np.random.Generator, *, most_shifts: int = 32) -> Iterator[Phase]:
    """The phases of a pattern over the job's domains; nothing where there is one domain."""
    domains = len(chips_DP)
    if domains < 2 and not (pattern == "flat" and chips_DP.size > 1):
        return
    if pattern == "ring":
        yield _phase(chips_DP, np.roll(chips_DP, -1, axis=0))
    elif pattern == "tree":
        yield _trees(chips_DP)
    elif pattern == "exchange":
        yield from _exchanges(chips_DP)
    elif pattern == "bruck":
        steps = int(np.ceil(np.log2(domains)))
        counts = [min(2**step, domains - 2**step) for step in range(steps)]
        for step, count in enumerate(counts):
            yield _phase(chips_DP, np.roll(chips_DP, -2**step, axis=0), count / sum(counts))
    else:
        yield _all_at_once(chips_DP if pattern == "shift" else chips_DP.reshape(-1, 1), most_shifts, rng)


def _all_at_once(chips: Indices, most_shifts: int, rng: np.random.Generator) -> Phase:
    """Every row to every other (or to a sample of them) at the same time, each a part of what it sends."""
    shifts = _drawn(len(chips), most_shifts, rng)
    targets = [np.roll(chips, -shift, axis=0).reshape(-1) for shift in shifts]
    return Phase(source_F=np.tile(chips.reshape(-1), len(shifts)), target_F=np.concatenate(targets),
                 load_F=np.full(chips.size * len(shifts), 1.0 / len(shifts)))


def _drawn(count: int, most: int, rng: np.random.Generator) -> list[int]:
    """Distances to the peers of an exchange: all of them, or a sample."""
    if count - 1 <= most:
        return list(range(1, count))
    return sorted(int(shift) for shift in rng.choice(count - 1, size=most, replace=False) + 1)


def _phase(source: Indices, target: Indices, weight: float = 1.0) -> Phase:
    return Phase(source_F=source.reshape(-1), target_F=target.reshape(-1), load_F=np.ones(source.size), weight=weight)


def _exchanges(chips_DP: Indices) -> Iterator[Phase]:
    """Halving and doubling: partners 1, 2, 4, ... apart; the nearest exchange the most. Whole powers of two only."""
    domains = len(chips_DP)
    steps = domains.bit_length() - 1
    for step in range(steps):
        partner = np.arange(domains) ^ (1 << step)
        inside = partner < domains
        yield _phase(chips_DP[inside], chips_DP[partner[inside]], 0.5**(step + 1) / (1.0 - 0.5**steps))


def _trees(chips_DP: Indices) -> Phase:
    """Two binary trees: who forwards in one is a leaf of the other; up and down at once, half the bytes each."""
    domains = len(chips_DP)
    node = np.arange(1, domains)
    bit = node & -node
    above = (node ^ bit) | (bit << 1)
    above = np.where(above < domains, above, node ^ bit)
    child = np.concatenate([node, domains - 1 - node])
    parent = np.concatenate([above, domains - 1 - above])
    source, target = np.concatenate([child, parent]), np.concatenate([parent, child])
    whole = _phase(chips_DP[source], chips_DP[target])
    return Phase(source_F=whole.source_F, target_F=whole.target_F, load_F=whole.load_F / 2.0)


def axis_flows(chip_count: int, degree: int, stride: int, pattern: str) -> tuple[Indices, Indices]:
    """Every chip to the next of its group on one axis of a job ("ring"), or to all others in it ("direct")."""
    chip = np.arange(chip_count // (degree * stride) * degree * stride)
    at = chip // stride % degree
    shifts = [1] if pattern == "ring" else range(1, degree)
    target = [chip + stride * ((at + shift) % degree - at) for shift in shifts]
    return np.tile(chip, len(target)), np.concatenate(target) if target else chip[:0]
