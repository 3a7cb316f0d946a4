"""Which tiers does a group of ranks cross?

Axes: G = group, one entry per (degree, stride) asked for; T = tier, from the inside out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serried.fabric.spec import Fabric, Tier

__all__ = ["Floats", "Placement", "place", "torus_dimensions"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How groups of `degree` ranks, `stride` chips apart, sit on the tiers of a fabric: columns over G, tuples over T.

    members: ranks of the group inside one group of tier T (the last is the whole degree).
    parts: groups of the tier inside that one tier T joins; 1 where the group does not cross tier T.
    bandwidth_bytes_per_s: bytes/s per rank and direction that the group drives at tier T if all its ranks send there.
    turns: hops in turn of a ring laid on tier T alone: parts - 1; on a torus a ring per dimension, both ways round.
    """

    degree: Floats
    stride: Floats
    members: tuple[Floats, ...]
    parts: tuple[Floats, ...]
    bandwidth_bytes_per_s: tuple[Floats, ...]
    turns: tuple[Floats, ...]


def place(degree_G: Floats, stride_G: Floats, fabric: Fabric) -> Placement:
    """Nested counts: members(T) = clip(group_size(T) / stride, 1, degree)."""
    members: list[Floats] = []
    parts: list[Floats] = []
    bandwidths: list[Floats] = []
    turns: list[Floats] = []
    inner = np.ones_like(degree_G)
    for position, tier in enumerate(fabric.tiers):
        last = position == len(fabric.tiers) - 1
        reach = degree_G if last or tier.group_size == 0 else np.clip(
            np.floor(tier.group_size / stride_G), 1.0, degree_G)
        reach = np.maximum(reach, inner)
        parts.append(reach / inner)
        members.append(reach)
        bandwidths.append(_reached_bandwidth(tier, reach / inner, inner * stride_G))
        turns.append(_turns(tier, reach / inner))
        inner = reach
    return Placement(degree=degree_G, stride=stride_G, members=tuple(members), parts=tuple(parts),
                     bandwidth_bytes_per_s=tuple(bandwidths), turns=tuple(turns))


def _turns(tier: Tier, parts_G: Floats) -> Floats:
    if tier.kind not in ("torus", "ring"):
        return parts_G - 1.0
    dimensions = 1 if tier.kind == "ring" else len(torus_dimensions(tier))
    along_G = parts_G ** (1.0 / dimensions)
    return dimensions * (along_G - 1.0) / np.where(along_G > 2.0, 2.0, 1.0)


def _reached_bandwidth(tier: Tier, parts_G: Floats, stride_G: Floats) -> Floats:
    """Bandwidth of one chip that a group with `parts_G` members on this tier can use.

    A switch, a rail and a tree of switches give every pair the whole port. On a mesh of g chips each pair has a wire
    of its own, 1/(g - 1) of the chip's, so a group of n uses (n - 1)/(g - 1). On a ring of wires a group that closes
    the circle uses both directions, a part of it one. On a torus of d dimensions a group uses the dimensions it spans.
    """
    whole = tier.bandwidth_bytes_per_s / tier.oversubscription
    if tier.kind == "mesh" and tier.group_size > 1:
        return whole * np.clip((parts_G - 1.0) / (tier.group_size - 1.0), 1.0 / (tier.group_size - 1.0), 1.0)
    if tier.kind == "ring":
        return np.where(parts_G * stride_G >= tier.group_size, whole, whole / 2.0)
    if tier.kind == "torus":
        return whole * _torus_share(torus_dimensions(tier), parts_G, stride_G)
    return np.full_like(parts_G, whole)


def torus_dimensions(tier: Tier) -> tuple[int, ...]:
    """The given dimensions, else as many equal ones as the size suggests: two up to 256 chips, three beyond."""
    if tier.dimensions:
        return tier.dimensions
    count = 2 if tier.group_size <= 256 else 3
    return (max(2, round(tier.group_size ** (1.0 / count))),) * count


def _torus_share(dimensions: tuple[int, ...], parts_G: Floats, stride_G: Floats) -> Floats:
    """Share of a chip's links in the dimensions that the group spans; a line, not a circle, uses half of its own."""
    share = np.zeros_like(parts_G)
    below = 1.0
    for degree in dimensions:
        lowest, highest = np.maximum(stride_G, below), np.minimum(stride_G * parts_G, below * degree)
        along = np.maximum(highest / lowest, 1.0)
        share = share + np.where(along >= degree, 1.0, np.where(along > 1.0, 0.5, 0.0))
        below *= degree
    return np.maximum(share, 0.5) / len(dimensions)
