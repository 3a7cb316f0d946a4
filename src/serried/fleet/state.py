"""The state of a fleet: a fold over its log.

Every change is an `Event`; `State.apply` checks it against the law (`legality`), folds it in and appends it. Nothing
else writes. Axes: N = node, C = chip of a node, R = row of a placement, J = job.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from serried.errors import NoAnswer
from serried.fleet.columns import (
    DOWN,
    DRAINING,
    NOBODY,
    RESERVED,
    SHARED,
    SPARE,
    Columns,
    chip_bits,
    columns_of,
)
from serried.fleet.hands import Hands, exchanged, part_of
from serried.fleet.legality import refusal
from serried.fleet.snapshot import Snapshot
from serried.fleet.spec import FAR_NS, WHOLE_MILLI, Event, EventKind, Fleet, Job, JobStatus, Placement, Shape
from serried.fleet.usage import Usage

__all__ = ["State", "replay"]


class State:
    """Where everything stands. `version` counts the events so far, and is the length of `log`."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.columns: Columns = columns_of(fleet)
        self.usage = Usage(fleet)
        self.log: list[Event] = []
        self.touched: list[Sequence[int] | NDArray[np.int32]] = []   # per event, the nodes that it changed
        self.time_ns = 0
        self.jobs: list[Job] = []
        self.sound_shapes: set[int] = set()   # identities of shapes that the law has seen; jobs keep them alive
        self.status_J = array("b")
        self.submitted_ns_J, self.started_ns_J, self.evictions_J = array("q"), array("q"), array("q")
        self.priority_J, self.tenant_J = array("q"), array("q")
        self.evictable_chips_J = array("q")   # chips that a running job holds and may be pushed off; 0 = none
        self.placements: dict[int, Placement] = {}
        self.pending: dict[tuple[int, int], list[int]] = {}
        self.pending_count = 0
        self.running: dict[int, None] = {}
        self.broken: dict[int, int] = {}   # job -> since when
        self.reservations: dict[int, Event] = {}
        self.reserved_nodes: dict[int, NDArray[np.int32]] = {}   # job -> the nodes of its reservation
        self.reserver: dict[int, int] = {}   # node -> the job that it is kept for
        self.draining: dict[int, None] = {}
        self.spares: dict[int, None] = {}
        self.evictable_chips: dict[int, int] = {}   # priority -> chips of running jobs that may be pushed out
        self.freed_version = 0      # of the last event that may have made room
        self.lost_version = 0       # of the last event that took nodes away
        self.came: dict[int, None] = {}   # jobs that came since anything else happened in the world, and wait
        self.preempted: list[tuple[int, int]] = []
        self._lodgers: dict[int, list[int]] = {}   # node -> jobs there that own no whole chip
        self._view = self.columns.read_only()
        self._hands = Hands(fleet, self.columns)

    @property
    def version(self) -> int:
        """How many events have happened."""
        return len(self.log)

    def snapshot(self, time_ns: int | None = None) -> Snapshot:
        """What a policy sees now; good until the next event."""
        return Snapshot(time_ns=self.time_ns if time_ns is None else time_ns, version=len(self.log), fleet=self.fleet,
                        columns=self._view, _state=self)

    def apply(self, event: Event) -> int:
        """Fold one event in; returns the number of its job (a new one for SUBMIT), or -1.

        Raises NoAnswer, with nothing changed, when the event breaks a law on the state as it stands: a plan may have
        been overtaken by the world.
        """
        broken = refusal(self, event)
        if broken is not None:
            raise NoAnswer(f"event {event.kind.name} of job {event.job} is refused: {broken.broken}.",
                           binding=broken.name, remedy=broken.remedy)
        self.log.append(event)
        self.time_ns = event.time_ns
        self.touched.append(_NONE)
        if event.kind in _CHANGES:
            self.came.clear()
        return _FOLDS[event.kind](self, event)

    def apply_all(self, events: Iterable[Event]) -> None:
        """Fold events in, one after the other."""
        for event in events:
            self.apply(event)

    def jobs_on(self, node: int) -> list[int]:
        """Jobs that hold anything of a node, by number."""
        owners = set(self.columns.owner_NC[node].tolist()).union(self._lodgers.get(node, ()))
        return sorted(owners - _NO_JOBS)

    def digest(self) -> str:
        """SHA-256 over everything that is state; two states of one history have the same."""
        found = hashlib.sha256()
        for column in (*self.columns.arrays(), *self.usage.arrays(), self.status_J, self.submitted_ns_J,
                       self.started_ns_J, self.evictions_J):
            found.update(np.ascontiguousarray(column).tobytes())
        for number, placement in sorted(self.placements.items()):
            found.update(repr((number, placement.alternative)).encode())
            for rows in (placement.node_R, placement.chips_R, placement.workers_R):
                found.update(rows.tobytes())
        words = (self.time_ns, sorted(self.pending.items()), list(self.running), list(self.broken.items()),
                 self.preempted, sorted(self._lodgers.items()), sorted(self.reserver.items()),
                 sorted(self.draining), sorted(self.spares), sorted(self.evictable_chips.items()))
        found.update(repr(words).encode())
        return found.hexdigest()

    # what happens to a job

    def _submit(self, event: Event) -> int:
        assert event.request is not None, "legality saw the request"
        number = len(self.jobs)
        self.jobs.append(event.request)
        self.sound_shapes.add(id(event.request.shape))
        self.status_J.append(JobStatus.PENDING)
        self.submitted_ns_J.append(event.time_ns)
        self.started_ns_J.append(-1)
        self.evictions_J.append(0)
        self.priority_J.append(event.request.priority)
        self.tenant_J.append(event.request.tenant)
        self.evictable_chips_J.append(0)
        self._wait(number)
        self.came[number] = None
        return number

    def _place(self, event: Event) -> int:
        opened = self._leave_queue(event.job)
        self._occupy(event)
        if opened:
            self.touched[-1] = (*opened, *self.touched[-1])
        self._mark_running(event.job)
        self.started_ns_J[event.job] = event.time_ns
        return event.job

    def _move(self, event: Event) -> int:
        """MOVE and REPLACE: what is given up and what is taken change hands in one step."""
        assert event.placement is not None, "legality saw the placement"
        rows = exchanged(self.placements[event.job], event.placement)
        left = self._release(event, rows)
        self._disturbed(event, left)
        self._occupy(event, rows)
        self.touched[-1] = np.concatenate([node_R if rows is None else node_R[rows]
                                           for node_R in (left.node_R, event.placement.node_R)])
        self.broken.pop(event.job, None)
        self._mark_running(event.job)
        return event.job

    def _stop(self, event: Event) -> int:
        """FINISH and CANCEL."""
        if event.job in self.placements:
            self._release(event)
            self.running.pop(event.job, None)
            self.broken.pop(event.job, None)
        else:
            self.touched[-1] = self._leave_queue(event.job)
        self.status_J[event.job] = JobStatus.DONE
        return event.job

    def _evict(self, event: Event) -> int:
        placement = self._release(event)
        self.running.pop(event.job, None)
        self.broken.pop(event.job, None)
        self.evictions_J[event.job] += 1
        self._disturbed(event, placement)
        self._wait(event.job)
        return event.job

    def _disturbed(self, event: Event, placement: Placement) -> None:
        if event.cause in ("preempted", "defragmented"):
            self.preempted.append((event.time_ns, int(np.bitwise_count(placement.chips_R).sum())))

    def _wait(self, number: int) -> None:
        """Stand in the queue of one's tenant and priority, in the order of submission."""
        job = self.jobs[number]
        self.status_J[number] = JobStatus.PENDING
        self.pending_count += 1
        queue = self.pending.setdefault((job.tenant, job.priority), [])
        if queue and queue[-1] > number:
            insort(queue, number)
        else:
            queue.append(number)

    def _leave_queue(self, number: int) -> tuple[int, ...]:
        """Stop waiting; returns the nodes that were kept for the job."""
        job = self.jobs[number]
        queue = self.pending[job.tenant, job.priority]
        self.came.pop(number, None)
        self.pending_count -= 1
        del queue[bisect_left(queue, number)]
        if not queue:
            del self.pending[job.tenant, job.priority]
        return self._unreserve(number)

    def _mark_running(self, number: int) -> None:
        self.status_J[number] = JobStatus.RUNNING
        self.running[number] = None

    def _break(self, number: int) -> None:
        self.status_J[number] = JobStatus.BROKEN
        self.running.pop(number, None)
        self.broken[number] = self.time_ns

    # what happens to nodes

    def _fail(self, event: Event) -> int:
        columns, node_R = self.columns, np.array(event.nodes, dtype=np.int32)
        self.lost_version = len(self.log)
        if event.chips:
            chips = np.uint64(event.chips)
            columns.broken_chips_N[node_R] |= chips
            owner_RC = columns.owner_NC[node_R][:, chip_bits(np.array([chips]), columns.owner_NC.shape[1])[0]]
            hit = set(owner_RC.ravel().tolist())
            if SHARED in hit:
                hit |= {number for node in event.nodes for number in self._lodgers.get(node, ())
                        if _holds(self.placements[number], node, event.chips)}
        else:
            columns.flags_N[node_R] |= DOWN
            hit = {number for node in event.nodes for number in self.jobs_on(node)}
        for number in sorted(hit):
            if number >= 0 and self.status_J[number] == JobStatus.RUNNING:
                self._break(number)
        self._hands.recount(node_R)
        self.touched[-1] = event.nodes
        return -1

    def _repair(self, event: Event) -> int:
        node_R = np.array(event.nodes, dtype=np.int32)
        if event.chips:
            self.columns.broken_chips_N[node_R] &= ~np.uint64(event.chips)
        else:
            self.columns.flags_N[node_R] &= ~DOWN
        self._make_room()
        self._hands.recount(node_R)
        self.touched[-1] = event.nodes
        return -1

    def _flag(self, event: Event) -> int:
        """DRAIN, SPARE and OPEN."""
        node_R = np.array(event.nodes, dtype=np.int32)
        if event.kind == EventKind.OPEN:
            self._make_room()
            self.columns.flags_N[node_R] &= DOWN | RESERVED
            for node in event.nodes:
                self.draining.pop(node, None)
                self.spares.pop(node, None)
        else:
            self.lost_version = len(self.log)
            self.columns.flags_N[node_R] |= DRAINING if event.kind == EventKind.DRAIN else SPARE
            (self.draining if event.kind == EventKind.DRAIN else self.spares).update(dict.fromkeys(event.nodes))
        self._hands.recount(node_R)
        self.touched[-1] = event.nodes
        return -1

    def _reserve(self, event: Event) -> int:
        freed = self._unreserve(event.job)
        node_R = np.array(event.nodes, dtype=np.int32)
        if len(node_R):
            self.reservations[event.job] = event
            self.reserved_nodes[event.job] = node_R
            self.reserver.update(dict.fromkeys(event.nodes, event.job))
            self.columns.flags_N[node_R] |= RESERVED
            self._hands.recount(node_R)
        self.touched[-1] = (*freed, *event.nodes)
        return event.job

    def _unreserve(self, number: int) -> tuple[int, ...]:
        """Open the nodes that were kept for a job; returns them."""
        held = self.reservations.pop(number, None)
        if held is None:
            return _NONE
        self._make_room()
        for node in held.nodes:
            del self.reserver[node]
        node_R = self.reserved_nodes.pop(number)
        self.columns.flags_N[node_R] &= ~RESERVED
        self._hands.recount(node_R)
        return held.nodes

    # chips change hands

    def _make_room(self) -> None:
        """Something was freed: any waiting job may have its chance."""
        self.freed_version = len(self.log)
        self.came.clear()

    def _occupy(self, event: Event, rows: NDArray[np.int64] | None = None) -> None:
        assert event.placement is not None, "legality saw the placement"
        self.placements[event.job] = event.placement
        if event.kind != EventKind.PLACE and self.spares:   # no job starts on a spare
            for node in [node for node in event.placement.node_R.tolist() if node in self.spares]:
                del self.spares[node]   # a spare that works is a spare no more
                self.columns.flags_N[node] &= ~SPARE
        self.touched[-1] = event.placement.node_R
        self._change_hands(event.job, event.placement, event.time_ns, sign=1, rows=rows)

    def _release(self, event: Event, rows: NDArray[np.int64] | None = None) -> Placement:
        placement = self.placements.pop(event.job)
        self._make_room()
        self.touched[-1] = placement.node_R
        self._change_hands(event.job, placement, event.time_ns, sign=-1, rows=rows)
        return placement

    def _change_hands(self, number: int, placement: Placement, time_ns: int, *, sign: int,
                      rows: NDArray[np.int64] | None = None) -> None:
        """Take (sign 1) or give back (sign -1) everything that a placement names, or, of one that exchanges some rows
        for others, those rows alone; all of its nodes are busy for longer then."""
        job = self.jobs[number]
        shape, part = job.shape, placement if rows is None else part_of(placement, rows)
        if shape.share_milli < WHOLE_MILLI or np.count_nonzero(part.chips_R) < len(part.node_R):
            self._lodge(number, part.node_R.tolist(), sign)
        self._hands.change(number, shape, part, sign)
        if sign > 0:
            runtime_ns = job.runtime_on_ns(placement.alternative)
            self._foresee(placement, time_ns + runtime_ns if runtime_ns else FAR_NS)
        elif len(part.node_R):
            self._forget(part)
        milli_by_kind = self._milli_by_kind(placement, shape, sign)
        self.usage.hold(job.tenant, milli_by_kind, time_ns)
        if job.preemptible and shape.share_milli == WHOLE_MILLI:
            chips = sum(milli_by_kind.values()) // WHOLE_MILLI
            self.evictable_chips[job.priority] = self.evictable_chips.get(job.priority, 0) + chips
            self.evictable_chips_J[number] += chips

    def _foresee(self, placement: Placement, end_ns: int) -> None:
        """When nodes will be idle, once a job that ends at `end_ns` came."""
        until_ns_N = self.columns.busy_until_ns_N
        if len(placement.node_R) == 1:
            node = placement.node_R.item()
            until_ns_N[node] = max(until_ns_N.item(node), end_ns)
        else:
            until_ns_N[placement.nodes] = np.maximum(until_ns_N[placement.nodes], end_ns)

    def _forget(self, placement: Placement) -> None:
        """The same once a job left."""
        columns, chip_count_N, node_R = self.columns, self.fleet.chip_count_N, placement.node_R
        if len(node_R) == 1:
            node = node_R.item()
            busy = [] if columns.idle_chips_N.item(node) == chip_count_N.item(node) else [node]
            columns.busy_until_ns_N[node] = 0
        else:
            nodes = placement.nodes
            busy = node_R[columns.idle_chips_N[nodes] < chip_count_N[nodes]].tolist()
            columns.busy_until_ns_N[nodes] = 0
        for node in busy:
            columns.busy_until_ns_N[node] = max(map(self._end_ns, self.jobs_on(node)), default=0)

    def _end_ns(self, number: int) -> int:
        """When a running job is expected to end."""
        runtime_ns = self.jobs[number].runtime_on_ns(self.placements[number].alternative)
        return self.started_ns_J[number] + runtime_ns if runtime_ns else FAR_NS

    def _milli_by_kind(self, placement: Placement, shape: Shape, sign: int) -> dict[int, int]:
        """Shares of chips that a placement holds, by kind of chip."""
        way = shape.alternatives[placement.alternative]
        if len(way.kinds) == 1:   # the law saw to it that all of the gang stands on them
            return {way.kinds[0]: sign * shape.share_milli * way.chip_count}
        chips_K = np.bincount(self.fleet.kind_N[placement.node_R], weights=np.bitwise_count(placement.chips_R))
        return {kind: sign * shape.share_milli * int(chips) for kind, chips in enumerate(chips_K.tolist()) if chips}

    def _lodge(self, number: int, nodes: Sequence[int], sign: int) -> None:
        for node in nodes:
            if sign > 0:
                self._lodgers.setdefault(node, []).append(number)
            else:
                self._lodgers[node].remove(number)
                if not self._lodgers[node]:
                    del self._lodgers[node]


def _holds(placement: Placement, node: int, chips: int) -> bool:
    """Whether a placement holds any of the chips of a node."""
    return any(int(held) & chips for held in placement.chips_R[placement.node_R == node])


_NONE: tuple[int, ...] = ()
_NO_JOBS = frozenset({NOBODY, SHARED})
#: Events of the world after which any waiting job may have its chance.
_CHANGES = frozenset({EventKind.FINISH, EventKind.CANCEL, EventKind.FAIL, EventKind.REPAIR, EventKind.DRAIN,
                      EventKind.OPEN})
_FOLDS = {EventKind.SUBMIT: State._submit, EventKind.FINISH: State._stop, EventKind.CANCEL: State._stop,
          EventKind.FAIL: State._fail, EventKind.REPAIR: State._repair, EventKind.PLACE: State._place,
          EventKind.REPLACE: State._move, EventKind.MOVE: State._move, EventKind.EVICT: State._evict,
          EventKind.DRAIN: State._flag, EventKind.OPEN: State._flag, EventKind.SPARE: State._flag,
          EventKind.RESERVE: State._reserve}


def replay(fleet: Fleet, log: Iterable[Event]) -> State:
    """The state that a log leads to."""
    state = State(fleet)
    state.apply_all(log)
    return state
