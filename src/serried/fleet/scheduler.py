"""The scheduler: one decision at a time, from a snapshot.

In this order: what is broken is mended, spares are kept, whoever waits starts, and what is to be emptied is emptied. A
job that cannot start may, if the rules say so, push others out, have others moved, or have nodes kept for it; those
behind it are looked at up to the rules' depth, and what is kept is closed to them unless they will be gone in time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from serried.fleet.making_room import Vain, defragmented, preempted
from serried.fleet.measures import Measure
from serried.fleet.mending import lame_rows, mended
from serried.fleet.placer import Placer
from serried.fleet.reserving import reservation
from serried.fleet.rules import Rules
from serried.fleet.snapshot import Snapshot
from serried.fleet.spec import (
    FAR_NS,
    WHOLE_MILLI,
    Event,
    EventKind,
    Fleet,
    Job,
    JobStatus,
    Placement,
    Plan,
    Shape,
    Why,
)
from serried.fleet.turns import barred, before, newcomers, turns
from serried.fleet.what_if import opened
from serried.fleet.why import why_it_waits

__all__ = ["Scheduler"]

_NOTHING: tuple[Event, ...] = ()
_NO_KEPT: Mapping[int, int] = {}
_FREE: frozenset[int] = frozenset()


class Scheduler:
    """A `Policy`. It remembers scores and what was found impossible; both follow from the snapshot alone."""

    def __init__(self, fleet: Fleet, measure: Measure, rules: Rules | None = None, *, name: str = "") -> None:
        self.name, self.rules = name, rules or Rules()
        self.placer = Placer(fleet, measure)
        self._fleet = fleet
        self._depth = 1 if self.rules.strict else self.rules.depth
        self._spares_wanted = int(self.rules.spare_ratio * fleet.node_count)
        self._futile: dict[int, int] = {}     # identity of a shape -> version at which it fitted nowhere
        self._futile_kept: dict[tuple[int, int], int] = {}   # the same of nodes kept for a job
        self._spareless = -1                  # version at which no node was idle that could be set aside
        self._vacated = -1                    # version at which nobody was left on a draining node
        self._vain = Vain()
        self._unmended: dict[int, int] = {}   # broken gang -> version at which no node would do for it
        self._scanned = -1, 0                 # version, and jobs ever submitted, when nobody's turn led to anything
        self._met = -1, 0                     # the same of newcomers, when none of them led to anything

    def learn(self, snapshot: Snapshot, shapes: Sequence[Shape]) -> None:
        """Meet shapes before they come: a matter of speed alone."""
        self.placer.learn(snapshot, list({id(shape): shape for shape in shapes}.values()))

    def plan(self, snapshot: Snapshot) -> Plan:
        """The next decision; empty when there is none to take."""
        assert snapshot.is_current, "a snapshot is good until the next event"
        events = (self._mend(snapshot) if snapshot.broken else _NOTHING) or (
            self._keep_spares(snapshot) if self.rules.spare_ratio else _NOTHING) or (
            self._start(snapshot) if snapshot.pending else _NOTHING) or (
            self._vacate(snapshot) if snapshot.draining else _NOTHING)
        return Plan(version=snapshot.version, events=events, wake_ns=-1 if events else self._wake_ns(snapshot))

    def why(self, snapshot: Snapshot, job: int) -> Why:
        """Why a job waits, from what the snapshot says now."""
        return why_it_waits(snapshot, self.placer, self.rules, job)

    def _wake_ns(self, snapshot: Snapshot) -> int:
        """When patience with the first broken gang ends."""
        if not snapshot.broken:
            return -1
        ends = [since + self.rules.patience_ns for since in snapshot.broken.values()]
        return min((end for end in ends if end > snapshot.time_ns), default=-1)

    # broken gangs

    def _mend(self, snapshot: Snapshot) -> tuple[Event, ...]:
        """Put the failed rows of one gang elsewhere; past patience, let all of it wait in the queue again."""
        for number in sorted(snapshot.broken, key=lambda one: (-snapshot.job(one).priority, one)):
            placement = snapshot.placement(number)
            assert placement is not None, "a broken gang holds its nodes"
            if self._unmended.get(number, -1) < max(snapshot.freed_version, snapshot.lost_version):
                fixed = mended(snapshot, number, lame_rows(snapshot, placement))
                if fixed is not None:
                    return (_event(snapshot, EventKind.REPLACE, number, fixed, "failed"),)
                self._unmended[number] = snapshot.version
            if snapshot.time_ns - snapshot.broken[number] >= self.rules.patience_ns:
                return (_event(snapshot, EventKind.EVICT, number, None, "failed"),)
        return _NOTHING

    def _keep_spares(self, snapshot: Snapshot) -> tuple[Event, ...]:
        """Set idle nodes aside until there are spares enough, spread over the outermost switches."""
        wanted, columns = self._spares_wanted - len(snapshot.spares), snapshot.columns
        if wanted <= 0 or self._spareless >= snapshot.freed_version:
            return _NOTHING
        if not np.count_nonzero(columns.slots_KSG[-1][:, 0, -1]):
            self._spareless = snapshot.version
            return _NOTHING
        idle = np.flatnonzero(columns.open_chips_N == self._fleet.chip_count_N)
        idle = idle[columns.open_chips_N[idle] > 0]
        if len(self._fleet.switch_LN):
            switch_X = self._fleet.switch_LN[-1][idle]
            begins = np.flatnonzero(np.diff(switch_X, prepend=-1))
            turn_X = np.arange(len(idle)) - np.repeat(begins, np.diff(begins, append=len(idle)))   # n-th of its switch
            idle = idle[turn_X.argsort(kind="stable")]
        return (Event(time_ns=snapshot.time_ns, kind=EventKind.SPARE, nodes=tuple(np.sort(idle[:wanted]).tolist())),)

    def _vacate(self, snapshot: Snapshot) -> tuple[Event, ...]:
        """Let one gang leave its draining nodes in place."""
        if not self.rules.vacates or self._vacated >= snapshot.lost_version:
            return _NOTHING
        staying = {one for node in snapshot.draining for one in snapshot.residents(node)}
        if not staying:   # and nobody comes
            self._vacated = snapshot.version
        for number in sorted(staying):
            placement = snapshot.placement(number)
            if placement is None or snapshot.status(number) != JobStatus.RUNNING:
                continue
            moved = mended(snapshot, number, lame_rows(snapshot, placement, draining=True))
            if moved is not None:
                return (_event(snapshot, EventKind.REPLACE, number, moved, "drained"),)
        return _NOTHING

    # waiting jobs

    def _start(self, snapshot: Snapshot) -> tuple[Event, ...]:
        """Start the first job in turn that can start, or make or keep room for one that cannot.

        When jobs came and nothing else happened, only they are looked at: nobody else's chances have changed. And of
        them only those that were not looked at before, as long as nothing is freed.
        """
        came = bool(snapshot.came) and not self.rules.strict
        passed = self._passed(snapshot) if came else 0
        version, jobs_seen = self._scanned
        others_looked_at = version >= max(snapshot.freed_version, snapshot.lost_version)
        if not came and others_looked_at and jobs_seen == snapshot.job_count:
            return _NOTHING
        hopeful_S: Sequence[bool] | None = None   # asked for once somebody cannot start
        idle_kept, most_kept = None if snapshot.reserved_nodes else _NO_KEPT, 0   # counted once somebody cannot start
        for place, number in enumerate(self._in_turn(snapshot, came, passed)):
            job = snapshot.job(number)
            forbidden = barred(snapshot, job) if snapshot.usage.bars else _FREE
            if forbidden and len(forbidden) == len(job.shape.alternatives):
                continue
            placement = self._open_placement(snapshot, job.shape, forbidden, hopeful_S)
            if placement is None and idle_kept is None:
                idle_kept = {owner: int(snapshot.columns.idle_chips_N[nodes].sum())
                             for owner, nodes in snapshot.reserved_nodes.items()}
                most_kept = max(idle_kept.values(), default=0)
            if placement is None and idle_kept and most_kept and most_kept >= self.placer.fewest_chips(job.shape):
                placement = self._kept_placement(snapshot, number, job, forbidden, idle_kept)
            if placement is not None:
                return (_event(snapshot, EventKind.PLACE, number, placement, ""),)
            if hopeful_S is None and not came:
                hopeful_S = self.placer.hopeful_S(snapshot)
            blocked = place + before(snapshot, job.priority, passed)
            room = self.rules.budget_chips and blocked < self.rules.room_makers and self._make_room(snapshot, number)
            if not room and blocked < self.rules.reservations:
                room = self._keep_room(snapshot, number)
            if room:
                return room
        if (others_looked_at or not came) and not self.rules.budget_chips and (
                snapshot.pending_count <= self._depth):
            self._scanned = snapshot.version, snapshot.job_count   # all were looked at, and time alone helps nobody
        if came:
            self._met = snapshot.version, snapshot.job_count
        return _NOTHING

    def _passed(self, snapshot: Snapshot) -> int:
        """Newcomers below this number were looked at in vain, and nothing was freed since; budgets refill with time."""
        version, jobs_seen = self._met
        since_then = version >= max(snapshot.freed_version, snapshot.lost_version) and not self.rules.budget_chips
        return jobs_seen if since_then else 0

    def _in_turn(self, snapshot: Snapshot, came: bool, passed: int) -> Iterable[int]:
        """Whom to look at: newcomers alone, or as many of all that wait as the rules say; the first alone if strict."""
        return newcomers(snapshot, passed) if came else itertools.islice(turns(snapshot, self.rules), self._depth)

    def _open_placement(self, snapshot: Snapshot, shape: Shape, forbidden: frozenset[int],
                        hopeful_S: Sequence[bool] | None) -> Placement | None:
        """Room on open nodes. What fitted nowhere fits nowhere until something is freed."""
        if self._futile.get(id(shape), -1) >= snapshot.freed_version and not forbidden:
            return None
        row = self.placer.row(shape)
        hopeless = hopeful_S is not None and row < len(hopeful_S) and not hopeful_S[row]
        found = None if hopeless else self.placer.place(snapshot, shape, forbidden)
        if hopeless or (found is None and not forbidden):
            self._futile[id(shape)] = snapshot.version
        return found

    def _kept_placement(self, snapshot: Snapshot, number: int, job: Job, forbidden: frozenset[int],
                        idle_kept: Mapping[int, int]) -> Placement | None:
        """Room on reserved nodes: on those kept for the job, or, before they are needed, on those kept for others."""
        if job.shape.share_milli < WHOLE_MILLI:
            return None
        fewest = self.placer.fewest_chips(job.shape)
        for owner, idle_chips in idle_kept.items():
            key = id(job.shape), owner
            late = _FREE if owner == number else _late(job, snapshot.reservations[owner].until_ns, snapshot.time_ns)
            if idle_chips < fewest or len(late) == len(job.shape.alternatives) or (
                    self._futile_kept.get(key, -1) >= snapshot.freed_version):
                continue
            found = self.placer.place_on(opened(snapshot.columns, snapshot.reserved_nodes[owner]), job.shape,
                                         forbidden | late)
            if found is not None:
                return found
            if not forbidden and not late:
                self._futile_kept[key] = snapshot.version
        return None

    def _make_room(self, snapshot: Snapshot, number: int) -> tuple[Event, ...]:
        return preempted(snapshot, self.placer, self.rules, number, self._vain) or (
            defragmented(snapshot, self.placer, self.rules, number, self._vain) if self.rules.defragments else _NOTHING)

    def _keep_room(self, snapshot: Snapshot, number: int) -> tuple[Event, ...]:
        """Keep nodes for one of the first blocked jobs; others when one of them went down, or none where there are no
        others: what can help nobody is not kept from anybody."""
        kept = snapshot.reservations.get(number)
        if kept is not None and not self._spoilt(snapshot, kept):
            return _NOTHING
        if kept is None and len(snapshot.reservations) >= self.rules.reservations:
            return _NOTHING
        event = reservation(snapshot, self.placer, number)
        if event is None and kept is not None:
            event = Event(time_ns=snapshot.time_ns, kind=EventKind.RESERVE, job=number)
        return _NOTHING if event is None else (event,)

    @staticmethod
    def _spoilt(snapshot: Snapshot, kept: Event) -> bool:
        node_R = np.array(kept.nodes)
        columns = snapshot.columns
        return bool((columns.flags_N[node_R] & 7).any() or columns.broken_chips_N[node_R].any())


def _late(job: Job, until_ns: int, now_ns: int) -> frozenset[int]:
    """Alternatives on which a job would not be gone by then."""
    left_ns = until_ns - now_ns if until_ns < FAR_NS else 0
    return frozenset(one for one in range(len(job.shape.alternatives)) if not 0 < job.runtime_on_ns(one) <= left_ns)


def _event(snapshot: Snapshot, kind: EventKind, number: int, placement: Placement | None, cause: str) -> Event:
    return Event(time_ns=snapshot.time_ns, kind=kind, job=number, placement=placement, cause=cause)
