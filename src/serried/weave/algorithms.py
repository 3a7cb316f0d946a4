"""Which transfers make up the well-known algorithms?

Every piece works on a group of ranks and on blocks, block i being the chunks that member i of the group ends with
(reduce-scatter) or starts with (all-gather), so that pieces nest: a hierarchy is a piece per tier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from serried.errors import BadInput
from serried.weave.loom import Loom

__all__ = ["GATHERS", "SCATTERS", "binomial", "bruck_gather", "chain", "direct_gather", "direct_scatter",
           "double_tree_parents", "doubling_gather", "halving_scatter", "hierarchical_gather",
           "hierarchical_scatter", "ring_gather", "ring_scatter", "tree_broadcast", "tree_reduce"]

Members = Sequence[int]
Blocks = Sequence[Sequence[int]]
Piece = Callable[[Loom, Members, Blocks], None]


def ring_scatter(loom: Loom, members: Members, blocks: Blocks) -> None:
    """Block i travels once around the ring and is added to at every stop, the last being member i."""
    count = len(members)
    for step in range(1, count):
        for i in range(count):
            loom.move(members[i], members[(i + 1) % count], blocks[(i - step) % count], reduce=True)


def ring_gather(loom: Loom, members: Members, blocks: Blocks) -> None:
    """Block i travels once around the ring and is kept at every stop."""
    count = len(members)
    for step in range(count - 1):
        for i in range(count):
            loom.move(members[i], members[(i + 1) % count], blocks[(i - step) % count])


def direct_scatter(loom: Loom, members: Members, blocks: Blocks) -> None:
    """Everybody sends everybody's block to its owner; who sends to whom shifts, so that nobody is everyone's target."""
    count = len(members)
    for shift in range(1, count):
        for i in range(count):
            loom.move(members[i], members[(i + shift) % count], blocks[(i + shift) % count], reduce=True)


def direct_gather(loom: Loom, members: Members, blocks: Blocks) -> None:
    """Everybody sends its own block to everybody."""
    count = len(members)
    for shift in range(1, count):
        for i in range(count):
            loom.move(members[i], members[(i + shift) % count], blocks[i])


def halving_scatter(loom: Loom, members: Members, blocks: Blocks) -> None:
    """Recursive halving: partners half the group apart exchange the halves that they do not keep; powers of two."""
    count = _power_of_two(members, "recursive halving")
    half = count // 2
    while half:
        for i in range(count):
            partner = i ^ half
            kept = [block for block in range(count) if block // half == partner // half]
            loom.move(members[i], members[partner], _joined(blocks, kept), reduce=True)
        half //= 2


def doubling_gather(loom: Loom, members: Members, blocks: Blocks) -> None:
    """Recursive doubling: partners exchange all that they have, then look twice as far; powers of two."""
    count = _power_of_two(members, "recursive doubling")
    reach = 1
    while reach < count:
        for i in range(count):
            held = [block for block in range(count) if block // reach == i // reach]
            loom.move(members[i], members[i ^ reach], _joined(blocks, held))
        reach *= 2


def bruck_gather(loom: Loom, members: Members, blocks: Blocks) -> None:
    """Bruck's all-gather: in step k everybody sends what it holds, at most 2**k blocks, to whom stands 2**k behind."""
    count = len(members)
    held = 1
    while held < count:
        for i in range(count):
            sent = [(i + offset) % count for offset in range(min(held, count - held))]
            loom.move(members[i], members[(i - held) % count], _joined(blocks, sent))
        held *= 2


def bruck_scatter(loom: Loom, members: Members, blocks: Blocks) -> None:
    """Bruck's all-gather backwards: the last exchange comes first, and what was kept is added."""
    count = len(members)
    for held in reversed([2**step for step in range((count - 1).bit_length())]):
        for i in range(count):
            sent = [(i + offset) % count for offset in range(min(held, count - held))]
            loom.move(members[(i - held) % count], members[i], _joined(blocks, sent), reduce=True)


#: What one tier of a reduce-scatter, or of an all-gather, can be.
SCATTERS: dict[str, Piece] = {"ring": ring_scatter, "direct": direct_scatter, "halving_doubling": halving_scatter,
                              "bruck": bruck_scatter}
GATHERS: dict[str, Piece] = {"ring": ring_gather, "direct": direct_gather, "halving_doubling": doubling_gather,
                             "bruck": bruck_gather}


def hierarchical_scatter(loom: Loom, grid: npt.NDArray[np.int64], blocks: Blocks, ways: Sequence[str]) -> None:
    """Reduce-scatter tier by tier, inside first: each tier leaves less for the slower wires of the next.

    grid: ranks of the group, its last axis the innermost tier; blocks by place in the flattened grid; ways: the
    algorithm of each tier from the inside out.
    """
    inner = grid.shape[-1]
    for row in grid.reshape(-1, inner):
        SCATTERS[ways[0]](loom, row.tolist(), [_joined(blocks, range(j, len(blocks), inner)) for j in range(inner)])
    if grid.ndim > 1:
        for j in range(inner):
            hierarchical_scatter(loom, grid[..., j], blocks[j::inner], ways[1:])


def hierarchical_gather(loom: Loom, grid: npt.NDArray[np.int64], blocks: Blocks, ways: Sequence[str]) -> None:
    """All-gather tier by tier, outside first: the slow wires carry every block once."""
    inner = grid.shape[-1]
    if grid.ndim > 1:
        for j in range(inner):
            hierarchical_gather(loom, grid[..., j], blocks[j::inner], ways[1:])
    for row in grid.reshape(-1, inner):
        GATHERS[ways[0]](loom, row.tolist(), [_joined(blocks, range(j, len(blocks), inner)) for j in range(inner)])


def double_tree_parents(count: int) -> list[list[int]]:
    """Two binary trees over 0..count-1 as parents (-1 at the root); who is inside one is a leaf of the other.

    The first is in order: the lowest set bit of a place says how high it stands. The second is the first, mirrored for
    an even count and shifted by one for an odd one (Sanders, Speck, Träff 2009).
    """
    first = [_tree_parent(place, count) for place in range(count)]
    moved = [count - 1 - place if count % 2 == 0 else (place + 1) % count for place in range(count)]
    second = [-1] * count
    for place, parent in enumerate(first):
        second[moved[place]] = -1 if parent < 0 else moved[parent]
    return [first, second]


def _tree_parent(place: int, count: int) -> int:
    if place == 0:
        return -1
    bit = place & -place
    up = (place ^ bit) | (bit << 1)
    return up if up < count else place ^ bit


def binomial(count: int) -> list[int]:
    """Parents of the binomial tree over 0..count-1 with root 0: the highest bit goes."""
    return [-1] + [place - (1 << (place.bit_length() - 1)) for place in range(1, count)]


def chain(count: int) -> list[int]:
    """Parents of a chain 0, 1, 2, ..."""
    return list(range(-1, count - 1))


def tree_reduce(loom: Loom, members: Members, parents: Sequence[int], chunks: Sequence[int]) -> None:
    """Chunk by chunk, everybody adds what its children sent and passes it up; `parents` by place in `members`."""
    upwards = sorted((place for place in range(len(members)) if parents[place] >= 0),
                     key=lambda place: -_depth(place, parents))
    for chunk in chunks:
        for place in upwards:
            loom.move(members[place], members[parents[place]], [chunk], reduce=True)


def tree_broadcast(loom: Loom, members: Members, parents: Sequence[int], chunks: Sequence[int]) -> None:
    """Chunk by chunk, everybody passes down what its parent sent."""
    downwards = sorted((place for place in range(len(members)) if parents[place] >= 0),
                       key=lambda place: _depth(place, parents))
    for chunk in chunks:
        for place in downwards:
            loom.move(members[parents[place]], members[place], [chunk])


def _depth(place: int, parents: Sequence[int]) -> int:
    depth = 0
    while parents[place] >= 0:
        place, depth = parents[place], depth + 1
    return depth


def _joined(blocks: Blocks, chosen: Sequence[int]) -> list[int]:
    return sorted(chunk for block in chosen for chunk in blocks[block])


def _power_of_two(members: Members, name: str) -> int:
    count = len(members)
    if count & (count - 1):
        raise BadInput(field="ranks", value=count, expected=f"a power of two for {name}",
                       remedy="Choose ring, direct or bruck, which take any count.")
    return count
