"""A read-only view of one version of the state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from serried.fleet.columns import Columns
from serried.fleet.spec import Event, Fleet, Ints, Job, JobStatus, Placement
from serried.fleet.usage import Usage

if TYPE_CHECKING:
    from serried.fleet.state import State

__all__ = ["Snapshot"]


@dataclass(slots=True, kw_only=True, eq=False)   # not frozen: one is made for every decision, at a third of the cost
class Snapshot:
    """What a policy sees. It costs nothing to take and is good until the state's next event (`is_current`).

    columns: nodes, chips and switches, not writable. Everything else is asked for; nothing here changes anything.
    """

    time_ns: int
    version: int
    fleet: Fleet
    columns: Columns
    _state: State

    @property
    def is_current(self) -> bool:
        """Whether nothing has happened since."""
        return self.version == self._state.version

    @property
    def pending(self) -> Mapping[tuple[int, int], Sequence[int]]:
        """Job numbers that wait, by (tenant, priority), in the order of submission."""
        return self._state.pending

    @property
    def pending_count(self) -> int:
        """How many jobs wait."""
        return self._state.pending_count

    @property
    def running(self) -> Set[int]:
        """Jobs that run."""
        return self._state.running.keys()

    @property
    def broken(self) -> Mapping[int, int]:
        """Jobs whose nodes failed under them, and since when (ns)."""
        return self._state.broken

    @property
    def reservations(self) -> Mapping[int, Event]:
        """The RESERVE event of each job that nodes are kept for."""
        return self._state.reservations

    @property
    def reserved_nodes(self) -> Mapping[int, NDArray[np.int32]]:
        """The nodes of each job's reservation."""
        return self._state.reserved_nodes

    @property
    def draining(self) -> Set[int]:
        """Nodes that are to be emptied."""
        return self._state.draining.keys()

    @property
    def spares(self) -> Set[int]:
        """Nodes that are kept for replacements."""
        return self._state.spares.keys()

    @property
    def preempted(self) -> Sequence[tuple[int, int]]:
        """(time_ns, chips) of every eviction and move for the sake of others; budgets are counted over these."""
        return self._state.preempted

    @property
    def evictable_chips(self) -> Mapping[int, int]:
        """Chips of running jobs that may be pushed out, by their priority."""
        return self._state.evictable_chips

    def evictable_J(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Of every job: chips that it runs on and may be pushed off (0 = none), priority, tenant, evictions so far."""
        state = self._state
        chips_J = np.array(state.evictable_chips_J)
        chips_J[list(state.broken)] = 0
        return chips_J, np.array(state.priority_J), np.array(state.tenant_J), np.array(state.evictions_J)

    @property
    def freed_version(self) -> int:
        """Version of the last event that may have made room for somebody."""
        return self._state.freed_version

    @property
    def lost_version(self) -> int:
        """Version of the last event that took nodes away."""
        return self._state.lost_version

    @property
    def came(self) -> Set[int]:
        """Waiting jobs that came since anything was freed or anything else happened in the world."""
        return self._state.came.keys()

    def came_from(self, number: int) -> list[int]:
        """The same of this number and above, the last first: they came in the order of their numbers."""
        found = []
        for one in reversed(self._state.came):
            if one < number:
                break
            found.append(one)
        return found

    @property
    def job_count(self) -> int:
        """Jobs ever submitted."""
        return len(self._state.jobs)

    @property
    def usage(self) -> Usage:
        """What each tenant holds, and has used, decayed."""
        return self._state.usage

    def touched_since(self, version: int) -> set[int]:
        """Nodes that any event since `version` has changed: what a remembered score must be computed again for."""
        found: set[int] = set()
        for nodes in self._state.touched[version:self.version]:
            found.update(nodes.tolist() if isinstance(nodes, np.ndarray) else nodes)
        return found

    def job(self, number: int) -> Job:
        """What was submitted under this number."""
        return self._state.jobs[number]

    def status(self, number: int) -> JobStatus:
        """Where a job stands."""
        return JobStatus(self._state.status_J[number])

    def placement(self, number: int) -> Placement | None:
        """Where a job runs; None when it does not."""
        return self._state.placements.get(number)

    def started_ns(self, number: int) -> int:
        """When a job last started; -1 before it ever did."""
        return self._state.started_ns_J[number]

    def evictions(self, number: int) -> int:
        """How often a job has been pushed out."""
        return self._state.evictions_J[number]

    def residents(self, node: int) -> Sequence[int]:
        """Jobs that hold anything of a node."""
        return self._state.jobs_on(node)
