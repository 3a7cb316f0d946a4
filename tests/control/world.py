"""A world for the control plane that follows from a seed: nodes, agents, processes, a slow and lossy wire, and crashes.

The engine here keeps the promises of `runners.Engine` and nothing more: orders come late or never, what is seen is old,
nodes freeze while their ranks run on, agents die. The control plane under test is the real one; it dies whenever the
seed says so, between any two of its own actions. Ground truth is checked at every start of a process.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from serried.clock import EventQueue
from serried.control.ledger import LedgerLost, MemoryLedger
from serried.control.records import Record
from serried.runners import AttemptId, Beat, Launch, Node, NodeSeen, Observation, Phase, RankSeen, TaskSeen

SECOND_NS = 1_000_000_000


class Crash(BaseException):
    """The control plane dies here."""


class Violation(AssertionError):
    """A promise was broken."""


@dataclass
class Task:
    """The ranks of one row, as they really are. ends: rank -> (when, exit code); it runs until the last of them."""

    launch: Launch
    node: str
    incarnation: str
    started_ns: int
    ends: dict[int, tuple[int, int]]
    stubborn_ns: int
    codes: dict[int, int] = field(default_factory=dict)
    killed: bool = False

    @property
    def alive(self) -> bool:
        return len(self.codes) < len(self.ends)

    @property
    def row(self):
        return next(row for row in self.launch.rows if row.node == self.node)

    @property
    def phase(self) -> Phase:
        if self.alive:
            return Phase.RUNNING
        return Phase.GONE if self.killed else Phase.EXITED


@dataclass
class Machine:
    """One node: its agent's memory (`tasks`, `barred`), whether it answers, and until when it is frozen."""

    node: Node
    boots: int = 1
    up: bool = True
    frozen_until_ns: int = 0
    cut_until_ns: int = 0
    tasks: dict[AttemptId, Task] = field(default_factory=dict)
    barred: set[AttemptId] = field(default_factory=set)
    forgotten: set[AttemptId] = field(default_factory=set)
    fenced: str = ""   # the incarnation that was cut off

    @property
    def incarnation(self) -> str:
        return f"{self.node.name}#{self.boots}"


class World:
    """Machines, time and chance. `trouble` is the share of everything that can go wrong; at 0 nothing does."""

    def __init__(self, seed: int, nodes: Sequence[Node], *, trouble: float, now_ns: int) -> None:
        self.chance = random.Random(seed)
        self.trouble, self.now_ns = trouble, now_ns
        self.machines = {node.name: Machine(node=node) for node in nodes}
        self.queue: EventQueue = EventQueue(now_ns)
        self.started: dict[tuple[AttemptId, str], int] = {}
        self.crashes = 0
        self.fence_asked: dict[str, int] = {}
        for name in self.machines:
            self.later(self.chance.uniform(5, 60) * SECOND_NS, self._break, name)

    def later(self, delay_ns: float, act, *arguments) -> None:
        self.queue.push(self.now_ns + max(int(delay_ns), 1), (act, arguments))

    def advance(self, until_ns: int) -> None:
        """Let happen what happens until then."""
        while self.queue.next_ns <= until_ns:
            self.now_ns, (act, arguments) = self.queue.pop()
            act(*arguments)
        self.now_ns = max(self.now_ns, until_ns)

    # what goes wrong

    def happens(self, ratio: float = 1.0) -> bool:
        return self.trouble > 0 and self.chance.random() < self.trouble * ratio

    def may_crash(self) -> None:
        """Every place where the control plane may die calls this."""
        if self.happens(0.05):
            self.crashes += 1
            raise Crash

    def _break(self, name: str) -> None:
        machine = self.machines[name]
        if self.trouble > 0:
            what, for_ns = self.chance.random(), self.chance.uniform(0.5, 12) * SECOND_NS
            if what < 0.35:
                self.kill_agent(name, respawn_ns=for_ns)
            elif what < 0.65:
                machine.frozen_until_ns = self.now_ns + int(for_ns)
            else:
                machine.cut_until_ns = self.now_ns + int(for_ns)
            self.later(self.chance.uniform(10, 90) * SECOND_NS, self._break, name)

    def kill_agent(self, name: str, *, respawn_ns: float) -> None:
        """The agent dies, its ranks with it, and comes back as another incarnation."""
        machine = self.machines[name]
        if machine.up:
            for task in machine.tasks.values():
                for rank in task.ends:
                    task.codes.setdefault(rank, -9)
            machine.up = False
            self.later(respawn_ns, self._respawn, name)

    def _respawn(self, name: str) -> None:
        machine = self.machines[name]
        assert not machine.up, "who lives is not born again"
        machine.boots, machine.up, machine.frozen_until_ns = machine.boots + 1, True, 0
        machine.tasks, machine.barred, machine.forgotten = {}, set(), set()

    # what agents do

    def hears(self, machine: Machine) -> bool:
        return machine.up and self.now_ns >= machine.frozen_until_ns

    def deliver(self, name: str, act, *arguments) -> None:
        """An order on its way: late, or lost, or kept by a frozen node until it thaws."""
        if self.happens(0.3):
            return
        machine = self.machines[name]
        late_ns = self.chance.expovariate(1 / (20e6 if self.trouble == 0 else 200e6))
        if self.now_ns < machine.cut_until_ns:
            if self.chance.random() < 0.5:
                return
            late_ns += machine.cut_until_ns - self.now_ns
        self.later(late_ns, self._arrive, name, machine.boots, act, arguments)

    def _arrive(self, name: str, boots: int, act, arguments) -> None:
        machine = self.machines[name]
        if machine.up and machine.boots == boots:   # a connection does not outlive its agent
            if self.now_ns < machine.frozen_until_ns:
                self.later(machine.frozen_until_ns - self.now_ns, self._arrive, name, boots, act, arguments)
            else:
                act(machine, *arguments)

    def start(self, machine: Machine, launch: Launch) -> None:
        row = next(row for row in launch.rows if row.node == machine.node.name)
        if launch.attempt in machine.tasks or launch.attempt in machine.barred | machine.forgotten or (
                row.incarnation != machine.incarnation):
            return
        self._check_start(machine, launch, row)
        self.started[launch.attempt, machine.incarnation] = self.now_ns
        life_s = float(launch.environment["LIFE_S"])
        ends = {}
        for rank in range(row.first_rank, row.first_rank + row.rank_count):
            fails = self.happens(0.3) or launch.environment["FAILS"] == "always"
            share = self.chance.uniform(0.1, 1) if fails else 1
            ends[rank] = self.now_ns + int(life_s * share * SECOND_NS), int(fails)
        task = Task(launch=launch, node=machine.node.name, incarnation=machine.incarnation, started_ns=self.now_ns,
                    ends=ends, stubborn_ns=int(self.chance.uniform(0, 3) * SECOND_NS))
        machine.tasks[launch.attempt] = task
        for rank, (end_ns, code) in ends.items():
            self.later(end_ns - self.now_ns, self._exit, task, rank, code)

    def _exit(self, task: Task, rank: int, code: int) -> None:
        task.codes.setdefault(rank, code)

    def _check_start(self, machine: Machine, launch: Launch, row) -> None:
        key = launch.attempt, machine.incarnation
        if key in self.started:
            raise Violation(f"{key} is started twice")
        if machine.fenced == machine.incarnation:
            raise Violation(f"{key} starts on a node that was cut off")
        for other in self.machines.values():
            for task in other.tasks.values():
                if not task.alive or task.launch.attempt == launch.attempt:
                    continue
                if task.launch.attempt.job == launch.attempt.job:
                    raise Violation(f"{key} starts while {task.launch.attempt} still runs on {other.node.name}")
                shared = set(task.row.chips) & set(row.chips) if other is machine else set()
                if shared and task.launch.share_milli + launch.share_milli > 1000:
                    raise Violation(f"chips {shared} of {machine.node.name} are held by {task.launch.attempt} and "
                                    f"{launch.attempt}")

    def stop(self, machine: Machine, attempt: AttemptId, grace_ns: int) -> None:
        machine.barred.add(attempt)
        task = machine.tasks.get(attempt)
        if task is not None and task.alive:
            task.killed = True
            self.later(min(task.stubborn_ns, grace_ns), self._kill, task)

    def _kill(self, task: Task) -> None:
        for rank in task.ends:
            task.codes.setdefault(rank, -15)

    def fence(self, name: str) -> None:
        """Kill what is there, by a way that needs no agent."""
        machine = self.machines[name]
        machine.fenced = machine.incarnation
        if machine.up:
            self.kill_agent(name, respawn_ns=self.chance.uniform(0.2, 8) * SECOND_NS)

    def tell(self, name: str) -> tuple[str, int, tuple[TaskSeen, ...]] | None:
        """What an agent would say of itself now; None when nothing comes through."""
        machine = self.machines[name]
        if not self.hears(machine) or self.now_ns < machine.cut_until_ns:
            return None
        barred = [TaskSeen(attempt=attempt, node=name, incarnation=machine.incarnation, phase=Phase.GONE)
                  for attempt in sorted(machine.barred) if attempt not in machine.tasks]
        tasks = [TaskSeen(attempt=attempt, node=name, incarnation=machine.incarnation, phase=task.phase,
                          ranks=tuple(RankSeen(rank=rank, pid=rank + 1, exit_code=task.codes.get(rank),
                                               beat=Beat(step=1, heard_ns=self.now_ns) if attempt.job % 2 else None)
                                      for rank in task.ends))
                 for attempt, task in sorted(machine.tasks.items())]
        return machine.incarnation, self.now_ns, (*tasks, *barred)


class WorldEngine:
    """The engine of one life of the control plane: what it has heard dies with it."""

    name = "world"

    def __init__(self, world: World, names: Sequence[str] = ()) -> None:
        self.world, self._names = world, names or tuple(world.machines)
        self._heard: dict[str, tuple[str, int, tuple[TaskSeen, ...]]] = {}
        self._incoming: list[tuple[int, str, tuple[str, int, tuple[TaskSeen, ...]]]] = []
        self._fenced: dict[str, str] = {}
        self._told: dict[tuple[AttemptId, str], TaskSeen] = {}

    def nodes(self) -> tuple[Node, ...]:
        return tuple(self.world.machines[name].node for name in self._names)

    def observe(self, now_ns: int) -> Observation:
        world = self.world
        world.may_crash()
        for name in self._names:
            told = world.tell(name)
            if told is not None and not world.happens(0.3):
                late_ns = world.chance.expovariate(1 / 100e6) if world.trouble else 0.0
                self._incoming.append((world.now_ns + int(late_ns), name, told))
        self._incoming.sort(key=lambda one: one[0])
        while self._incoming and self._incoming[0][0] <= world.now_ns:
            _, name, told = self._incoming.pop(0)
            if told[1] > self._heard.get(name, ("", 0, ()))[1]:
                self._heard[name] = told
        seen = []
        for name in self._names:
            incarnation, heard_ns, _ = self._heard.get(name, ("", 0, ()))
            seen.append(NodeSeen(name=name, incarnation=incarnation, heard_ns=heard_ns,
                                 fenced=self._fenced.get(name, "-") == incarnation))
        tasks = [task for _, _, told in self._heard.values() for task in told]
        before, self._told = self._told, {}
        for task in tasks:       # what is as it was is the very object that it was
            known = before.get((task.attempt, task.node))
            self._told[task.attempt, task.node] = known if known == task else task
        return Observation(nodes=tuple(seen), tasks=tuple(self._told.values()))

    def start(self, launch: Launch, nodes: Sequence[str]) -> None:
        for name in nodes:
            self.world.may_crash()
            self.world.deliver(name, self.world.start, launch)
        self.world.may_crash()

    def stop(self, attempt: AttemptId, nodes: Sequence[str], grace_ns: int) -> None:
        for name in nodes:
            self.world.may_crash()
            self.world.deliver(name, self.world.stop, attempt, grace_ns)

    def fence(self, node: str) -> None:
        self.world.may_crash()
        self.world.fence_asked.setdefault(node, self.world.now_ns)
        self.world.later(self.world.chance.uniform(0, 1.5) * SECOND_NS, self._fence, node)

    def _fence(self, node: str) -> None:
        self.world.fence(node)
        self._fenced[node] = self._heard.get(node, ("", 0, ()))[0]   # all that was heard of so far is dead

    def forget(self, attempt: AttemptId) -> None:
        self.world.may_crash()
        for machine in self.world.machines.values():
            task = machine.tasks.get(attempt)
            if task is not None and task.alive:
                raise Violation(f"{attempt} is forgotten while it runs on {machine.node.name}")
            if self.world.hears(machine):
                machine.tasks.pop(attempt, None)
                machine.barred.discard(attempt)
                machine.forgotten.add(attempt)

    def log_path(self, attempt: AttemptId, rank: int) -> str:
        return ""

    def close(self) -> None:
        """Nothing is held."""


class WorldLedger(MemoryLedger):
    """A ledger whose owner may die, or lose it, before or after a transaction took place."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def read(self, after: int = -1) -> Iterator[Record]:
        return super().read(after)

    def append(self, records: Iterable[Record]) -> None:
        world = self.world
        world.may_crash()
        if world.happens(0.05):
            raise LedgerLost("The wire to it was cut.")
        super().append(list(records))
        if world.happens(0.05):
            raise LedgerLost("The wire to it was cut, after the transaction.")
        world.may_crash()
