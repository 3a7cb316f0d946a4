"""The promises of `spec.Engine`, as tests that any engine can be held to.

A test module of an engine subclasses `EngineContract` and gives a fixture `bench`: an object of the `Bench` protocol
with at least two nodes of at least four chips, whose ranks run on this machine (so that their processes can be looked
for). Nothing here waits for a fixed time; `patience_s` bounds everything.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from serried.runners import AttemptId, Engine, Launch, Observation, Phase, Row, TaskSeen
from serried.runners.containment import process_start

OVER = (Phase.EXITED, Phase.GONE)


class Bench(Protocol):
    """An engine and what can be done to the world around it."""

    engine: Engine
    patience_s: float
    scratch: Path   # a directory that ranks may write to

    def reopen(self) -> None:
        """The driver dies without a word and another one comes up: `engine` is a new one on the same state."""

    def silence(self, node: str) -> None:
        """Let what speaks for a node fall silent and hold it back from ever obeying again, its ranks still running."""

    def kill(self, node: str) -> None:
        """Kill what speaks for a node."""


class Driver:
    """A tiny control plane: it repeats its orders until it sees what it wants."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._numbers = itertools.count(1)

    @property
    def engine(self) -> Engine:
        return self.bench.engine

    def see(self) -> Observation:
        return self.engine.observe(time.time_ns())

    def until(self, wanted: Callable[[Observation], object], *, order: Callable[[], object] = lambda: None,
              what: str = "") -> Observation:
        deadline_s = time.monotonic() + self.bench.patience_s
        while True:
            order()
            seen = self.see()
            if wanted(seen):
                return seen
            assert time.monotonic() < deadline_s, f"waited in vain for {what or wanted}: {seen}"
            time.sleep(0.005)

    def incarnations(self) -> dict[str, str]:
        """Of all nodes, once all of them are up."""
        names = {node.name for node in self.engine.nodes()}
        seen = self.until(lambda seen: {one.name for one in seen.nodes if one.incarnation and not one.fenced} == names,
                          what="all nodes")
        return {one.name: one.incarnation for one in seen.nodes}

    def launch(self, script: str, *, ranks: Sequence[int] = (1,), argv: tuple[str, ...] = (), **more) -> Launch:
        """A gang with so many ranks on the first, the second ... node, each of one chip, running a shell script."""
        incarnations = self.incarnations()
        rows, first = [], 0
        for node, count in zip(self.engine.nodes(), ranks, strict=False):
            rows.append(Row(node=node.name, incarnation=incarnations[node.name], chips=tuple(range(count)),
                            first_rank=first, rank_count=count))
            first += count
        number = next(self._numbers)
        return Launch(attempt=AttemptId(number, 10 * number), name=f"job-{number}", rows=tuple(rows),
                      argv=argv or ("/bin/sh", "-c", script), **{"directory": str(self.bench.scratch), **more})

    def start(self, launch: Launch) -> None:
        self.engine.start(launch, nodes_of(launch))

    def stop(self, launch: Launch, grace_ns: int = 0) -> None:
        self.engine.stop(launch.attempt, nodes_of(launch), grace_ns)

    def run(self, launch: Launch, phase: Phase = Phase.RUNNING) -> Observation:
        """Start it, and see all of its rows in a phase, or past RUNNING where that is asked."""
        return self.until(lambda seen: all_rows(seen, launch, lambda task: task.phase == phase),
                          order=lambda: self.start(launch), what=f"{launch.argv} in {phase.name}")

    def end(self, launch: Launch, grace_ns: int = 0) -> Observation:
        return self.until(lambda seen: all_rows(seen, launch, lambda task: task.phase in OVER),
                          order=lambda: self.stop(launch, grace_ns), what=f"the end of {launch.argv}")

    def barrier(self) -> None:
        """Everything ordered before has been dealt with once what is ordered now has run to its end on every node."""
        self.run(self.launch("true", ranks=[1] * len(self.engine.nodes())), Phase.EXITED)


def nodes_of(launch: Launch) -> list[str]:
    return [row.node for row in launch.rows]


def tasks_of(seen: Observation, launch: Launch) -> list[TaskSeen]:
    return [task for task in seen.tasks if task.attempt == launch.attempt]


def all_rows(seen: Observation, launch: Launch, wanted: Callable[[TaskSeen], bool]) -> bool:
    found = tasks_of(seen, launch)
    return {task.node for task in found} == set(nodes_of(launch)) and all(wanted(task) for task in found)


def ranks_of(seen: Observation, launch: Launch) -> dict[int, int | None]:
    return {rank.rank: rank.exit_code for task in tasks_of(seen, launch) for rank in task.ranks}


def pids_in(path: Path) -> list[int]:
    """Processes that wrote their number into a file, those that were cut off while writing left out."""
    return [int(line) for line in path.read_text().splitlines() if line.isdigit()] if path.exists() else []


def living(path: Path) -> list[int]:
    return [pid for pid in pids_in(path) if process_start(pid)]


SIGN = "echo $$ >> {file};"
STAY = SIGN + " exec sleep 1000"
#: A child that leaves its session and its parent, and one that does not even mind being asked to end.
DAEMON = ("(setsid sh -c 'trap \"\" TERM HUP; echo $$ >> {file}; while :; do sleep 1; done' "
          "</dev/null >/dev/null 2>&1 &); ")


class EngineContract:
    """Subclass it with a fixture `bench`."""

    def test_start_twice_is_start_once(self, bench):
        driver, file = Driver(bench), bench.scratch / "pids"
        launch = driver.launch(STAY.format(file=file), ranks=(2, 2))
        for _ in range(3):
            driver.start(launch)
        driver.run(launch)
        driver.start(launch)
        bench.reopen()
        driver.incarnations()
        driver.start(launch)
        driver.run(launch)
        driver.barrier()
        assert len(pids_in(file)) == 4 == len(living(file))
        driver.end(launch)
        driver.start(launch)
        driver.barrier()
        assert len(pids_in(file)) == 4

    def test_what_ended_is_not_started_again(self, bench):
        driver, file = Driver(bench), bench.scratch / "pids"
        launch = driver.launch(SIGN.format(file=file))
        driver.run(launch, Phase.EXITED)
        driver.start(launch)
        bench.reopen()
        driver.incarnations()
        driver.start(launch)
        driver.barrier()
        assert len(pids_in(file)) == 1

    def test_a_stopped_attempt_never_starts(self, bench):
        driver, file = Driver(bench), bench.scratch / "pids"
        launch = driver.launch(STAY.format(file=file), ranks=(1, 1))
        seen = driver.end(launch)
        assert all(task.phase == Phase.GONE for task in tasks_of(seen, launch))
        driver.start(launch)
        bench.reopen()
        driver.incarnations()
        driver.start(launch)
        driver.barrier()
        assert not file.exists()
        assert all_rows(driver.see(), launch, lambda task: task.phase == Phase.GONE)

    def test_another_incarnation_ignores_the_order(self, bench):
        driver, file = Driver(bench), bench.scratch / "pids"
        launch = driver.launch(STAY.format(file=file))
        stale = Launch(attempt=launch.attempt, name="stale", argv=launch.argv, directory=launch.directory, rows=tuple(
            Row(node=row.node, incarnation="another", chips=row.chips, first_rank=0, rank_count=1)
            for row in launch.rows))
        driver.start(stale)
        driver.barrier()
        assert not file.exists()
        assert not tasks_of(driver.see(), launch)

    def test_gone_means_that_nothing_lives(self, bench):
        driver, file = Driver(bench), bench.scratch / "pids"
        launch = driver.launch(DAEMON.format(file=file) + STAY.format(file=file), ranks=(2,))
        driver.run(launch)
        driver.until(lambda _: len(pids_in(file)) == 4, what="children that left their parents")
        seen = driver.end(launch, grace_ns=1_000_000_000)
        assert not living(file)
        assert tasks_of(seen, launch)[0].phase == Phase.GONE

    def test_exited_means_that_nothing_lives(self, bench):
        driver, file = Driver(bench), bench.scratch / "pids"
        launch = driver.launch(DAEMON.format(file=file) + f"while ! [ -s {file} ]; do sleep 0.01; done; exit 0")
        seen = driver.run(launch, Phase.EXITED)
        assert pids_in(file)
        assert not living(file)
        assert ranks_of(seen, launch) == {0: 0}

    def test_a_fenced_node_is_dead_and_comes_back_as_another(self, bench):
        driver, file = Driver(bench), bench.scratch / "pids"
        launch = driver.launch(DAEMON.format(file=file) + STAY.format(file=file))
        driver.run(launch)
        driver.until(lambda _: len(pids_in(file)) == 2, what="the rank and its child")
        node = launch.rows[0].node
        bench.silence(node)
        assert len(living(file)) == 2
        self._until_cut_off(driver, launch, order=lambda: driver.engine.fence(node))
        assert not living(file)
        assert driver.incarnations()[node] != launch.rows[0].incarnation
        driver.start(launch)
        driver.barrier()
        assert not living(file)

    def test_a_node_whose_agent_died_is_told_dead_only_when_it_is(self, bench):
        driver, file = Driver(bench), bench.scratch / "pids"
        launch = driver.launch(DAEMON.format(file=file) + STAY.format(file=file))
        driver.run(launch)
        driver.until(lambda _: len(pids_in(file)) == 2, what="the rank and its child")
        node = launch.rows[0].node
        bench.kill(node)
        self._until_cut_off(driver, launch, order=lambda: None)
        assert not living(file)
        assert driver.incarnations()[node] != launch.rows[0].incarnation

    def _until_cut_off(self, driver: Driver, launch: Launch, *, order: Callable[[], object]) -> None:
        row = launch.rows[0]

        def cut_off(seen: Observation) -> bool:
            node = next(one for one in seen.nodes if one.name == row.node)
            return (node.fenced and node.incarnation == row.incarnation) or (
                bool(node.incarnation) and node.incarnation != row.incarnation)

        driver.until(cut_off, order=order, what=f"{row.node} being cut off")

    def test_what_ended_is_told_until_it_is_forgotten(self, bench):
        driver = Driver(bench)
        launch = driver.launch("exit 3", ranks=(1, 1))
        driver.run(launch, Phase.EXITED)
        bench.reopen()
        driver.incarnations()
        seen = driver.until(lambda seen: all_rows(seen, launch, lambda task: task.phase == Phase.EXITED),
                            what="what ended before")
        assert ranks_of(seen, launch) == {0: 3, 1: 3}
        driver.until(lambda seen: not tasks_of(seen, launch), order=lambda: driver.engine.forget(launch.attempt))
        bench.reopen()
        driver.incarnations()
        driver.barrier()
        assert not tasks_of(driver.see(), launch)

    def test_exit_codes(self, bench):
        driver = Driver(bench)
        launch = driver.launch("case $RANK in 0) exit 0;; 1) exit 7;; 2) kill -9 $$;; 3) kill -15 $$;; esac",
                               ranks=(2, 2))
        assert ranks_of(driver.run(launch, Phase.EXITED), launch) == {0: 0, 1: 7, 2: -9, 3: -15}

    def test_a_missing_program_is_named(self, bench):
        driver = Driver(bench)
        launch = driver.launch("", argv=("no-such-program", "--fast"))
        task, = tasks_of(driver.run(launch, Phase.EXITED), launch)
        assert "no-such-program" in task.error

    def test_a_missing_directory_is_named(self, bench):
        driver = Driver(bench)
        missing = str(bench.scratch / "missing")
        launch = driver.launch("true", directory=missing)
        task, = tasks_of(driver.run(launch, Phase.EXITED), launch)
        assert missing in task.error

    def test_ranks_find_torchruns_variables(self, bench):
        driver = Driver(bench)
        names = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE",
                 "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT", "SERRIED_ATTEMPT", "SERRIED_CHIPS",
                 "COLOUR"]
        line = " ".join(f"${name}" for name in names)
        launch = driver.launch(f"echo {line} > {bench.scratch}/variables.$RANK", ranks=(2, 2), restarts=5,
                               environment={"COLOUR": "green", "RANK": "of a general"})
        driver.run(launch, Phase.EXITED)
        told = [dict(zip(names, (bench.scratch / f"variables.{rank}").read_text().split(), strict=True))
                for rank in range(4)]
        assert [one["RANK"] for one in told] == ["0", "1", "2", "3"]
        assert [one["LOCAL_RANK"] for one in told] == ["0", "1", "0", "1"]
        assert [one["GROUP_RANK"] for one in told] == ["0", "0", "1", "1"]
        assert [one["SERRIED_CHIPS"] for one in told] == ["0", "1", "0", "1"]
        assert {(one["WORLD_SIZE"], one["LOCAL_WORLD_SIZE"], one["GROUP_WORLD_SIZE"], one["COLOUR"],
                 one["TORCHELASTIC_RESTART_COUNT"], one["SERRIED_ATTEMPT"]) for one in told} == {
                     ("4", "2", "2", "green", "5", str(launch.attempt))}
        assert len({(one["MASTER_ADDR"], one["MASTER_PORT"]) for one in told}) == 1

    def test_output_is_kept(self, bench):
        driver = Driver(bench)
        launch = driver.launch("echo to be read; echo rank $RANK >&2", ranks=(2,))
        driver.run(launch, Phase.EXITED)
        for rank in range(2):
            path = Path(driver.engine.log_path(launch.attempt, rank))
            assert path.read_text().splitlines() == ["to be read", f"rank {rank}"]

    def test_heartbeats_are_heard(self, bench):
        driver = Driver(bench)
        launch = driver.launch("echo '41 0.5' > $SERRIED_HEARTBEAT; echo '42 0.25' >> $SERRIED_HEARTBEAT; sleep 1000")
        driver.run(launch)

        def step(seen: Observation) -> int:
            beats = [rank.beat for task in tasks_of(seen, launch) for rank in task.ranks]
            return beats[0].step if beats and beats[0] else -1

        seen = driver.until(lambda seen: step(seen) == 42, what="the second step")
        beat = tasks_of(seen, launch)[0].ranks[0].beat
        assert beat.busy_s == 0.25
        assert abs(time.time_ns() - beat.heard_ns) < 1e9 * bench.patience_s
        driver.end(launch)
