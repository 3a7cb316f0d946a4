"""What does each rank do, in elements instead of chunks? Plain data, so that a worker needs nothing of this package."""

from __future__ import annotations

from typing import Any

import numpy as np

from serried.errors import BadInput
from serried.weave.spec import KINDS, Schedule, in_equal_chunks, place, slot_K, spans

__all__ = ["rank_programs"]


def rank_programs(schedule: Schedule, element_count: int) -> list[dict[str, Any]]:
    """One program per rank for a whole buffer of at least element_count elements (chunks are cut alike, rounded up).

    Steps are [kind, peer, channel, source, target, length, waits], in elements of one flat memory; waits are
    [lane, order]. Raises BadInput for what processes cannot do.
    """
    if schedule.switch_count:
        raise BadInput(field=schedule.name, value=schedule.switch_count, expected="a schedule of endpoints alone",
                       remedy="Switches that add are no processes; choose another algorithm.")
    schedule = in_equal_chunks(schedule)
    unit = -(-element_count // schedule.chunk_count)
    steps = schedule.steps
    starts = np.flatnonzero((np.diff(steps.rank_K, prepend=-1) != 0) | (np.diff(steps.lane_K, prepend=-1) != 0))
    order_K = np.arange(len(steps)) - np.repeat(starts, np.diff(np.append(starts, len(steps))))

    def first_K(buffer_K: np.ndarray, chunk_K: np.ndarray) -> np.ndarray:
        own_K = slot_K(schedule, steps.rank_K, buffer_K, chunk_K) - steps.rank_K * schedule.slot_count
        return np.where(buffer_K < 0, -1, own_K * unit)

    given, taken = spans(schedule)
    programs: list[dict[str, Any]] = []
    for rank in range(schedule.rank_count):
        first, output = (int(begin) for begin in place(schedule, rank)[:2])
        programs.append({
            "operation": schedule.operation, "rank": rank, "rank_count": schedule.rank_count, "root": schedule.root,
            "memory": schedule.slot_count * unit, "whole": schedule.chunk_count * unit, "lanes": [],
            "input": [first * unit, (first + given) * unit], "output": [output * unit, (output + taken) * unit]})
    columns = [column.tolist() for column in (
        steps.rank_K, steps.kind_K, steps.peer_K, steps.channel_K, first_K(steps.source_buffer_K, steps.source_chunk_K),
        first_K(steps.target_buffer_K, steps.target_chunk_K), steps.count_K * unit, order_K)]
    lane_K, waits_K = steps.lane_K.tolist(), steps.after_first_K.tolist()
    for step, (rank, kind, *told, order) in enumerate(zip(*columns, strict=True)):
        lanes = programs[rank]["lanes"]
        if order == 0:
            lanes.append([])
        waits = [[lane_K[wait], columns[-1][wait]] for wait in steps.after_D[waits_K[step]:waits_K[step + 1]].tolist()]
        lanes[-1].append([KINDS[kind], *told, waits])
    return programs
