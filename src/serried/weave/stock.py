"""Which schedule does a named algorithm make for an operation?"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from serried.errors import BadInput, nearest
from serried.weave import algorithms as pieces
from serried.weave.all_to_all import bruck_exchange, flat_exchange, rail_exchange, two_level_exchange
from serried.weave.loom import Loom
from serried.weave.spec import OPERATIONS, Operation, Schedule

__all__ = ["ALGORITHMS", "stock_schedule"]

#: Operation -> the algorithms that can do it.
ALGORITHMS: dict[Operation, tuple[str, ...]] = {
    "all_reduce": ("ring", "direct", "halving_doubling", "bruck", "hierarchical", "double_tree", "in_switch"),
    "all_gather": ("ring", "direct", "halving_doubling", "bruck", "hierarchical"),
    "reduce_scatter": ("ring", "direct", "halving_doubling", "bruck", "hierarchical", "in_switch"),
    "broadcast": ("chain", "double_tree", "binomial", "direct", "hierarchical", "in_switch"),
    "all_to_all": ("flat", "bruck", "rail_aligned", "two_level"),
}
_TIERED = ("hierarchical", "rail_aligned", "two_level")
_MOST_RANKS = 1024


def stock_schedule(operation: Operation, algorithm: str, rank_count: int, *, chunks: int = 1,
                   tiers: Sequence[int] = (), ways: Sequence[str] = (), root: int = 0) -> Schedule:
    """The schedule of a named algorithm over ranks 0..rank_count-1.

    chunks: pieces that each rank's block is cut into, for pipelining. tiers: ranks in a group of each tier from the
    inside out (4, 2 = four in a node, two nodes), for hierarchical, rail-aligned and two-level algorithms. ways: the
    algorithm of each tier; ring when not said. root: of a broadcast. Raises BadInput on what does not fit.
    """
    _check(operation, algorithm, rank_count, chunks, tiers, ways, root)
    name = f"{algorithm} {operation} of {rank_count}{f' as {chr(215).join(map(str, tiers))}' if tiers else ''}"
    if operation == "all_to_all":
        return _exchange(algorithm, rank_count, chunks, tiers).schedule(name)
    pipelined = algorithm in ("double_tree", "chain", "binomial") or operation == "broadcast"
    count = (2 * chunks if algorithm == "double_tree" else chunks) if pipelined else rank_count * chunks
    loom = Loom(operation, rank_count, [1] * count, root=root, switch_count=int(algorithm == "in_switch"))
    members = list(range(rank_count))
    if operation == "broadcast":
        _broadcast(loom, algorithm, [(root + i) % rank_count for i in members], list(range(count)), tiers)
    elif algorithm == "double_tree":
        for half, parents in enumerate(pieces.double_tree_parents(rank_count)):
            pieces.tree_reduce(loom, members, parents, range(half, count, 2))
        for half, parents in enumerate(pieces.double_tree_parents(rank_count)):
            pieces.tree_broadcast(loom, members, parents, range(half, count, 2))
    elif algorithm == "in_switch":
        _in_switch(loom, members, [list(range(i * chunks, (i + 1) * chunks)) for i in members], operation)
    else:
        _scatter_gather(loom, operation, algorithm, members, chunks, tiers, ways)
    return loom.schedule(name)


def _scatter_gather(loom: Loom, operation: Operation, algorithm: str, members: list[int], chunks: int,
                    tiers: Sequence[int], ways: Sequence[str]) -> None:
    grid = np.asarray(members).reshape(tuple(reversed(tiers or [len(members)])))
    each = list(ways) or ["ring" if algorithm == "hierarchical" else algorithm] * grid.ndim
    blocks = [range(i * chunks, (i + 1) * chunks) for i in members]
    if operation in ("all_reduce", "reduce_scatter"):
        pieces.hierarchical_scatter(loom, grid, blocks, each)
    if operation in ("all_reduce", "all_gather"):
        pieces.hierarchical_gather(loom, grid, blocks, each)


def _broadcast(loom: Loom, algorithm: str, members: list[int], chunks: list[int], tiers: Sequence[int]) -> None:
    count = len(members)
    if algorithm == "double_tree":
        for half, parents in enumerate(pieces.double_tree_parents(count - 1)):
            behind = [-1] + [parent + 1 for parent in parents]     # the root stands above the roots of both trees
            pieces.tree_broadcast(loom, members, behind, chunks[half::2])
    elif algorithm == "in_switch":
        switch = count
        for chunk in chunks:
            loom.move(members[0], switch, [chunk])
            for member in members[1:]:
                loom.move(switch, member, [chunk])
    elif algorithm == "hierarchical":
        stride = len(members)
        for width in reversed(tiers):
            stride //= width
            for first in range(0, count, stride * width):
                group = members[first:first + stride * width:stride]
                pieces.tree_broadcast(loom, group, pieces.binomial(width), chunks)
    else:
        parents = {"chain": pieces.chain, "binomial": pieces.binomial}.get(algorithm, _star)(count)
        pieces.tree_broadcast(loom, members, parents, chunks)


def _star(count: int) -> list[int]:
    return [-1] + [0] * (count - 1)


def _in_switch(loom: Loom, members: list[int], blocks: list[list[int]], operation: Operation) -> None:
    """Everybody sends its part up to the one switch, which adds; the sum comes down, to its owner or to everybody."""
    switch = len(members)
    for i, block in enumerate(blocks):
        for chunk in block:
            for position, member in enumerate(members):
                loom.move(member, switch, [chunk], reduce=position > 0)
            for member in members if operation == "all_reduce" else [members[i]]:
                loom.move(switch, member, [chunk])


def _exchange(algorithm: str, rank_count: int, share: int, tiers: Sequence[int]) -> Loom:
    node = tiers[0] if tiers else rank_count
    scratch = {"bruck": 2 * rank_count, "rail_aligned": rank_count, "two_level": 2 * rank_count * node}
    loom = Loom("all_to_all", rank_count, [1] * (rank_count * share), in_place=False,
                scratch_count=scratch.get(algorithm, 0) * share)
    if algorithm == "flat":
        flat_exchange(loom, rank_count, share)
    elif algorithm == "bruck":
        bruck_exchange(loom, rank_count, share)
    elif algorithm == "rail_aligned":
        rail_exchange(loom, rank_count, share, node)
    else:
        two_level_exchange(loom, rank_count, share, node)
    return loom


def _check(operation: Operation, algorithm: str, rank_count: int, chunks: int, tiers: Sequence[int],
           ways: Sequence[str], root: int) -> None:
    if operation not in ALGORITHMS:
        raise BadInput(field="operation", value=operation, expected=f"one of {', '.join(OPERATIONS)}",
                       remedy=f"Nearest: {', '.join(nearest(operation, OPERATIONS)) or 'all_reduce'}.")
    known = ALGORITHMS[operation]
    if algorithm not in known:
        raise BadInput(field="algorithm", value=algorithm, expected=f"for {operation} one of {', '.join(known)}",
                       remedy=f"Nearest: {', '.join(nearest(algorithm, known)) or known[0]}.")
    if not 2 <= rank_count <= _MOST_RANKS:
        raise BadInput(field="ranks", value=rank_count, expected=f"2 to {_MOST_RANKS:,} ranks",
                       remedy="A schedule is written for every rank; larger groups are built from tiers of schedules.")
    if not 1 <= chunks <= 4096:
        raise BadInput(field="chunks", value=chunks, expected="1 to 4,096 chunks", remedy="Choose fewer chunks.")
    if not 0 <= root < rank_count:
        raise BadInput(field="root", value=root, expected=f"a rank below {rank_count}", remedy="Ranks count from 0.")
    if algorithm in _TIERED and (not tiers or prod(tiers) != rank_count or min(tiers) < 1):
        raise BadInput(field="tiers", value=list(tiers), expected=f"group sizes whose product is {rank_count}",
                       remedy="Give the tiers from the inside out, e.g. 4,2 for two nodes of four.")
    if ways and (len(ways) != max(len(tiers), 1) or not set(ways) <= set(pieces.SCATTERS)):
        raise BadInput(field="ways", value=list(ways), expected=f"one of {', '.join(pieces.SCATTERS)} per tier",
                       remedy="Give as many as tiers, from the inside out.")
