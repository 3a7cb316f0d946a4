"""What every job has done so far: its stints, its work left, its waits. Columns over jobs by number.

Axes: N = node, K = kind of chip, T = tenant, A = class of jobs.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serried.clock import FOREVER_NS, SECOND_NS, nanoseconds
from serried.fleet import Fleet, Job, Placement
from serried.fleet.spec import WHOLE_MILLI
from serried.simulation.accounting import Books
from serried.simulation.checkpoint import daly_interval_s
from serried.simulation.failures import component_count, gang_failures_per_s
from serried.simulation.spec import Checkpoint, Fault
from serried.simulation.stint import Phases, Stint

__all__ = ["Gangs"]

_FAILURE = frozenset({"failed"})


class Gangs:
    """Who works, since when, and what came of it."""

    def __init__(self, fleet: Fleet, faults: Sequence[Fault], checkpoints: Sequence[Checkpoint], books: Books) -> None:
        self._fleet, self._faults, self._checkpoints, self._books = fleet, faults, checkpoints, books
        self.stints: dict[int, Stint] = {}
        self.work_left_ns_J, self.class_J, self.epoch_J = array("q"), array("i"), array("i")
        self.first_start_ns_J, self.finish_ns_J, self.interruptions_J = array("q"), array("q"), array("i")
        self.useful_T = [0] * len(fleet.tenants)
        self.held_T = [0] * len(fleet.tenants)
        self.useful_A = [0] * len(checkpoints)
        self.held_A = [0] * len(checkpoints)
        self.working_K = [0] * len(fleet.kinds)
        self.held_K = [0] * len(fleet.kinds)
        self._working_N = np.zeros(fleet.node_count, dtype=np.int64)   # chip-nanoseconds, but for gangs
        self._worked: list[tuple[Placement, int]] = []   # gangs on several nodes, and how long they worked there
        self._intervals: dict[tuple[int, int, int], int] = {}
        self._nodes_per_switch = [fleet.node_count / component_count(fleet, level) for level in fleet.levels]

    def join(self, number: int, work_ns: int, job_class: int) -> None:
        """A job was submitted."""
        assert number == len(self.class_J), "jobs are numbered as they come"
        self.work_left_ns_J.append(work_ns)
        self.class_J.append(job_class)
        for column in (self.epoch_J, self.interruptions_J):
            column.append(0)
        for column in (self.first_start_ns_J, self.finish_ns_J):
            column.append(-1)

    def begin(self, number: int, job: Job, placement: Placement, now_ns: int) -> Stint:
        """A job got its chips."""
        job_class = self.class_J[number]
        rule = self._checkpoints[job_class]
        way = job.shape.alternatives[placement.alternative]
        ratio = job.shape.time_ratio(placement.alternative)
        work_ns = self.work_left_ns_J[number]
        first = self.first_start_ns_J[number] < 0
        if first:
            self.first_start_ns_J[number] = now_ns
        stint = Stint(
            milli=way.chip_count * job.shape.share_milli, began_ns=now_ns, restart_ns=rule.restart_ns, first=first,
            work_ns=work_ns if work_ns >= FOREVER_NS or ratio == 1.0 else max(round(work_ns * ratio), 1),
            interval_ns=self._interval_ns(job_class, job, placement, way.chip_count), write_ns=rule.write_ns,
            speed_ratio=ratio, kind=self._fleet.kind_N.item(placement.node_R.item(0)))
        self.stints[number] = stint
        return stint

    def end(self, number: int, job: Job, placement: Placement, now_ns: int, *, cause: str = "",
            intact: bool = False) -> Phases:
        """A job gives up its chips, or some of them; what is lost is lost by `cause`."""
        stint = self.stints.pop(number)
        self.epoch_J[number] += 1
        phases = stint.close(now_ns, intact=intact)
        service = self.work_left_ns_J[number] >= FOREVER_NS
        failed = cause in _FAILURE or stint.hung_since_ns >= 0
        self._books.book(stint, phases, by_failure=failed)
        self.interruptions_J[number] += not intact
        if not service:
            saved_ns = phases.saved_ns if stint.speed_ratio == 1.0 else round(phases.saved_ns / stint.speed_ratio)
            self.work_left_ns_J[number] = max(self.work_left_ns_J[number] - saved_ns, 1)
        self._tally(number, job, placement, stint, phases, now_ns)
        return phases

    def _tally(self, number: int, job: Job, placement: Placement, stint: Stint, phases: Phases, now_ns: int) -> None:
        held, useful = stint.milli * (now_ns - stint.began_ns), stint.milli * phases.saved_ns
        self.useful_T[job.tenant] += useful
        self.held_T[job.tenant] += held
        job_class = self.class_J[number]
        self.useful_A[job_class] += useful
        self.held_A[job_class] += held
        self.held_K[stint.kind] += held
        self.working_K[stint.kind] += stint.milli * stint.elapsed_ns
        if len(placement.node_R) == 1:
            chips = placement.chips_R.item().bit_count()
            self._working_N[placement.node_R.item()] += chips * stint.elapsed_ns * job.shape.share_milli // WHOLE_MILLI
        else:
            self._worked.append((placement, stint.elapsed_ns))

    def working_N(self) -> NDArray[np.int64]:
        """Chip-nanoseconds that jobs worked on each node, in the stints that are over."""
        working_N = self._working_N.copy()
        if self._worked:
            chips_X = np.bitwise_count(np.concatenate([placement.chips_R for placement, _ in self._worked]))
            elapsed_ns_X = np.repeat([elapsed_ns for _, elapsed_ns in self._worked],
                                     [len(placement.node_R) for placement, _ in self._worked])
            np.add.at(working_N, np.concatenate([placement.node_R for placement, _ in self._worked]),
                      chips_X * elapsed_ns_X)
        return working_N

    def _interval_ns(self, job_class: int, job: Job, placement: Placement, chip_count: int) -> int:
        """Work between two saves: as the class says, or the optimum for what this gang's components break."""
        rule = self._checkpoints[job_class]
        if rule.interval_ns or not rule.write_ns:
            return rule.interval_ns or SECOND_NS   # a save that costs nothing is made all the time
        key = job_class, id(job.shape), placement.alternative
        if key not in self._intervals:
            nodes = len(placement.node_R)
            failures_per_s = gang_failures_per_s(
                self._faults, node_count=nodes, chip_count=chip_count, levels=self._fleet.levels,
                switch_counts=[max(nodes / per_switch, 1.0) for per_switch in self._nodes_per_switch])
            self._intervals[key] = FOREVER_NS if failures_per_s <= 0 else max(nanoseconds(float(daly_interval_s(
                rule.write_ns / SECOND_NS, 1.0 / failures_per_s))), 1)
        return self._intervals[key]
