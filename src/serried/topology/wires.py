"""What every network offers: its links in blocks, and the links that flows pass.

Axes: L = directed link, or bundle of alike cables that spraying fills evenly; F = flow; N = (flow, link) incidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from serried.errors import NoAnswer
from serried.topology.spec import Floats, Indices

__all__ = ["ROUTINGS", "Block", "Ends", "Network", "Routes", "blocks_of", "concatenated", "label", "resample"]

#: How packets find their way: hashed per flow, spread per packet, or laid out by a planner that sees all flows.
ROUTINGS = ("ecmp", "spray", "planned")
_MOST_DRAWS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A run of links that the structure makes alike: ids from `first`. bundle: each stands for `cables` in parallel."""

    name: str
    first: int
    count: int
    bundle: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """Which links each flow passes, and with which share of its bytes."""

    flow_N: Indices
    link_N: Indices
    share_N: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Both ends of every cable as node ids, endpoints first, and the names of the switches."""

    source_L: Indices
    target_L: Indices
    switch_names: tuple[str, ...]


class Network(Protocol):
    """One network that joins `chips` endpoints."""

    @property
    def chips(self) -> int:
        """Endpoints."""

    @property
    def bandwidth_bytes_per_s_L(self) -> Floats:
        """Of each link; 0 where it is out of order. Of a bundle: all its live cables."""

    @property
    def cables_L(self) -> Floats:
        """Live cables in a bundle; 1 for a link."""

    @property
    def latency_s_L(self) -> Floats:
        """One way through the cable and the switch behind it."""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The ids in order."""

    def route(self, source_F: Indices, target_F: Indices, routing: str, rng: np.random.Generator) -> Routes:
        """The links of each flow; source and target differ. Raises NoAnswer where no live path is left."""

    def ends(self) -> Ends:
        """The links (no bundles) as a graph."""


def blocks_of(sizes: dict[str, int], *, bundles: frozenset[str] = frozenset()) -> tuple[Block, ...]:
    """Blocks one after the other."""
    made, first = [], 0
    for name, count in sizes.items():
        made.append(Block(name=name, first=first, count=count, bundle=name in bundles))
        first += count
    return tuple(made)


def label(blocks: tuple[Block, ...], link: int) -> str:
    """A link's name: its block and its number there."""
    block = next(block for block in blocks if block.first <= link < block.first + block.count)
    return f"{block.name}:{link - block.first}"


def concatenated(parts: list[tuple[Indices, Indices]], share: float = 1.0) -> Routes:
    """Routes from (flows, links) pairs that carry the same share."""
    if not parts:
        none = np.zeros(0, dtype=np.int64)
        return Routes(flow_N=none, link_N=none, share_N=np.zeros(0))
    flow_N, link_N = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    return Routes(flow_N=flow_N, link_N=link_N, share_N=np.full(len(flow_N), share))


def resample(count: int, draw: object, source_F: Indices, target_F: Indices) -> None:
    """Call `draw(rows)` until no row is left; it redraws those rows and returns those that hit something broken."""
    rows = np.arange(count)
    for _ in range(_MOST_DRAWS):
        rows = draw(rows)  # type: ignore[operator]
        if not len(rows):
            return
    raise unreachable(int(source_F[rows[0]]), int(target_F[rows[0]]))


def unreachable(source: int, target: int) -> NoAnswer:
    """The error for a pair that failures have cut apart."""
    return NoAnswer(f"chip {source} cannot reach chip {target}: every path between them is out of order.",
                    binding="disconnected", remedy="Repair a link, or leave these chips out.")
