"""Room for a job that waits: whole gangs of lower rank are pushed out, or gangs move elsewhere from a checkpoint.

Both look for the switch that the job would fill best, and there for the fewest and cheapest gangs. A budget bounds how
many chips may be disturbed in a window; who was pushed out never pushes others, and is not pushed for ever.

Axes: N = node, C = chip, J = job.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from serried.fleet.columns import Columns
from serried.fleet.placer import Placer
from serried.fleet.rules import Rules
from serried.fleet.snapshot import Snapshot
from serried.fleet.spec import WHOLE_MILLI, Event, EventKind, Ints, Placement, Shape
from serried.fleet.turns import barred, borrows
from serried.fleet.what_if import closed, occupied, without

__all__ = ["Vain", "budget_left_chips", "defragmented", "preempted"]

#: So many victims are looked at one by one, to spare those that need not go.
_WEIGHED = 32


def budget_left_chips(snapshot: Snapshot, rules: Rules) -> int:
    """Chips that may still be disturbed in the window that ends now."""
    since = bisect_left(snapshot.preempted, (snapshot.time_ns - rules.budget_window_ns + 1, 0))
    return rules.budget_chips - sum(chips for _, chips in snapshot.preempted[since:])


class Vain:
    """Searches that found no room. The same search finds none until something is freed: starting a job only turns free
    chips into chips that it may be pushed off, or into lost ones."""

    def __init__(self) -> None:
        self._searched: dict[tuple[int, Hashable], int] = {}   # job, whom it may remove -> version

    def knows(self, snapshot: Snapshot, number: int, whom: Hashable) -> bool:
        """Whether this job looked in vain among these."""
        return self._searched.get((number, whom), -1) >= snapshot.freed_version

    def note(self, snapshot: Snapshot, number: int, whom: Hashable) -> None:
        """It did just now; what was found before something was freed is forgotten."""
        if any(version < snapshot.freed_version for version in self._searched.values()):
            self._searched.clear()
        self._searched[number, whom] = snapshot.version


def preempted(snapshot: Snapshot, placer: Placer, rules: Rules, number: int, vain: Vain) -> tuple[Event, ...]:
    """Evictions and the placement that they make possible; nothing where there is no way within the budget."""
    job, budget_chips = snapshot.job(number), budget_left_chips(snapshot, rules)
    if snapshot.evictions(number) or _beyond(snapshot, job.shape, budget_chips):
        return ()
    reclaims = rules.reclaims and snapshot.usage.has_quotas and not borrows(snapshot, job)
    if not any(chips for priority, chips in snapshot.evictable_chips.items() if priority < job.priority or (
            reclaims and priority == job.priority)):
        return ()
    borrowing_T = _borrowing_T(snapshot, job.tenant) if reclaims else ()
    if vain.knows(snapshot, number, borrowing_T):
        return ()
    chips_J, priority_J, tenant_J, evictions_J = snapshot.evictable_J()
    may_go_J = (chips_J > 0) & (chips_J <= rules.victim_ratio * placer.fewest_chips(job.shape)) & (
        evictions_J < rules.most_evictions)
    lower_J = priority_J < job.priority
    if reclaims:
        lower_J |= (priority_J == job.priority) & np.array(borrowing_T)[tenant_J]
    victims, placement = _room(snapshot, placer, number, np.flatnonzero(may_go_J & lower_J), priority_J)
    if placement is None:
        vain.note(snapshot, number, borrowing_T)
    if placement is None or sum(chips_of(snapshot, one) for one in victims) > budget_chips:
        return ()
    return (*(Event(time_ns=snapshot.time_ns, kind=EventKind.EVICT, job=one, cause="preempted") for one in victims),
            Event(time_ns=snapshot.time_ns, kind=EventKind.PLACE, job=number, placement=placement))


def defragmented(snapshot: Snapshot, placer: Placer, rules: Rules, number: int, vain: Vain) -> tuple[Event, ...]:
    """Moves that leave room under one switch, and the placement there; every mover finds another place first."""
    job, budget_chips = snapshot.job(number), budget_left_chips(snapshot, rules)
    if _beyond(snapshot, job.shape, 0) or budget_chips <= 0:   # moving makes room only where there are chips enough
        return ()
    most_chips = min(budget_chips, placer.fewest_chips(job.shape) // 2)
    if vain.knows(snapshot, number, most_chips):
        return ()
    chips_J, priority_J, _, evictions_J = snapshot.evictable_J()
    may_go_J = (chips_J > 0) & (chips_J <= most_chips) & (evictions_J < rules.most_evictions)
    movers, placement = _room(snapshot, placer, number, np.flatnonzero(may_go_J), priority_J)
    if placement is None:
        vain.note(snapshot, number, most_chips)
    if placement is None or sum(chips_of(snapshot, one) for one in movers) > budget_chips:
        return ()
    columns = closed(snapshot.columns, placement.node_R)
    events = []
    for one in movers:
        shape = snapshot.job(one).shape
        there = placer.place_on(columns, shape, _other_ways(snapshot, one))
        if there is None:
            return ()
        events.append(Event(time_ns=snapshot.time_ns, kind=EventKind.MOVE, job=one, placement=there,
                            cause="defragmented"))
        columns = occupied(columns, there, shape)
    return (*events, Event(time_ns=snapshot.time_ns, kind=EventKind.PLACE, job=number, placement=placement))


def _beyond(snapshot: Snapshot, shape: Shape, budget_chips: int) -> bool:
    """Whether every way needs more than the budget and what is open of the best of its kinds; shares never push."""
    open_K = snapshot.columns.slots_KSG[-1][:, 0, 0]
    return shape.share_milli < WHOLE_MILLI or all(
        one.chip_count > max(int(open_K[kind]) for kind in one.kinds) + budget_chips for one in shape.alternatives)


def chips_of(snapshot: Snapshot, number: int) -> int:
    """Chips that a running job holds."""
    placement = snapshot.placement(number)
    return 0 if placement is None else int(np.bitwise_count(placement.chips_R).sum())


def _other_ways(snapshot: Snapshot, number: int) -> frozenset[int]:
    """A job that moves stays on its alternative."""
    placement = snapshot.placement(number)
    assert placement is not None, "who moves stands somewhere"
    return frozenset(range(len(snapshot.job(number).shape.alternatives))) - {placement.alternative}


def _borrowing_T(snapshot: Snapshot, for_tenant: int) -> tuple[bool, ...]:
    """Which tenants hold more than their right, or a tenant above them does; never the asking one."""
    tenants, held_milli_TK = snapshot.fleet.tenants, snapshot.usage.held_milli_TK
    over_T = [bool(one.quota_chips_K) and bool((held_K > np.array(one.quota_chips_K) * WHOLE_MILLI).any())
              for one, held_K in zip(tenants, held_milli_TK, strict=True)]
    return tuple(tenant != for_tenant and any(over_T[one] for one in snapshot.usage.lineage(tenant))
                 for tenant in range(len(tenants)))


def _room(snapshot: Snapshot, placer: Placer, number: int, candidates: NDArray[np.intp],
          priority_J: Ints) -> tuple[list[int], Placement | None]:
    """Whom of the candidates to remove for a job, and where it then stands: those of the lowest priorities that do,
    under the switch with most room already, and nobody who need not go."""
    shape, forbidden = snapshot.job(number).shape, barred(snapshot, snapshot.job(number))
    columns, ranks = snapshot.columns, np.unique(priority_J[candidates])
    rank_J = np.full(snapshot.job_count + 2, len(ranks), dtype=np.int16)   # NOBODY and SHARED look at the last two
    rank_J[candidates] = np.searchsorted(ranks, priority_J[candidates])
    rank_NC = rank_J.take(columns.owner_NC, mode="wrap")
    for rank in range(len(ranks)):
        leaves_NC = rank_NC <= rank
        placement = placer.place_on(_generous(columns, leaves_NC, shape), shape, forbidden, today=columns)
        if placement is not None:
            owners = np.unique(columns.owner_NC[placement.node_R][leaves_NC[placement.node_R]])
            return _spared(snapshot, placer, number, [int(owner) for owner in owners])
    return [], None


def _spared(snapshot: Snapshot, placer: Placer, number: int,
            victims: list[int]) -> tuple[list[int], Placement | None]:
    """Without those who need not go; whose loss would be the worst is tried first."""
    shape, forbidden = snapshot.job(number).shape, barred(snapshot, snapshot.job(number))
    victims.sort(key=lambda one: (-snapshot.job(one).priority, snapshot.started_ns(one), one))
    placement = placer.place_on(without(snapshot, snapshot.columns, victims), shape, forbidden)
    for spared in victims[:_WEIGHED] if placement is not None else ():
        fewer = [one for one in victims if one != spared]
        found = placer.place_on(without(snapshot, snapshot.columns, fewer), shape, forbidden)
        if found is not None:
            victims, placement = fewer, found
    return victims, placement


def _generous(columns: Columns, leaves_NC: NDArray[np.bool_], shape: Shape) -> Columns:
    """Columns with everything open that could be; CPU and memory are looked at again once the victims are known."""
    leaves_N = np.einsum("nc->n", leaves_NC.view(np.int8))   # some six times as fast as a sum over so short an axis
    idle_N = columns.idle_chips_N + leaves_N
    if shape.cpu_milli or shape.memory_bytes:
        touched_N, enough = leaves_N > 0, np.iinfo(np.int64).max
        columns = replace(columns, cpu_free_milli_N=np.where(touched_N, enough, columns.cpu_free_milli_N),
                          memory_free_bytes_N=np.where(touched_N, enough, columns.memory_free_bytes_N))
    return replace(columns, free_milli_NC=np.maximum(columns.free_milli_NC, leaves_NC * np.int16(WHOLE_MILLI)),
                   open_chips_N=np.where(columns.flags_N == 0, idle_N, 0).astype(np.int16))
