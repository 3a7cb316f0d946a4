"""How is a schedule put together? Transfer by transfer, in an order that would do on its own.

The loom keeps, for every slot, who wrote it and who has read it since, and derives from that what each step has to wait
for. A transfer told later never has to be done earlier, so that what comes off the loom cannot deadlock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from serried.weave.spec import (
    COPY,
    INPUT,
    OUTPUT,
    RECEIVE,
    RECEIVE_REDUCE,
    REDUCE,
    SEND,
    Operation,
    Schedule,
    Steps,
    place,
)

__all__ = ["Loom", "runs"]

#: One slot of a rank: buffer and chunk.
Slot = tuple[int, int]


def runs(chunks: Iterable[int]) -> list[tuple[int, int]]:
    """Chunks as (first, count) of runs without a gap, in the order given: 3 4 5 1 -> (3, 3), (1, 1)."""
    found: list[tuple[int, int]] = []
    for chunk in chunks:
        if found and chunk == sum(found[-1]):
            found[-1] = found[-1][0], found[-1][1] + 1
        else:
            found.append((chunk, 1))
    return found


class Loom:
    """Collects the steps of one schedule.

    Every direction of a channel to a peer is a lane of its own; local work has a lane too.
    """

    def __init__(self, operation: Operation, rank_count: int, chunk_weights: Sequence[int], *, in_place: bool = True,
                 root: int = 0, switch_count: int = 0, scratch_count: int = 0) -> None:
        whole = np.asarray(chunk_weights, dtype=np.int64)
        nothing = np.empty(0, dtype=np.int64)
        empty = Steps(**dict.fromkeys(Steps.__slots__, nothing))
        self._frame = Schedule(name="", operation=operation, rank_count=rank_count, chunk_weight_C=whole, steps=empty,
                               in_place=in_place, root=root, switch_count=switch_count, scratch_count=scratch_count)
        self._begins = [tuple(int(begin) for begin in place(self._frame, rank))
                        for rank in range(rank_count + switch_count)]
        self._rows: list[tuple[int, ...]] = []
        self._after: list[list[int]] = []
        self._lanes: dict[tuple[object, ...], int] = {}   # numbered over all ranks
        self._lane_of: list[int] = []                      # of each step
        self._known: list[dict[int, int]] = []             # lane -> the last step of other lanes it has waited for
        self._written: dict[int, int] = {}
        self._read: dict[int, list[int]] = {}

    @property
    def whole(self) -> int:
        """The buffer in which the whole (reduced, gathered) data comes together."""
        return INPUT if self._frame.in_place and self._frame.operation != "all_gather" else OUTPUT

    def move(self, sender: int, receiver: int, chunks: Iterable[int], *, reduce: bool = False,
             channel: int = 0) -> None:
        """Chunks of the whole buffer go to the same places of another rank, which takes or adds them."""
        for first, count in runs(chunks):
            self.transfer(sender, (self.whole, first), receiver, (self.whole, first), count=count, reduce=reduce,
                          channel=channel)

    def transfer(self, sender: int, source: Slot, receiver: int, target: Slot, *, count: int = 1, reduce: bool = False,
                 channel: int = 0) -> None:
        """`count` chunks from a slot of one rank to a slot of another, which keeps them or adds them to what it has."""
        self._step(sender, ("send", receiver, channel), SEND, receiver, channel, source, (-1, -1), count)
        self._step(receiver, ("receive", sender, channel), RECEIVE_REDUCE if reduce else RECEIVE, sender, channel,
                   target if reduce else (-1, -1), target, count)

    def local(self, rank: int, source: Slot, target: Slot, *, count: int = 1, reduce: bool = False) -> None:
        """`count` chunks within a rank."""
        self._step(rank, ("local",), REDUCE if reduce else COPY, -1, -1, source, target, count)

    def _step(self, rank: int, lane_name: tuple[object, ...], kind: int, peer: int, channel: int, source: Slot,
              target: Slot, count: int) -> None:
        lane = self._lane(rank, lane_name)
        step = len(self._rows)
        self._lane_of.append(lane)
        reads = self._slots(rank, source, count)
        writes = self._slots(rank, target, count)
        needs = {self._written.get(slot, -1) for slot in (*reads, *writes)}
        needs.update(chain.from_iterable(self._read.get(slot, ()) for slot in writes))
        self._after.append(self._news(lane, needs))
        for slot in reads:
            self._read.setdefault(slot, []).append(step)
        for slot in writes:
            self._written[slot] = step
            self._read[slot] = []
        self._rows.append((rank, lane, kind, peer, channel, *source, *target, count))

    def _lane(self, rank: int, name: tuple[object, ...]) -> int:
        key = (rank, *name)
        if key not in self._lanes:
            self._lanes[key] = len(self._lanes)
            self._known.append({})
        return self._lanes[key]

    def _slots(self, rank: int, slot: Slot, count: int) -> range:
        if slot[0] < 0:
            return range(0)
        first = rank * self._frame.slot_count + self._begins[rank][slot[0]] + slot[1]
        return range(first, first + count)

    def _news(self, lane: int, needs: Iterable[int]) -> list[int]:
        """Of the steps that must be over, those that the lane does not know to be over: the last of each lane."""
        latest: dict[int, int] = {}
        for step in needs:
            if step >= 0 and self._lane_of[step] != lane:
                other = self._lane_of[step]
                latest[other] = max(latest.get(other, -1), step)
        known = self._known[lane]
        news = [step for other, step in latest.items() if known.get(other, -1) < step]
        known.update({self._lane_of[step]: step for step in news})
        return sorted(news)

    def schedule(self, name: str) -> Schedule:
        """What has been told so far, as a schedule."""
        table = np.asarray(self._rows, dtype=np.int64).reshape(-1, 10)
        sorted_K = np.lexsort((table[:, 1], table[:, 0]))       # stable: the order within a lane stays
        moved_K = np.empty(len(table), dtype=np.int64)
        moved_K[sorted_K] = np.arange(len(table))
        columns = table[sorted_K].T.copy()
        lane_K = np.cumsum(np.diff(columns[1], prepend=-1) != 0)
        lane_K -= lane_K[np.searchsorted(columns[0], columns[0])]     # each rank numbers its own from 0
        waits = [self._after[old] for old in sorted_K]
        after_first_K = np.cumsum([0, *map(len, waits)], dtype=np.int64)
        steps = Steps(rank_K=columns[0], lane_K=lane_K, kind_K=columns[2], peer_K=columns[3], channel_K=columns[4],
                      source_buffer_K=columns[5], source_chunk_K=columns[6], target_buffer_K=columns[7],
                      target_chunk_K=columns[8], count_K=columns[9], after_first_K=after_first_K,
                      after_D=moved_K[np.fromiter(chain.from_iterable(waits), np.int64, int(after_first_K[-1]))])
        frame = {field: getattr(self._frame, field) for field in Schedule.__slots__}
        return Schedule(**frame | {"name": name, "steps": steps})
