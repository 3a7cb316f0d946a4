"""Nodes kept for a job that cannot start: where, by what running jobs are expected to do, it could start first.

Axes: N = node, S = switch.
"""

from __future__ import annotations

import numpy as np

from serried.fleet.columns import DOWN, DRAINING, RESERVED, SPARE
from serried.fleet.placer import Placer
from serried.fleet.snapshot import Snapshot
from serried.fleet.spec import FAR_NS, WHOLE_MILLI, Event, EventKind

__all__ = ["reservation"]


def reservation(snapshot: Snapshot, placer: Placer, number: int) -> Event | None:
    """The RESERVE event for a job: under one switch that its shape allows, the nodes that are free first.

    A node serves once all that runs there has ended; one that is kept for the job already serves as well as any. Only
    the job's most worthwhile alternative is looked at, with nodes that could hold at least one of its workers; None
    where no switch has so many, and for a job of one chip and nothing else: whoever's turn it is gets the first
    that is freed.
    """
    job, columns, fleet = snapshot.job(number), snapshot.columns, snapshot.fleet
    shape = job.shape
    one = shape.alternatives[placer.best_way(shape)]
    needs_more = one.chip_count > 1 or shape.cpu_milli or shape.memory_bytes
    if shape.share_milli < WHOLE_MILLI or not one.chips_per_worker or not needs_more:
        return None
    workers_N = np.minimum(fleet.chip_count_N // one.chips_per_worker, one.worker_count).astype(np.int64)
    flags_N = columns.flags_N
    if number in snapshot.reserved_nodes:
        flags_N = flags_N.copy()
        flags_N[snapshot.reserved_nodes[number]] &= ~RESERVED
    unfit_N = (flags_N & (DOWN | DRAINING | RESERVED | SPARE) != 0) | (columns.broken_chips_N != 0)
    workers_N[unfit_N | ~np.isin(fleet.kind_N, one.kinds)] = 0
    order = np.flatnonzero(workers_N)
    order = order[np.argsort(columns.busy_until_ns_N[order], kind="stable")]
    level = shape.level if shape.level_required else placer.switches.level_count - 1
    switch_N = (fleet.switch_LN[level] if level < len(fleet.switch_LN) else np.zeros(fleet.node_count, dtype=np.int32))
    grouped = order[np.argsort(switch_N[order], kind="stable")]   # by switch, and there by the time of becoming free
    reached_X = np.cumsum(workers_N[grouped])
    begins_X = np.flatnonzero(np.diff(switch_N[grouped], prepend=-1))
    ends_X = np.append(begins_X[1:], len(grouped))
    before_X = reached_X[begins_X] - workers_N[grouped[begins_X]]
    full_X = np.searchsorted(reached_X, before_X + one.worker_count)   # the node that completes the gang
    able = np.flatnonzero(full_X < ends_X)
    if not len(able):
        return None
    best = able[columns.busy_until_ns_N[grouped[full_X[able]]].argmin()]
    nodes = np.sort(grouped[begins_X[best]:full_X[best] + 1])
    until_ns = max(int(columns.busy_until_ns_N[nodes].max()), snapshot.time_ns)
    return Event(time_ns=snapshot.time_ns, kind=EventKind.RESERVE, job=number, nodes=tuple(nodes.tolist()),
                 until_ns=min(until_ns, FAR_NS))
