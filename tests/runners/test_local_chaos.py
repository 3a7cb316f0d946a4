"""Random orders, deaths and doubles on real processes: the promises hold all the same. A seed repeats the orders."""

import random
from collections import Counter

import pytest

from serried.runners import Phase
from serried.runners.containment import process_start
from tests.runners.contract import OVER, Driver, all_rows, nodes_of, tasks_of
from tests.runners.local_bench import LocalBench

#: Every process of a rank, a child that got away from it among them, writes whose it is.
SCRIPT = ("(setsid sh -c 'trap \"\" TERM; echo $SERRIED_ATTEMPT $SERRIED_NODE child $$ >> {file}; sleep 1000' "
          "</dev/null >/dev/null 2>&1 &); echo $SERRIED_ATTEMPT $SERRIED_NODE $RANK $$ >> {file}; sleep {sleep_s}")


class Chaos:
    def __init__(self, bench: LocalBench, seed: int) -> None:
        self.bench, self.driver, self.chance = bench, Driver(bench), random.Random(seed)
        self.file = bench.scratch / "lives"
        self.launches, self.bar = [], Counter()

    def lives(self) -> list[list[str]]:
        return [line.split() for line in self.file.read_text().splitlines()] if self.file.exists() else []

    def check(self) -> None:
        """What is told now is true now. What is told is asked for before what is true, which only moves one way."""
        seen = self.driver.see()
        over = {(str(task.attempt), task.node) for task in seen.tasks if task.phase in OVER}
        lives = self.lives()
        alive = {(attempt, node) for attempt, node, _, pid in lives if process_start(int(pid))}
        assert not over & alive, "called over while it lives"
        starts = Counter((attempt, rank) for attempt, _, rank, _ in lives if rank != "child")
        assert set(starts.values()) <= {1}, "started twice"

    def new(self) -> None:
        sleep_s = self.chance.choice([0, 0.02, 1000])
        self.launches.append(self.driver.launch(SCRIPT.format(file=self.file, sleep_s=sleep_s),
                                                ranks=self.chance.choice([(1,), (2, 1), (1, 2)])))
        self.again()

    def again(self) -> None:
        for launch in self.launches[-3:]:
            self.driver.start(launch)

    def stop(self) -> None:
        if self.launches:
            launch = self.chance.choice(self.launches)
            self.driver.stop(launch, self.chance.choice([0, 20_000_000]))

    def see_one_run(self) -> None:
        if self.launches:
            launch = self.launches[-1]
            self.driver.until(lambda seen: tasks_of(seen, launch) and all(
                task.phase != Phase.STARTING for task in tasks_of(seen, launch)),
                order=lambda: (self.driver.start(launch), self.driver.stop(self.launches[0])) and self.forget_stale())

    def forget_stale(self) -> None:
        """A launch that named an incarnation that died before it was heard never runs: stop it instead."""
        incarnations = {one.name: one.incarnation for one in self.driver.see().nodes}
        launch = self.launches[-1]
        if any(incarnations[row.node] not in ("", row.incarnation) for row in launch.rows):
            self.driver.stop(launch)

    def kill(self) -> None:
        self.driver.incarnations()
        self.bench.kill(self.chance.choice(["node-0", "node-1"]))

    def silence(self) -> None:
        self.driver.incarnations()
        node = self.chance.choice(["node-0", "node-1"])
        self.bench.silence(node)
        self.bench.engine.fence(node)

    def reopen(self) -> None:
        self.bench.reopen()


@pytest.mark.parametrize("seed", range(3))
def test_promises_hold_in_chaos(tmp_path, seed):
    bench = LocalBench(tmp_path, cgroups=seed % 2 == 0)
    try:
        chaos = Chaos(bench, seed)
        acts = [chaos.new] * 4 + [chaos.again] * 2 + [chaos.stop] * 3 + [chaos.see_one_run] * 2 + [
            chaos.kill, chaos.silence, chaos.reopen]
        for _ in range(40):
            chaos.chance.choice(acts)()
            chaos.check()
        chaos.driver.incarnations()
        for launch in chaos.launches:
            chaos.driver.end(launch)
            chaos.check()
        assert not [pid for *_, pid in chaos.lives() if process_start(int(pid))]
        for launch in chaos.launches:
            assert all_rows(chaos.driver.see(), launch, lambda task: task.phase in OVER), nodes_of(launch)
            bench.engine.forget(launch.attempt)
        chaos.driver.until(lambda seen: not seen.tasks, what="oblivion")
    finally:
        bench.engine.shutdown(0)
