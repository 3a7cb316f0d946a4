"""Whose turn it is: priority first, then within quota before borrowed, then fair share with memory, then the queue."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from serried.fleet.rules import Rules
from serried.fleet.snapshot import Snapshot
from serried.fleet.spec import WHOLE_MILLI, Alternative, Job

__all__ = ["barred", "before", "borrows", "newcomers", "turns"]

#: So many newcomers are sorted outright.
_FEW = 16


def turns(snapshot: Snapshot, rules: Rules) -> Iterator[int]:
    """Waiting jobs in the order in which they are considered."""
    pending = snapshot.pending
    if rules.order == "arrival":
        yield from _by_arrival(snapshot)
        return
    claims_TD: list[list[float]] = []
    for priority in sorted({priority for _, priority in pending}, reverse=True):
        alike = [key for key in pending if key[1] == priority]
        if len(alike) > 1:
            claims_TD = claims_TD or snapshot.usage.claims_DT(snapshot.time_ns).T.tolist()
            alike.sort(key=partial(_turn, snapshot, claims_TD))
        for key in alike:
            yield from pending[key]


def _turn(snapshot: Snapshot, claims_TD: list[list[float]], key: tuple[int, int]) -> tuple[bool, list[float], int]:
    """What the queues of one priority are ordered by."""
    first = snapshot.pending[key][0]
    return snapshot.usage.has_quotas and borrows(snapshot, snapshot.job(first)), claims_TD[key[0]], first


def newcomers(snapshot: Snapshot, passed: int = 0) -> Iterable[int]:
    """Jobs that came since anything else happened, by priority and arrival; of many only the first are ordered.

    passed: those below this number are left out.
    """
    came = snapshot.came
    if not passed and len(came) > _FEW:
        return (number for number in _by_arrival(snapshot) if number in came)
    late = snapshot.came_from(passed)
    return late if len(late) == 1 else sorted(late, key=lambda number: (-snapshot.job(number).priority, number))


def before(snapshot: Snapshot, priority: int, passed: int) -> int:
    """How many of the newcomers below `passed` have their turn before a later one of this priority; of many, a few."""
    if not passed:
        return 0
    ahead = (number for number in snapshot.came if number < passed and snapshot.job(number).priority >= priority)
    return sum(1 for _ in itertools.islice(ahead, _FEW))


def _by_arrival(snapshot: Snapshot) -> Iterator[int]:
    """All that wait, by priority and then by arrival, one after the other."""
    pending = snapshot.pending
    for priority in sorted({priority for _, priority in pending}, reverse=True):
        yield from heapq.merge(*(queue for key, queue in pending.items() if key[1] == priority))


def borrows(snapshot: Snapshot, job: Job) -> bool:
    """Whether every way to run a job takes more than its tenant's right."""
    return all(_exceeds(snapshot, job, way, snapshot.usage.lineage(job.tenant)) for way in job.shape.alternatives)


def barred(snapshot: Snapshot, job: Job) -> frozenset[int]:
    """Alternatives that a quota forbids now: the job would have to borrow, and a tenant on its line may not."""
    if not snapshot.usage.bars:
        return _NONE
    bound = [one for one in snapshot.usage.lineage(job.tenant) if not snapshot.fleet.tenants[one].borrows]
    return frozenset(number for number, way in enumerate(job.shape.alternatives)
                     if bound and _exceeds(snapshot, job, way, bound))


_NONE: frozenset[int] = frozenset()


def _exceeds(snapshot: Snapshot, job: Job, way: Alternative, line: Sequence[int]) -> bool:
    """Whether any of the tenants would then hold more than its quota of any kind that the job may end up on."""
    held_milli_TK, tenants = snapshot.usage.held_milli_TK, snapshot.fleet.tenants
    milli = way.chip_count * job.shape.share_milli
    return any(held_milli_TK[one, kind] + milli > tenants[one].quota_chips_K[kind] * WHOLE_MILLI
               for one in line if tenants[one].quota_chips_K for kind in way.kinds)
