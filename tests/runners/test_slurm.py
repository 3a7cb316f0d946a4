"""Gangs on a real Slurm cluster: what the engine promises, also when daemons, drivers and nodes die."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from serried.runners import AttemptId, Launch, Phase, Row
from serried.runners.slurm import SlurmEngine, Terms
from tests.runners.slurm_cluster import cluster, wait_until

__all__ = ["cluster"]

TERMS = Terms(ask_s=0.25, beat_s=0.5, lease_s=3.0, margin_s=1.0, launcher_silence_s=3.0, return_s=4.0)
SHOW = ("import json, os; print(json.dumps({name: text for name, text in os.environ.items() if name.isupper()}))")


@pytest.fixture
def engine(cluster, tmp_path):
    made = SlurmEngine(tmp_path / "state", slurm=cluster.slurm, terms=TERMS, device_variables=("CHIPS_TO_SEE",))
    yield made
    end_all(made)
    made.close()


def end_all(engine) -> None:
    for task in engine.observe(time.monotonic_ns()).tasks:
        engine.stop(task.attempt, [task.node], 0)
    wait_until(lambda: all(task.phase >= Phase.EXITED for task in engine.observe(time.monotonic_ns()).tasks),
               "all ended")


def launch_of(engine, epoch: int, rows, *argv: str, **more) -> Launch:
    """rows: (node, chips, ranks) each."""
    lives = {node.name: node.incarnation for node in engine.observe(time.monotonic_ns()).nodes}
    made, first = [], 0
    for node, chips, ranks in rows:
        made.append(Row(node=node, incarnation=lives[node], chips=chips, first_rank=first, rank_count=ranks))
        first += ranks
    return Launch(attempt=AttemptId(7, epoch), name="gang", argv=argv, rows=tuple(made), **more)


def tasks_of(engine, launch):
    return {task.node: task for task in engine.observe(time.monotonic_ns()).tasks if task.attempt == launch.attempt}


def wait_for(engine, launch, phase, within_s: float = 15.0):
    def reached():
        tasks = tasks_of(engine, launch)
        return tasks if len(tasks) == len(launch.rows) and all(task.phase == phase for task in tasks.values()) else None
    return wait_until(reached, f"{launch.attempt} {phase.name}", within_s)


def begin(engine, launch):
    engine.start(launch, [row.node for row in launch.rows])


def test_nodes_are_what_slurm_has(engine):
    nodes = {node.name: node for node in engine.nodes()}
    assert {name: node.chip_count for name, node in nodes.items()} == {"n1": 4, "n2": 4, "n3": 2, "n4": 2}
    assert nodes["n1"].kind == "virtual"
    assert nodes["n3"].switches == {"level0": "s2", "level1": "top"}
    assert all(node.heard_ns > 0 and node.incarnation == "1" for node in engine.observe(time.monotonic_ns()).nodes)


def test_a_gang_over_uneven_rows(engine, tmp_path):
    launch = launch_of(engine, 1, [("n1", (0, 1, 2, 3), 2), ("n2", (1, 3), 2), ("n3", (0,), 1)], sys.executable, "-c",
                       SHOW, environment={"COLOUR": "it's red"}, directory=str(tmp_path), share_milli=1000)
    begin(engine, launch)
    begin(engine, launch)
    tasks = wait_for(engine, launch, Phase.EXITED)
    assert [rank.exit_code for task in tasks.values() for rank in task.ranks] == [0] * 5
    told = [json.loads(Path(engine.log_path(launch.attempt, rank)).read_text()) for rank in range(5)]
    assert [one["RANK"] for one in told] == ["0", "1", "2", "3", "4"]
    assert [one["LOCAL_RANK"] for one in told] == ["0", "1", "0", "1", "0"]
    assert [one["CHIPS_TO_SEE"] for one in told] == ["0,1", "2,3", "1", "3", "0"]
    assert {one["WORLD_SIZE"] for one in told} == {"5"}
    assert {one["MASTER_PORT"] for one in told} == {told[0]["MASTER_PORT"]}
    assert {one["COLOUR"] for one in told} == {"it's red"}
    assert not any(name.startswith("SLURM_N") for name in told[0])
    engine.forget(launch.attempt)
    wait_until(lambda: not Path(engine.log_path(launch.attempt, 0)).parent.exists(), "forgotten")
