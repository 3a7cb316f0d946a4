"""A real Slurm cluster run by the control plane: gangs, a drained node, a killed node, and all of it retraced."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from serried.control.charter import Charter
from serried.control.history import check_history
from serried.control.ledger import MemoryLedger
from serried.control.loop import ControlLoop
from serried.control.retrace import retrace
from serried.control.spec import JobPhase, JobSpec
from serried.runners.slurm import SlurmEngine
from tests.runners.slurm_cluster import cluster, wait_until
from tests.runners.test_slurm import TERMS

__all__ = ["cluster"]

SLEEP = (sys.executable, "-c", "import time; time.sleep(300)")


@pytest.fixture
def live(cluster, tmp_path):
    """A control plane over four nodes of 4, 4, 2 and 2 chips."""
    engine = SlurmEngine(tmp_path / "state", slurm=cluster.slurm, terms=TERMS)
    ledger = MemoryLedger()
    loop = ControlLoop(ledger, engine, Charter(nodes=engine.nodes()))
    engine.on_change = loop.wake
    loop.start()
    wait_until(lambda: {node.state for node in loop.nodes().result(10)} == {"up"}, "every node up", 30)
    yield loop
    for job in loop.jobs(limit=1000).result(10):
        loop.cancel(job.number).result(10)
    wait_until(lambda: not loop.counters().result(10)["open_attempts"], "everything is over", 60)
    loop.stop()
    engine.close()
    assert check_history(ledger.records) > 0
    assert retrace(ledger.records) > 0


def _nodes(loop, number):
    return {rank.node for rank in loop.job(number).result(10).ranks}


def _wait(loop, number, phase, within_s=60.0):
    wait_until(lambda: loop.job(number).result(10).phase == phase, f"job {number} is {phase}", within_s)


def test_gangs_run_and_a_node_is_drained(live):
    quick = (sys.executable, "-c", "pass")
    wide = live.submit(JobSpec(name="wide", argv=quick, workers=3, chips_per_worker=3)).result(10)
    assert live.why(wide).result(10).reason == "impossible", "two nodes have as many chips"
    live.cancel(wide).result(10)
    short = live.submit(JobSpec(name="short", argv=quick, workers=6)).result(10)
    _wait(live, short, JobPhase.SUCCEEDED)
    gang = live.submit(JobSpec(name="gang", argv=SLEEP, workers=2, chips_per_worker=2, grace_s=0.5)).result(10)
    _wait(live, gang, JobPhase.RUNNING)
    node = min(_nodes(live, gang))
    live.drain(node, "a fan is loud").result(10)
    wait_until(lambda: node not in _nodes(live, gang) and live.job(gang).result(10).phase == JobPhase.RUNNING,
               "the gang left the node", 60)
    live.open(node).result(10)


def test_a_killed_node_is_fenced_and_its_rows_replaced(live, cluster):
    gang = live.submit(JobSpec(name="gang", argv=SLEEP, workers=2, chips_per_worker=2, retries=0)).result(10)
    _wait(live, gang, JobPhase.RUNNING)
    before = live.job(gang).result(10)
    lost = before.ranks[-1].node   # not the first, on which Slurm runs the batch script of all
    stay = _nodes(live, gang) - {lost}
    cluster.kill_node(lost)
    wait_until(lambda: live.job(gang).result(10).epoch != before.epoch, "another attempt is called for", 60)
    _wait(live, gang, JobPhase.RUNNING)
    after = live.job(gang).result(10)
    assert lost not in _nodes(live, gang)
    assert stay <= _nodes(live, gang), "the rest of the gang stays"
    assert after.retries_left == 0, "it was not the job's doing"
    assert next(node.state for node in live.nodes().result(10) if node.name == lost) == "down"
    cluster.start_node(lost)
    wait_until(lambda: {node.state for node in live.nodes().result(10)} == {"up"}, "the node is back", 60)


def test_from_the_command_line(cluster, tmp_path):
    """`serried up --engine slurm`, a gang, its output, and its end."""
    state, job = tmp_path / "state", tmp_path / "job.toml"
    job.write_text(f'command = ["{sys.executable}", "-c", "import os; print(\'rank\', os.environ[\'RANK\'])"]\n'
                   "workers = 3\n")

    def serried(*words):
        return subprocess.run([sys.executable, "-m", "serried.cli", *words, "--state", str(state)], check=True,
                              env={**os.environ, **cluster.slurm.environment}, capture_output=True, text=True,
                              timeout=120).stdout
    serried("up", "--background", "--engine", "slurm")
    try:
        assert "slurm" in serried("top", "--once")
        serried("submit", str(job))
        assert serried("logs", "0", "--rank", "2", "-f") == "rank 2\n"
        wait_until(lambda: "succeeded" in serried("jobs"), "it succeeded", 60)
        assert "no chip was ever held twice" in serried("fleet", "retrace")
    finally:
        serried("down")
