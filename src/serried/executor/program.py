"""What does each rank do, in elements instead of chunks? Plain data, so that a worker needs nothing of this package."""

from __future__ import annotations

from typing import Any

import numpy as np

from serried.errors import BadInput
from serried.weave.spec import KINDS, Schedule, place, spans

__all__ = ["rank_programs"]


def rank_programs(schedule: Schedule, element_count: int) -> list[dict[str, Any]]:
    """One program per rank for a whole buffer of at least element_count elements (chunks are cut alike, rounded up).

    Steps are [kind, peer, channel, source, target, length, waits], in elements of one flat memory; waits are
    [lane, order]. Raises BadInput for what processes cannot do.
    """
    if schedule.switch_count:
        raise BadInput(field=schedule.name, value=schedule.switch_count, expected="a schedule of endpoints alone",
                       remedy="Switches that add are no processes; choose another algorithm.")
    weight_C = schedule.chunk_weight_C
    if schedule.scratch_count and len(np.unique(weight_C)) > 1:
        raise BadInput(field=schedule.name, value=schedule.scratch_count, expected="equal chunks where scratch is used",
                       remedy="Cut the buffer into equal chunks.")
    unit = -(-element_count // int(weight_C.sum()))
    lengths = np.concatenate([*[weight_C] * (1 if schedule.in_place else 2),
                              np.full(schedule.scratch_count, weight_C.max())]) * unit
    begin_S = np.concatenate([[0], np.cumsum(lengths)])
    steps = schedule.steps
    starts = np.flatnonzero((np.diff(steps.rank_K, prepend=-1) != 0) | (np.diff(steps.lane_K, prepend=-1) != 0))
    order_K = np.arange(len(steps)) - np.repeat(starts, np.diff(np.append(starts, len(steps))))
    begins = np.stack(place(schedule, steps.rank_K))

    def elements(buffer_K: np.ndarray, chunk_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slot_K = np.take_along_axis(begins, np.maximum(buffer_K, 0)[None, :], axis=0)[0] + chunk_K
        used_K = buffer_K >= 0
        first_K = np.where(used_K, slot_K, 0)
        return (np.where(used_K, begin_S[first_K], -1),
                np.where(used_K, begin_S[np.where(used_K, first_K + steps.count_K, 0)] - begin_S[first_K], 0))

    source_K, read_K = elements(steps.source_buffer_K, steps.source_chunk_K)
    target_K, write_K = elements(steps.target_buffer_K, steps.target_chunk_K)
    given, taken = spans(schedule)
    programs: list[dict[str, Any]] = []
    for rank in range(schedule.rank_count):
        first, output = (int(begin) for begin in place(schedule, rank)[:2])
        programs.append({
            "operation": schedule.operation, "rank": rank, "rank_count": schedule.rank_count, "root": schedule.root,
            "memory": int(begin_S[-1]), "whole": int(begin_S[schedule.chunk_count]), "lanes": [],
            "input": [int(begin_S[first]), int(begin_S[first + given])],
            "output": [int(begin_S[output]), int(begin_S[output + taken])]})
    columns = [column.tolist() for column in (steps.rank_K, steps.kind_K, steps.peer_K, steps.channel_K, source_K,
                                              target_K, np.maximum(read_K, write_K), order_K)]
    lane_K, first_K = steps.lane_K.tolist(), steps.after_first_K.tolist()
    for step, (rank, kind, *told, order) in enumerate(zip(*columns, strict=True)):
        lanes = programs[rank]["lanes"]
        if order == 0:
            lanes.append([])
        waits = [[lane_K[wait], columns[-1][wait]] for wait in steps.after_D[first_K[step]:first_K[step + 1]].tolist()]
        lanes[-1].append([KINDS[kind], *told, waits])
    return programs
