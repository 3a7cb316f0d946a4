"""Gangs on a real Slurm cluster: what the engine promises, also when daemons, drivers and nodes die."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from serried.runners import AttemptId, Launch, Phase, Row
from serried.runners.slurm import SlurmEngine, Terms
from serried.runners.slurm_commands import Slurm, Unreachable
from tests.runners.slurm_cluster import cluster, wait_until

__all__ = ["cluster"]

TERMS = Terms(ask_s=0.25, beat_s=0.5, lease_s=3.0, margin_s=1.0, launcher_silence_s=3.0, return_s=4.0)
SHOW = ("import json, os; print(json.dumps({name: text for name, text in os.environ.items() if name.isupper()}))")


@pytest.fixture
def engine(cluster, tmp_path):
    made = SlurmEngine(tmp_path / "state", slurm=cluster.slurm, terms=TERMS, device_variables=("CHIPS_TO_SEE",))
    yield made
    if not made._closed:
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
    wait_until(lambda: not (tmp_path / "state" / "attempts" / str(launch.attempt)).exists(), "forgotten")
    assert Path(engine.log_path(launch.attempt, 0)).exists(), "people may still read what it said"


def test_ranks_end_each_in_its_way(engine):
    ends = ("import os, sys, time; rank = int(os.environ['RANK'])\n"
            "if rank == 1: os.kill(os.getpid(), 9)\n"
            "if rank == 2: time.sleep(60)\n"
            "sys.exit(3)")
    launch = launch_of(engine, 2, [("n1", (0, 1), 2), ("n3", (0,), 1)], sys.executable, "-c", ends)
    begin(engine, launch)

    def ended_beside_a_running_one():
        tasks = tasks_of(engine, launch)
        return len(tasks) == 2 and tasks["n1"].phase == Phase.EXITED and tasks["n3"].phase == Phase.RUNNING and tasks
    tasks = wait_until(ended_beside_a_running_one, "n1 ended, n3 runs")
    assert [(rank.rank, rank.exit_code) for rank in tasks["n1"].ranks] == [(0, 3), (1, -9)]
    assert [rank.exit_code for rank in tasks["n3"].ranks] == [None]


def test_what_cannot_run_says_why(engine):
    launch = launch_of(engine, 3, [("n2", (0,), 1)], "no-such-program")
    begin(engine, launch)
    tasks = wait_for(engine, launch, Phase.EXITED)
    assert "no-such-program" in tasks["n2"].error
    assert "PATH" in tasks["n2"].error


def test_what_slurm_refuses_says_why(cluster, tmp_path):
    engine = SlurmEngine(tmp_path / "state", slurm=cluster.slurm, terms=TERMS, options=["--partition=none-such"])
    launch = launch_of(engine, 3, [("n2", (0,), 1)], "true")
    begin(engine, launch)
    assert "sbatch" in wait_for(engine, launch, Phase.GONE)["n2"].error
    engine.close()


def test_a_node_without_the_launchers_python_says_why(cluster, tmp_path):
    engine = SlurmEngine(tmp_path / "state", slurm=cluster.slurm, terms=TERMS, python="no-such-python")
    launch = launch_of(engine, 3, [("n2", (0,), 1)], "true")
    begin(engine, launch)
    assert "no-such-python" in wait_for(engine, launch, Phase.GONE)["n2"].error
    engine.close()


def test_stop_leaves_a_grace_and_no_descendant(engine, tmp_path):
    script = (f"import os, signal, subprocess, sys, time\n"
              f"signal.signal(signal.SIGTERM, lambda *_: (open({str(tmp_path / 'saved')!r}, 'w'), sys.exit(0)))\n"
              f"stray = subprocess.Popen(['setsid', 'env', '-i', 'sh', '-c', 'trap \"\" TERM; sleep 61 & sleep 61'])\n"
              f"open(os.environ['SERRIED_HEARTBEAT'], 'a').write('5 0.25\\n')\n"
              f"open({str(tmp_path / 'stray')!r}, 'w').write(str(stray.pid)); print('up', flush=True); time.sleep(60)")
    launch = launch_of(engine, 4, [("n1", (0,), 1)], sys.executable, "-c", script)
    begin(engine, launch)
    beat = wait_until(lambda: tasks_of(engine, launch) and (ranks := tasks_of(engine, launch)["n1"].ranks)
                      and ranks[0].beat, "a beat")
    assert (beat.step, beat.busy_s) == (5, 0.25)
    assert 0 <= time.monotonic_ns() - beat.heard_ns < 3e9
    wait_until((tmp_path / "stray").exists, "the stray")
    stray = int((tmp_path / "stray").read_text())
    engine.stop(launch.attempt, ["n1"], 5_000_000_000)
    wait_for(engine, launch, Phase.GONE, 4.0)
    assert (tmp_path / "saved").exists()
    assert not Path(f"/proc/{stray}").exists()
    begin(engine, launch)
    time.sleep(0.5)
    assert tasks_of(engine, launch)["n1"].phase == Phase.GONE


def test_stop_before_start_bars_it(engine, tmp_path):
    launch = launch_of(engine, 5, [("n1", (0,), 1), ("n2", (0,), 1)], "touch", str(tmp_path / "ran"))
    engine.stop(launch.attempt, ["n1", "n2"], 0)
    begin(engine, launch)
    wait_for(engine, launch, Phase.GONE)
    time.sleep(1.5)
    assert not (tmp_path / "ran").exists()


def test_another_incarnation_is_ignored(engine, tmp_path):
    launch = launch_of(engine, 6, [("n1", (0,), 1)], "touch", str(tmp_path / "ran"))
    late = replace(launch, rows=(replace(launch.rows[0], incarnation="9"),))
    begin(engine, late)
    time.sleep(1.5)
    assert not tasks_of(engine, late)
    assert not (tmp_path / "ran").exists()


@dataclass(frozen=True, slots=True, kw_only=True)
class DyingDriver(Slurm):
    """Its sbatch arrives, and nobody ever hears so."""

    def submit(self, script, options):
        super(DyingDriver, self).submit(script, options)
        raise Unreachable("killed before the answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blind(Slurm):
    """Slurm's lists come without the job that is on its way."""

    def jobs(self):
        return []


def test_a_driver_that_dies_before_its_sbatch_is_answered_starts_once(cluster, tmp_path):
    state, runs = tmp_path / "state", tmp_path / "runs"
    first = SlurmEngine(state, terms=TERMS, slurm=DyingDriver(environment=cluster.slurm.environment))
    launch = launch_of(first, 8, [("n1", (0,), 1), ("n2", (0,), 1)], "sh", "-c", f"echo $RANK >> {runs}; sleep 2")
    begin(first, launch)
    first.close()
    second = SlurmEngine(state, terms=TERMS, slurm=Blind(environment=cluster.slurm.environment))
    begin(second, launch)   # a second job of the same name
    second.close()
    third = SlurmEngine(state, terms=TERMS, slurm=cluster.slurm)
    begin(third, launch)
    wait_for(third, launch, Phase.EXITED)
    names = [job for job in cluster.slurm.jobs() if f"serried-{launch.attempt}-" in job.name]
    wait_until(lambda: all(job.over for job in cluster.slurm.jobs()), "both jobs over")
    assert len(names) == 2
    assert sorted(runs.read_text().split()) == ["0", "1"]
    third.forget(launch.attempt)
    third.close()
    assert not tasks_of(SlurmEngine(state, terms=TERMS, slurm=cluster.slurm), launch)


DRIVER = """
import sys, time
from pathlib import Path
from serried.runners import AttemptId, Launch, Row
from serried.runners.slurm import SlurmEngine
from serried.runners.slurm_commands import Slurm
state, configuration, epoch, runs = sys.argv[1:]
engine = SlurmEngine(Path(state), slurm=Slurm(environment={"SLURM_CONF": configuration}))
rows = tuple(Row(node=node, incarnation="1", chips=(0,), first_rank=place, rank_count=1)
             for place, node in enumerate(("n1", "n2")))
launch = Launch(attempt=AttemptId(7, int(epoch)), name="gang", rows=rows, directory="/",
                argv=("sh", "-c", f"echo $RANK >> {runs}; sleep 0.3"))
print("ordered", flush=True)
engine.start(launch, ["n1", "n2"])
time.sleep(60)
"""


@pytest.mark.parametrize("instant_s", [0.0, 0.004, 0.012, 0.05, 0.6])
def test_a_driver_killed_at_any_instant_starts_once(cluster, tmp_path, instant_s):
    state, runs = tmp_path / "state", tmp_path / "runs"
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(state), cluster.slurm.environment["SLURM_CONF"], "20",
                               str(runs)], stdout=subprocess.PIPE)
    assert driver.stdout.readline() == b"ordered\n"
    time.sleep(instant_s)
    driver.kill()
    driver.wait()
    driver.stdout.close()
    engine = SlurmEngine(state, slurm=cluster.slurm, terms=TERMS)
    launch = launch_of(engine, 20, [("n1", (0,), 1), ("n2", (0,), 1)], "sh", "-c", f"echo $RANK >> {runs}; sleep 0.3")
    begin(engine, launch)
    wait_for(engine, launch, Phase.EXITED, 25)
    wait_until(lambda: all(job.over for job in cluster.slurm.jobs()), "every job is over")
    assert sorted(runs.read_text().split()) == ["0", "1"]
    engine.close()


def test_a_new_driver_finds_what_runs(cluster, engine, tmp_path):
    launch = launch_of(engine, 9, [("n1", (0,), 1), ("n3", (0,), 1)], "sleep", "60")
    begin(engine, launch)
    pids = {task.ranks[0].pid for task in wait_for(engine, launch, Phase.RUNNING).values()}
    engine.close()
    again = SlurmEngine(tmp_path / "state", slurm=cluster.slurm, terms=TERMS)
    assert {task.ranks[0].pid for task in wait_for(again, launch, Phase.RUNNING, 0.1).values()} == pids
    end_all(again)
    again.close()


def test_rows_are_started_and_stopped_one_by_one(engine):
    launch = launch_of(engine, 10, [("n1", (0,), 1), ("n2", (0,), 1)], "sleep", "60")
    engine.start(launch, ["n2"])
    wait_until(lambda: [task.phase for task in tasks_of(engine, launch).values()] == [Phase.RUNNING], "n2 alone")
    begin(engine, launch)
    wait_for(engine, launch, Phase.RUNNING)
    engine.stop(launch.attempt, ["n1"], 0)
    wait_until(lambda: tasks_of(engine, launch)["n1"].phase == Phase.GONE, "n1 gone")
    assert tasks_of(engine, launch)["n2"].phase == Phase.RUNNING
    engine.stop(launch.attempt, ["n2"], 0)
    wait_for(engine, launch, Phase.GONE)


def test_a_job_that_an_operator_cancels_is_gone(cluster, engine):
    launch = launch_of(engine, 11, [("n1", (0,), 1), ("n2", (0,), 1)], "sleep", "60")
    begin(engine, launch)
    wait_for(engine, launch, Phase.RUNNING)
    cluster.slurm.cancel([job.number for job in cluster.slurm.jobs() if not job.over])
    wait_for(engine, launch, Phase.GONE)


def seen(engine, node):
    return next(one for one in engine.observe(time.monotonic_ns()).nodes if one.name == node)


def silent(engine, node, for_s: float) -> bool:
    return time.monotonic_ns() - seen(engine, node).heard_ns > for_s * 1e9


def test_an_operators_drain_lets_finish_and_then_falls_silent(cluster, engine):
    launch = launch_of(engine, 12, [("n2", (0,), 1)], "sleep", "60")
    begin(engine, launch)
    wait_for(engine, launch, Phase.RUNNING)
    cluster.scontrol("update", "NodeName=n2", "State=DRAIN", "Reason=fan is loud")
    try:
        reason = wait_until(lambda: engine.drains().get("n2"), "the drain is seen")
        assert reason.startswith("fan is loud")
        time.sleep(1.2)
        assert not silent(engine, "n2", 1.0)
        engine.stop(launch.attempt, ["n2"], 0)
        wait_for(engine, launch, Phase.GONE)
        wait_until(lambda: silent(engine, "n2", 1.0), "silent once nothing runs")
        engine.fence("n2")
        wait_until(lambda: seen(engine, "n2").fenced, "fenced")
        assert cluster.nodes()["n2"].reason.startswith("fan is loud")
    finally:
        cluster.scontrol("update", "NodeName=n2", "State=RESUME")
    wait_until(lambda: seen(engine, "n2").incarnation == "2" and not silent(engine, "n2", 1.0), "back")


def test_an_engine_that_is_deaf_accuses_nobody(cluster, engine):
    launch = launch_of(engine, 13, [("n1", (0,), 1)], "sleep", "3")
    begin(engine, launch)
    wait_for(engine, launch, Phase.RUNNING)
    cluster.stop("slurmctld")
    time.sleep(2.5)
    assert not any(silent(engine, node, 1.5) for node in ("n1", "n2", "n3"))
    wait_for(engine, launch, Phase.EXITED)   # heard through the launcher's files
    cluster.start_controller()
    wait_until(lambda: engine._view.trouble == "", "Slurm answers again")


def test_a_lost_node_is_fenced_and_the_gang_runs_elsewhere(cluster, engine, tmp_path):
    launch = launch_of(engine, 14, [("n3", (0, 1), 2), ("n1", (0,), 1)], "sleep", "60")
    begin(engine, launch)
    tasks = wait_for(engine, launch, Phase.RUNNING)
    pids = [rank.pid for rank in tasks["n3"].ranks]
    cluster.kill_node("n3")
    died_s = time.monotonic()
    wait_until(lambda: silent(engine, "n3", 2.0), "silence")
    print(f"silent for 2 s after {time.monotonic() - died_s:.1f} s")
    assert not seen(engine, "n3").fenced
    engine.fence("n3")
    wait_until(lambda: seen(engine, "n3").fenced, "fenced")
    print(f"fenced after {time.monotonic() - died_s:.1f} s")
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert tasks_of(engine, launch)["n3"].phase == Phase.GONE
    engine.stop(launch.attempt, ["n1", "n3"], 0)
    wait_for(engine, launch, Phase.GONE)
    again = launch_of(engine, 15, [("n4", (0, 1), 2), ("n1", (0,), 1)], "true")
    begin(engine, again)
    wait_for(engine, again, Phase.EXITED)
    cluster.start_node("n3")
    wait_until(lambda: seen(engine, "n3").incarnation == "2" and not silent(engine, "n3", 1.0), "n3 is back", 20)
    third = launch_of(engine, 16, [("n3", (0, 1), 2)], "true")
    begin(engine, third)
    wait_for(engine, third, Phase.EXITED)
