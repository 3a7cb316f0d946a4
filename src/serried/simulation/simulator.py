"""A fleet through days of virtual time: the world happens, the policy decides, and everything is booked.

The policy is the very object that runs a live fleet; it sees snapshots and answers plans, and cannot tell that the
clock is virtual. Work per event is bounded by what the event touches.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import NamedTuple

from serried.clock import DAY_NS, FOREVER_NS, HOUR_NS, Chance, EventQueue
from serried.fleet import Event, EventKind, Job, JobStatus, Policy, State
from serried.fleet.arrival_replay import MEASURES
from serried.fleet.scheduler import Scheduler
from serried.simulation.accounting import Books, asked_milli
from serried.simulation.arrivals import draw_submissions, merged
from serried.simulation.breakage import Breakage, holds_chip
from serried.simulation.deciding import decide
from serried.simulation.failures import draw_failures
from serried.simulation.gangs import Gangs
from serried.simulation.outcome import Outcome, outcome_of
from serried.simulation.samples import Samples, widest_node
from serried.simulation.scaling import Replicas
from serried.simulation.spec import Scenario, Submissions

__all__ = ["Simulator", "policy_of", "simulate"]

Report = Callable[[int, int], None]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for cycles: a run makes none, and its log of millions of events is searched over and over."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Happens(IntEnum):
    """What the clock brings."""

    ARRIVE = 0
    FINISH = 1
    STRIKE = 2
    FIND = 3
    REPAIR = 4
    SCALE = 5
    READY = 6
    DECIDE = 7
    SAMPLE = 8


class Due(NamedTuple):
    """What is due: whom it concerns (a job, a failure, a service) and, for jobs, which stint is meant."""

    what: Happens
    number: int = 0
    epoch: int = 0


_DECIDE, _SAMPLE = Due(Happens.DECIDE), Due(Happens.SAMPLE)


def policy_of(scenario: Scenario, *, seed: int) -> Scheduler:
    """The scheduler that a scenario asks for, with what it may remember still empty."""
    known = scenario.trace.jobs_J if scenario.trace else ()
    return Scheduler(scenario.fleet, MEASURES[scenario.measure](scenario.fleet, known, seed), scenario.rules,
                     name=scenario.policy)


def simulate(scenario: Scenario, *, days: float, seed: int, policy: Policy | None = None,
             progress: Report | None = None) -> Outcome:
    """Run a scenario for so many days. The same seed gives the same outcome, bit by bit.

    progress: called with (hours of virtual time done, hours in all).
    """
    simulator = Simulator(scenario, days=days, seed=seed, policy=policy)
    simulator.run(progress)
    return outcome_of(simulator)


class Simulator:
    """One run. `state` is the fleet's, `books` where chip-time went, `gangs` what jobs did, `samples` hour by hour."""

    def __init__(self, scenario: Scenario, *, days: float, seed: int, policy: Policy | None = None) -> None:
        self.scenario, self.seed, self.end_ns = scenario, seed, round(days * DAY_NS)
        chance = Chance(seed=seed)
        synthetic = draw_submissions(scenario.classes, end_ns=self.end_ns, chance=chance)
        self.submissions: Submissions = merged([synthetic, *([scenario.trace] if scenario.trace else [])])
        self.failures = draw_failures(scenario.fleet, scenario.faults, end_ns=self.end_ns, chance=chance)
        self.state = State(scenario.fleet)
        self.policy: Policy = policy or policy_of(scenario, seed=seed)
        if isinstance(self.policy, Scheduler):
            self.policy.learn(self.state.snapshot(), [job.shape for job in self.submissions.jobs_J])
        self.breakage = Breakage(scenario.fleet, scenario.faults, self.failures)
        self.books = Books(self.state, [fault.name for fault in scenario.faults], self.breakage.down_fault_N)
        self.replicas = Replicas(scenario.services, first_class=len(self.submissions.class_names),
                                 end_ns=self.end_ns, chance=chance)
        self.gangs = Gangs(scenario.fleet, scenario.faults,
                           (*self.submissions.checkpoints, *self.replicas.checkpoints), self.books)
        self.samples = Samples([widest_node(scenario.fleet, kind)
                                for kind in range(len(scenario.fleet.kinds))])
        self.struck_F: list[int] = []   # fault of every failure that happened
        self.decided_at: list[tuple[int, int]] = []   # (events in the log, time) whenever the policy was asked
        self._queue: EventQueue[Due] = EventQueue()
        self._next_decision_ns = -1
        self._handlers = {Happens.ARRIVE: self._arrive, Happens.FINISH: self._finish, Happens.STRIKE: self._strike,
                          Happens.FIND: self._find, Happens.REPAIR: self._repair, Happens.SCALE: self._scale,
                          Happens.READY: self._ready}

    def run(self, progress: Report | None = None) -> None:
        """From the first moment to the last."""
        queue = self._queue
        if len(self.submissions):
            queue.push(int(self.submissions.arrival_ns_J[0]), Due(Happens.ARRIVE, 0))
        if len(self.failures):
            queue.push(int(self.failures.time_ns_F[0]), Due(Happens.STRIKE, 0))
        for service in range(len(self.scenario.services)):
            queue.push(0, Due(Happens.SCALE, service))
        queue.push(0, _DECIDE)
        queue.push(0, _SAMPLE)
        with _uncollected():
            while (now_ns := queue.next_ns) < self.end_ns:
                self._instant(now_ns, progress)
        self._close()

    def _instant(self, now_ns: int, progress: Report | None) -> None:
        """Everything that happens at one time, then the decisions, then the count of who holds what."""
        queue, decide, sample, version = self._queue, False, False, self.state.version
        self.books.now_ns = now_ns
        while queue.next_ns == now_ns:
            _, due = queue.pop()
            if due is _DECIDE:
                decide = True
            elif due is _SAMPLE:
                sample = True
            else:
                self._handlers[due.what](due, now_ns)
        if self.scenario.decide_every_ns and not decide:
            if self.state.version != version:
                self._decide_later(now_ns)
        elif decide or self.state.version != version:
            self._decide(now_ns)
        if self.state.version != version or sample:
            self.books.recount()
        if sample:
            self._sample(now_ns, progress)

    def _sample(self, now_ns: int, progress: Report | None) -> None:
        self.samples.take(now_ns, self.state, self.books)
        if now_ns + HOUR_NS < self.end_ns:
            self._queue.push(now_ns + HOUR_NS, _SAMPLE)
        if progress is not None:
            progress(now_ns // HOUR_NS, self.end_ns // HOUR_NS)

    # decisions

    def _decide_later(self, now_ns: int, not_before_ns: int = 0) -> None:
        """Ask the policy at the next step of its own clock."""
        every_ns = max(self.scenario.decide_every_ns, 1)
        if now_ns < self._next_decision_ns <= now_ns + every_ns:   # the next step already
            return
        due_ns = -(-max(now_ns + 1, not_before_ns) // every_ns) * every_ns
        if self._next_decision_ns <= now_ns or due_ns < self._next_decision_ns:
            self._next_decision_ns = due_ns
            self._queue.push(due_ns, _DECIDE)

    def _decide(self, now_ns: int) -> None:
        """Carry out plans until there is nothing left to do."""
        self.decided_at.append((self.state.version, now_ns))
        wake_ns = decide(self.state, self.policy, now_ns, lambda event: self._carry_out(event, now_ns))
        if wake_ns > now_ns:
            self._decide_later(now_ns, wake_ns)

    def _carry_out(self, event: Event, now_ns: int) -> None:
        kind, number = event.kind, event.job
        if kind in _UPROOTING:
            self._end(number, now_ns, cause=event.cause)
        self.state.apply(event)
        if kind == EventKind.EVICT:
            self.books.asked_milli += asked_milli(self.state.jobs[number])
            self.replicas.displace(number)
        elif kind == EventKind.PLACE:
            self.books.asked_milli -= asked_milli(self.state.jobs[number])
            if number in self.replicas.owner:
                self.replicas.place(number)
        if event.placement is not None:
            self._begin(number, now_ns)

    # gangs

    def _begin(self, number: int, now_ns: int) -> None:
        job, placement = self.state.jobs[number], self.state.placements[number]
        stint = self.gangs.begin(number, job, placement, now_ns)
        stint.pace = self.breakage.pace_of(placement)
        if self.breakage.strikes(placement):
            stint.hang(now_ns)
        elif number in self.replicas.owner:
            self._queue.push(now_ns + stint.restart_ns, Due(Happens.READY, number, self.gangs.epoch_J[number]))
        else:
            self._queue.push(stint.end_ns(), Due(Happens.FINISH, number, self.gangs.epoch_J[number]))

    def _end(self, number: int, now_ns: int, *, cause: str = "", intact: bool = False) -> None:
        self.replicas.rest(number, now_ns)
        milli = self.gangs.stints[number].milli
        phases = self.gangs.end(number, self.state.jobs[number], self.state.placements[number], now_ns, cause=cause,
                                intact=intact or number in self.replicas.owner)
        self.replicas.worked(number, phases.saved_ns, milli)

    def _hang(self, number: int, now_ns: int) -> None:
        stint = self.gangs.stints.get(number)
        if stint is not None and stint.hung_since_ns < 0:
            self.replicas.rest(number, now_ns)
            stint.hang(now_ns)
            self.gangs.epoch_J[number] += 1   # its end is not due any more

    def _finish(self, due: Due, now_ns: int) -> None:
        number = due.number
        if self.gangs.epoch_J[number] != due.epoch:
            return
        stint = self.gangs.stints[number]
        stint.advance(now_ns)
        behind_ns = stint.needed_ns - stint.elapsed_ns   # of rounding a pace: a nanosecond or so
        stint.elapsed_ns, stint.slow_ns = stint.needed_ns, stint.slow_ns - behind_ns
        self._end(number, now_ns, intact=True)
        self.gangs.finish_ns_J[number] = now_ns
        self.state.apply(Event(time_ns=now_ns, kind=EventKind.FINISH, job=number))

    def _arrive(self, due: Due, now_ns: int) -> None:
        place, jobs = due.number, self.submissions
        self._submit(jobs.jobs_J[place], jobs.work_ns_J.item(place), jobs.class_J.item(place), now_ns)
        if place + 1 < len(jobs):
            self._queue.push(jobs.arrival_ns_J.item(place + 1), Due(Happens.ARRIVE, place + 1))

    def _submit(self, job: Job, work_ns: int, job_class: int, now_ns: int) -> int:
        number = self.state.apply(Event(time_ns=now_ns, kind=EventKind.SUBMIT, request=job))
        self.gangs.join(number, work_ns, job_class)
        self.books.asked_milli += asked_milli(job)
        return number

    # faults

    def _strike(self, due: Due, now_ns: int) -> None:
        failure = due.number
        if failure + 1 < len(self.failures):
            self._queue.push(int(self.failures.time_ns_F[failure + 1]), Due(Happens.STRIKE, failure + 1))
        if not self.breakage.begin(failure):
            return
        self.struck_F.append(int(self.failures.fault_F[failure]))
        fault = self.scenario.faults[self.failures.fault_F[failure]]
        nodes, chips = self.breakage.reach(failure)
        if fault.effect == "slow":
            self._repace(nodes[0], fault.pace, now_ns)
        else:
            self.breakage.strike(nodes, chips)
            for number in self._residents(nodes, chips):
                self._hang(number, now_ns)
        self._queue.push(now_ns + fault.detection_ns, Due(Happens.FIND, failure))

    def _find(self, due: Due, now_ns: int) -> None:
        """The fleet knows of a fault: what it took is down, what was slow is to be emptied."""
        failure = due.number
        fault = self.scenario.faults[self.failures.fault_F[failure]]
        nodes, chips = self.breakage.reach(failure)
        if fault.effect == "slow":
            self.state.apply(Event(time_ns=now_ns, kind=EventKind.DRAIN, nodes=nodes, cause=fault.name))
        else:
            down = self.breakage.find(failure, nodes, chips)
            if down:
                hit = self._residents(down, chips)
                self.state.apply(Event(time_ns=now_ns, kind=EventKind.FAIL, nodes=down, chips=chips, cause=fault.name))
                for number in hit:
                    stint = self.gangs.stints[number]
                    self._hang(number, now_ns)
                    if stint.broken_since_ns < 0 and self.state.status_J[number] == JobStatus.BROKEN:
                        stint.broken_since_ns = now_ns
                if not chips:
                    self.samples.down(down, now_ns)
        self._queue.push(now_ns + int(self.failures.repair_ns_F[failure]), Due(Happens.REPAIR, failure))

    def _repair(self, due: Due, now_ns: int) -> None:
        failure = due.number
        fault = self.scenario.faults[self.failures.fault_F[failure]]
        nodes, chips = self.breakage.reach(failure)
        self.breakage.end(failure)
        if fault.effect == "slow":
            self._repace(nodes[0], 1.0, now_ns)
            self.state.apply(Event(time_ns=now_ns, kind=EventKind.OPEN, nodes=nodes, cause=fault.name))
            return
        back = self.breakage.repair(nodes, chips)
        if back:
            self.state.apply(Event(time_ns=now_ns, kind=EventKind.REPAIR, nodes=back, chips=chips, cause=fault.name))
            if not chips:
                self.samples.up(back, now_ns)

    def _residents(self, nodes: Iterable[int], chips: int) -> list[int]:
        """Jobs that hold anything of these nodes, or of these chips."""
        found = sorted({number for node in nodes for number in self.state.jobs_on(node)})
        if not chips:
            return found
        return [number for number in found if holds_chip(self.state.placements[number], nodes, chips)]

    def _repace(self, node: int, pace: float, now_ns: int) -> None:
        self.breakage.slow(node, pace)
        for number in self.state.jobs_on(node):
            stint = self.gangs.stints[number]
            stint.advance(now_ns)
            stint.pace = self.breakage.pace_of(self.state.placements[number])
            if stint.hung_since_ns < 0 and number not in self.replicas.owner:
                self.gangs.epoch_J[number] += 1
                self._queue.push(stint.end_ns(), Due(Happens.FINISH, number, self.gangs.epoch_J[number]))

    # services

    def _scale(self, due: Due, now_ns: int) -> None:
        """A service follows its load: more replicas, or the youngest ones go."""
        service = due.number
        wanted = self.replicas.step(service, now_ns)
        while self.replicas.count(service) < wanted:
            self.replicas.hire(service, self._submit(self.replicas.jobs[service], FOREVER_NS,
                                                     self.replicas.first_class + service, now_ns))
        while self.replicas.count(service) > wanted:
            self._dismiss(self.replicas.dismiss(service), now_ns)
        next_ns = now_ns + self.scenario.services[service].scaling_ns
        if next_ns < self.end_ns:
            self._queue.push(next_ns, due)

    def _dismiss(self, number: int, now_ns: int) -> None:
        runs = self.state.status_J[number] == JobStatus.RUNNING
        if number in self.gangs.stints:
            self._end(number, now_ns, intact=True)
        else:
            self.books.asked_milli -= asked_milli(self.state.jobs[number])
        self.state.apply(Event(time_ns=now_ns, kind=EventKind.FINISH if runs else EventKind.CANCEL, job=number))

    def _ready(self, due: Due, now_ns: int) -> None:
        if self.gangs.epoch_J[due.number] == due.epoch:
            self.replicas.work(due.number, now_ns)

    # the end

    def _close(self) -> None:
        """Book everything that still goes on; unfinished work is not lost."""
        end_ns = self.end_ns
        self.books.now_ns = end_ns
        self.books.close()
        for number in list(self.gangs.stints):
            self._end(number, end_ns, intact=self.gangs.stints[number].hung_since_ns < 0)
        self.samples.close(end_ns)
        for served, worked in self.replicas.close(end_ns):
            self.books.split_service(served, worked)


#: Events after which a gang's stint is over.
_UPROOTING = frozenset({EventKind.REPLACE, EventKind.MOVE, EventKind.EVICT})
