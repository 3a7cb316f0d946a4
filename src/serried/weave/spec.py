"""Nouns of a schedule: who sends which chunk to whom, in which order, over which channel.

Axes: K = step, C = chunk of the whole buffer, D = dependency, R = rank (endpoints first, then switches).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from serried.errors import BadInput

__all__ = ["BUFFERS", "COPY", "INPUT", "KINDS", "OPERATIONS", "OUTPUT", "RECEIVE", "RECEIVE_REDUCE", "REDUCE",
           "SCRATCH", "SEND", "Operation", "Schedule", "Steps", "in_equal_chunks", "place", "slot_K", "spans"]

Ints = npt.NDArray[np.int64]

Operation = Literal["all_reduce", "all_gather", "reduce_scatter", "broadcast", "all_to_all"]
OPERATIONS: tuple[Operation, ...] = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "all_to_all")

#: What a step does. receive_reduce: target = source + message; reduce: target = target + source.
KINDS = ("send", "receive", "receive_reduce", "copy", "reduce")
SEND, RECEIVE, RECEIVE_REDUCE, COPY, REDUCE = range(5)

BUFFERS = ("input", "output", "scratch")
INPUT, OUTPUT, SCRATCH = range(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Steps as columns, sorted by rank, lane and order in the lane; -1 stands where a column does not apply.

    rank_K: who does it. lane_K: which of its lanes; a lane does one step after the other, lanes run side by side.
    kind_K: index into KINDS. peer_K, channel_K: of a message; messages of one channel from one rank to another arrive
    in the order sent. source_buffer_K, source_chunk_K, target_buffer_K, target_chunk_K: first chunk read and written;
    count_K: chunks in a row. Step k waits for the steps after_D[after_first_K[k]:after_first_K[k + 1]] of its rank.
    """

    rank_K: Ints
    lane_K: Ints
    kind_K: Ints
    peer_K: Ints
    channel_K: Ints
    source_buffer_K: Ints
    source_chunk_K: Ints
    target_buffer_K: Ints
    target_chunk_K: Ints
    count_K: Ints
    after_first_K: Ints
    after_D: Ints

    def __len__(self) -> int:
        return len(self.rank_K)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A chunked collective: what every rank does with every chunk.

    rank_count: ranks that hold data; switch_count: further ranks rank_count, rank_count + 1, ... that hold none and
    add or copy in the network. chunk_weight_C: the whole buffer (reduced, gathered or exchanged) is cut into chunks
    in these proportions. in_place: input and output share the whole buffer, as in the collective libraries.
    root: of a broadcast. scratch_count: chunks of scratch that a rank has, each as long as what is put there.
    """

    name: str
    operation: Operation
    rank_count: int
    chunk_weight_C: Ints
    steps: Steps
    in_place: bool = True
    root: int = 0
    switch_count: int = 0
    scratch_count: int = 0

    @property
    def chunk_count(self) -> int:
        """Chunks of the whole buffer."""
        return len(self.chunk_weight_C)

    @property
    def slot_count(self) -> int:
        """Places for a chunk that one rank has: the whole buffer once or twice, and scratch."""
        return self.chunk_count * (1 if self.in_place else 2) + self.scratch_count


def spans(schedule: Schedule) -> tuple[int, int]:
    """Chunks in the input and in the output of one rank."""
    whole, share = schedule.chunk_count, schedule.chunk_count // schedule.rank_count
    return (share if schedule.operation == "all_gather" else whole,
            share if schedule.operation == "reduce_scatter" else whole)


def place(schedule: Schedule, rank: Ints | int) -> tuple[Ints, Ints, Ints]:
    """Slot at which input, output and scratch of a rank begin, among its own slots; a switch has no share."""
    whole, share = schedule.chunk_count, schedule.chunk_count // schedule.rank_count
    own = np.where(np.asarray(rank) < schedule.rank_count, np.asarray(rank, dtype=np.int64) * share, 0)
    nothing = np.zeros_like(own)
    begin = whole if not schedule.in_place else 0
    return (own if schedule.in_place and schedule.operation == "all_gather" else nothing,
            nothing + begin + (own if schedule.in_place and schedule.operation == "reduce_scatter" else nothing),
            nothing + schedule.slot_count - schedule.scratch_count)


def slot_K(schedule: Schedule, rank_K: Ints, buffer_K: Ints, chunk_K: Ints) -> Ints:
    """Slot of a chunk of a buffer among the slots of all ranks; -1 where there is no buffer."""
    begins = np.stack(place(schedule, rank_K))
    inside_K = np.take_along_axis(begins, np.maximum(buffer_K, 0)[None, :], axis=0)[0] + chunk_K
    return np.where(buffer_K < 0, -1, rank_K * schedule.slot_count + inside_K)


def in_equal_chunks(schedule: Schedule) -> Schedule:
    """The same schedule with chunks cut into the largest equal ones; steps then move several in a row.

    For formats that know no other. Raises BadInput where scratch is used: its chunks have no weight of their own.
    """
    weight_C = schedule.chunk_weight_C // np.gcd.reduce(schedule.chunk_weight_C)
    if (weight_C == 1).all():
        return schedule
    if schedule.scratch_count:
        raise BadInput(field=schedule.name, value=schedule.scratch_count, expected="equal chunks where scratch is used",
                       remedy="Cut the buffer into equal chunks.")
    begin_S = np.concatenate([[0], np.cumsum(np.tile(weight_C, schedule.slot_count // schedule.chunk_count))])
    steps = schedule.steps
    begins = np.stack(place(schedule, steps.rank_K))

    def cut(buffer_K: Ints, chunk_K: Ints) -> tuple[Ints, Ints]:
        """First chunk and count, -1 and 0 where there is no buffer."""
        used_K = buffer_K >= 0
        base_K = np.take_along_axis(begins, np.maximum(buffer_K, 0)[None, :], axis=0)[0]
        first_K = np.where(used_K, base_K + chunk_K, 0)
        count_K = begin_S[np.where(used_K, first_K + steps.count_K, 0)] - begin_S[first_K]
        return np.where(used_K, begin_S[first_K] - begin_S[base_K], -1), np.where(used_K, count_K, 0)

    source_K, read_K = cut(steps.source_buffer_K, steps.source_chunk_K)
    target_K, write_K = cut(steps.target_buffer_K, steps.target_chunk_K)
    return replace(schedule, chunk_weight_C=np.ones(int(weight_C.sum()), dtype=np.int64), steps=replace(
        steps, source_chunk_K=source_K, target_chunk_K=target_K, count_K=np.maximum(read_K, write_K)))
