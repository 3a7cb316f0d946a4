"""A read-only view of one version of the state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from serried.fleet.columns import Columns
from serried.fleet.spec import Fleet, Ints, Job, JobStatus, Placement, Tenant
from serried.fleet.usage import Usage

if TYPE_CHECKING:
    from serried.fleet.state import State

__all__ = ["Snapshot"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """What a policy sees. It costs nothing to take and is good until the state's next event (`is_current`).

    columns: nodes, chips and switches, not writable. pending: job numbers by (tenant, priority), in the order of
    submission. broken: jobs whose nodes failed under them. preempted: (time_ns, chips) of evictions for the sake of
    others, in time order; the budget of preemption is counted over these.
    """

    time_ns: int
    version: int
    fleet: Fleet
    columns: Columns
    pending: Mapping[tuple[int, int], Sequence[int]]
    broken: Set[int]
    running: Set[int]
    preempted: Sequence[tuple[int, int]]
    tenants: Sequence[Tenant]
    held_milli_TK: Ints
    _state: State

    @property
    def is_current(self) -> bool:
        """Whether nothing has happened since."""
        return self.version == self._state.version

    @property
    def usage(self) -> Usage:
        """What each tenant has used, decayed."""
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

    def submitted_ns(self, number: int) -> int:
        """When a job came."""
        return self._state.submitted_ns_J[number]

    def started_ns(self, number: int) -> int:
        """When a job last started; -1 before it ever did."""
        return self._state.started_ns_J[number]

    def evictions(self, number: int) -> int:
        """How often a job has been pushed out."""
        return self._state.evictions_J[number]

    def residents(self, node: int) -> Sequence[int]:
        """Jobs that hold anything of a node."""
        return self._state.jobs_on(node)
