"""What happens before what, and does everything happen at all?

Two orders. The strict one is what deadlock is judged by: a send is over only when it is received (rendezvous), so a
send and its receive are one event. The loose one is what races are judged by: a message arrives after it was sent, and
nothing else is promised between ranks, so that buffering cannot break a schedule either.

Axes: K = step, L = level, N = pair of accesses to one slot.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serried.weave.legality import message_pairs
from serried.weave.spec import Schedule

__all__ = ["lane_edges", "level_K", "unordered"]

Ints = npt.NDArray[np.int64]
#: Earlier accesses followed through the schedule at once: one bit each.
_BITS = 4096


def lane_edges(schedule: Schedule) -> tuple[Ints, Ints]:
    """(before, after): the order within lanes, and what steps wait for."""
    steps = schedule.steps
    follows = np.flatnonzero((np.diff(steps.rank_K) == 0) & (np.diff(steps.lane_K) == 0))
    waiting = np.repeat(np.arange(len(steps)), np.diff(steps.after_first_K))
    return np.concatenate([follows, steps.after_D]), np.concatenate([follows + 1, waiting])


def level_K(schedule: Schedule) -> Ints:
    """How many events must come before each step at least; -1 for steps that never happen (deadlock)."""
    count = len(schedule.steps)
    event_K = np.arange(count)
    sends, receives = message_pairs(schedule)
    event_K[receives] = sends
    before, after = (event_K[edge] for edge in lane_edges(schedule))
    waits_K = np.bincount(after, minlength=count)
    order = np.argsort(before, kind="stable")
    targets, first_K = after[order], np.searchsorted(before[order], np.arange(count + 1))
    found_K = np.full(count, -1)
    ready = np.flatnonzero((waits_K == 0) & (event_K == np.arange(count)))
    level = 0
    while len(ready):
        found_K[ready] = level
        reached = targets[_ranges(first_K[ready], first_K[ready + 1])]
        np.subtract.at(waits_K, reached, 1)
        reached = np.unique(reached)
        ready = reached[waits_K[reached] == 0]
        level += 1
    return found_K[event_K]


def _ranges(first: Ints, end: Ints) -> Ints:
    """first[0]..end[0]-1, first[1]..end[1]-1, ... in one array."""
    length = end - first
    return np.repeat(first - np.cumsum(length) + length, length) + np.arange(length.sum())


def unordered(schedule: Schedule, level_of_K: Ints, first_N: Ints, then_N: Ints) -> Ints:
    """Positions of the pairs of which `then` may come before `first` has: no chain of lanes, waits and messages."""
    steps = schedule.steps
    lane_of_K = np.cumsum((np.diff(steps.rank_K, prepend=-1) != 0) | (np.diff(steps.lane_K, prepend=-1) != 0))
    open_N = np.flatnonzero(~((lane_of_K[first_N] == lane_of_K[then_N]) & (first_N < then_N)))
    before, after = lane_edges(schedule)
    count = len(steps)
    known = np.unique(before * count + after)
    open_N = open_N[~np.isin(first_N[open_N] * count + then_N[open_N], known)]
    if not len(open_N):
        return open_N
    sends, receives = message_pairs(schedule)
    before, after = np.concatenate([before, sends]), np.concatenate([after, receives])
    order = np.argsort(after, kind="stable")
    sources, first_K = before[order].tolist(), np.searchsorted(after[order], np.arange(count + 1)).tolist()
    # A send and its receive share a level: the send first.
    walk = np.lexsort((np.isin(np.arange(count), receives), level_of_K)).tolist()
    starts = np.unique(first_N[open_N])
    bad = [found for begin in range(0, len(starts), _BITS)
           for found in _unreached(starts[begin:begin + _BITS], first_N, then_N, open_N, walk, sources, first_K)]
    return np.asarray(sorted(bad), dtype=np.int64)


def _unreached(starts: Ints, first_N: Ints, then_N: Ints, open_N: Ints, walk: Sequence[int], sources: Sequence[int],
               first_K: Sequence[int]) -> list[int]:
    """Of the open pairs that begin at `starts`, those whose end is not reached: one bit per start, carried along."""
    bit = {int(start): 1 << position for position, start in enumerate(starts)}
    reached = [0] * len(walk)
    for step in walk:
        carried = bit.get(step, 0)
        for source in sources[first_K[step]:first_K[step + 1]]:
            carried |= reached[source]
        reached[step] = carried
    mine = open_N[np.isin(first_N[open_N], starts)]
    return [int(pair) for pair in mine
            if first_N[pair] == then_N[pair] or not reached[then_N[pair]] & bit[int(first_N[pair])]]
