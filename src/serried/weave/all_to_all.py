"""Which transfers make up an all-to-all: flat, in a logarithm of steps, rail-aligned or between nodes in bulk?

Rank i sends block j of its input to block i of the output of rank j; a block is `share` chunks.
"""

from __future__ import annotations

from serried.weave.loom import Loom
from serried.weave.spec import INPUT, OUTPUT, SCRATCH

__all__ = ["bruck_exchange", "flat_exchange", "rail_exchange", "two_level_exchange"]


def flat_exchange(loom: Loom, rank_count: int, share: int) -> None:
    """Every pair exchanges its blocks straight; in round s everybody sends to whom stands s further."""
    for rank in range(rank_count):
        loom.local(rank, (INPUT, rank * share), (OUTPUT, rank * share), count=share)
    for shift in range(1, rank_count):
        for rank in range(rank_count):
            target = (rank + shift) % rank_count
            loom.transfer(rank, (INPUT, target * share), target, (OUTPUT, rank * share), count=share)


def bruck_exchange(loom: Loom, rank_count: int, share: int) -> None:
    """Bruck's all-to-all: a block that has d places to go takes the steps that are set in the bits of d.

    Scratch slot d of a rank holds the block that has d places to go in all, wherever it has got to. A received block
    lands in a second slot d, since the first is still to be sent: slots alternate between the halves of scratch.
    """
    half = rank_count * share
    for rank in range(rank_count):
        loom.local(rank, (INPUT, rank * share), (OUTPUT, rank * share), count=share)
    hops = [0] * rank_count
    bit = 1
    while bit < rank_count:
        for rank in range(rank_count):
            target = (rank + bit) % rank_count
            for distance in (d for d in range(rank_count) if d & bit):
                begins = (rank + distance) % rank_count * share
                source = (INPUT, begins) if not hops[distance] else (
                    SCRATCH, hops[distance] % 2 * half + distance * share)
                arrived = distance < 2 * bit
                origin = (target - distance) % rank_count
                place = (OUTPUT, origin * share) if arrived else (
                    SCRATCH, (hops[distance] + 1) % 2 * half + distance * share)
                loom.transfer(rank, source, target, place, count=share)
        hops = [hop + bool(d & bit) for d, hop in enumerate(hops)]
        bit *= 2


def rail_exchange(loom: Loom, rank_count: int, share: int, node: int) -> None:
    """Rail-aligned: inside a node, first to the rank that stands on the target's rail; then along the rail.

    Scratch of rank (a, j) holds, by target node b and local origin i, the block of (a, i) for (b, j).
    """
    nodes = rank_count // node
    for a in range(nodes):
        for shift in range(node):
            for i in range(node):
                j = (i + shift) % node
                for b in range(nodes):
                    _pass_on(loom, a * node + i, (INPUT, (b * node + j) * share), a * node + j,
                             (SCRATCH, (b * node + i) * share), share)
    for shift in range(nodes):
        for a in range(nodes):
            b = (a + shift) % nodes
            for j in range(node):
                _pass_on(loom, a * node + j, (SCRATCH, b * node * share), b * node + j,
                         (OUTPUT, a * node * share), node * share)


def two_level_exchange(loom: Loom, rank_count: int, share: int, node: int) -> None:
    """In bulk: one rank of node a gathers all that goes to node b, sends it as one message to one rank there, which
    hands it out. Rank (b mod node) of node a and rank (a mod node) of node b meet.

    Scratch: first what is to leave, by target node, local target and local origin; then what has come, likewise.
    """
    nodes = rank_count // node
    bulk = node * node * share
    for a in range(nodes):
        for shift in range(nodes):
            b = (a + shift) % nodes
            if b == a:
                continue
            sender, receiver = a * node + b % node, b * node + a % node
            for i in range(node):
                for j in range(node):
                    _pass_on(loom, a * node + i, (INPUT, (b * node + j) * share), sender,
                             (SCRATCH, b * bulk + (j * node + i) * share), share)
            loom.transfer(sender, (SCRATCH, b * bulk), receiver, (SCRATCH, (nodes + a) * bulk), count=bulk)
    for a in range(nodes):
        for b in range(nodes):
            for j in range(node):
                holder = b * node + a % node
                if a != b:
                    _pass_on(loom, holder, (SCRATCH, (nodes + a) * bulk + j * node * share), b * node + j,
                             (OUTPUT, a * node * share), node * share)
                    continue
                for i in range(node):
                    _pass_on(loom, a * node + i, (INPUT, (a * node + j) * share), a * node + j,
                             (OUTPUT, (a * node + i) * share), share)


def _pass_on(loom: Loom, sender: int, source: tuple[int, int], receiver: int, target: tuple[int, int],
             count: int) -> None:
    """A transfer, or a copy when both are one rank."""
    if sender == receiver:
        loom.local(sender, source, target, count=count)
    else:
        loom.transfer(sender, source, receiver, target, count=count)
