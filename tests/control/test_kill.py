"""The real process, killed with SIGKILL again and again while clients submit: nothing acknowledged is lost, nothing
runs twice, no chip is held by two, and the simulator decides the whole ledger in the same way."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import pytest

from serried.api.client import Client
from serried.api.endpoint import find_endpoint
from serried.control.history import check_history
from serried.control.ledger_sql import SqlLedger
from serried.control.retrace import retrace
from serried.control.spec import JobPhase, JobSpec

DIARY = Path(__file__).with_name("rank_diary.py")
NODES = """
[[node]]
name = "n{n}"
count = 3
kind = "cpu"
chips = 4
"""
FINAL = (JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.CANCELLED)


def _serried(*words: str) -> list[str]:
    return [sys.executable, "-m", "serried.cli", *words]


class Plane:
    """A control plane on a state directory, and a hand on its process."""

    def __init__(self, state: Path, nodes: Path) -> None:
        self.state, self.nodes = state, nodes
        self.process: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        with (self.state.parent / "up.log").open("ab") as log:
            self.process = subprocess.Popen(_serried("up", "--state", str(self.state), "--nodes", str(self.nodes)),
                                            stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while not self._answers():
            assert time.monotonic() < deadline, (self.state.parent / "up.log").read_text()
            assert self.process.poll() is None, (self.state.parent / "up.log").read_text()
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return find_endpoint(self.state).pid == self.process.pid
        except Exception:
            return False

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def plane(tmp_path):
    nodes = tmp_path / "nodes.toml"
    nodes.write_text(NODES)
    found = Plane(tmp_path / "state", nodes)
    yield found
    subprocess.run(_serried("down", "--state", str(found.state), "--jobs"), check=False, capture_output=True,
                   timeout=60)
    if found.process is not None:
        found.process.wait(30)


def _submitting(plane: Plane, diaries: Path, told: dict[str, int], count: int, seed: int) -> None:
    """A client that asks until it is answered, under one key a job."""
    chance = random.Random(seed)
    for number in range(count):
        key = f"{seed}-{number}"
        spec = JobSpec(name=key, argv=(sys.executable, str(DIARY), str(diaries), f"{chance.uniform(0.1, 1.5):.2f}"),
                       workers=chance.choice((1, 2, 4, 6)), retries=0, grace_s=0.5)
        while key not in told:
            try:
                with Client(state=plane.state, patience_s=1.0) as client:
                    told[key] = client.submit(spec, key)
            except Exception:
                time.sleep(0.05)
        time.sleep(chance.uniform(0, 0.1))


def test_kill_nine_at_any_instant(plane, tmp_path):
    diaries, told, chance = tmp_path / "diaries", {}, random.Random(5)
    diaries.mkdir()
    plane.up()
    clients = [threading.Thread(target=_submitting, args=(plane, diaries, told, 12, seed)) for seed in range(3)]
    for client in clients:
        client.start()
    for _ in range(6):
        time.sleep(chance.uniform(0.1, 1.0))
        plane.kill()
        plane.up()
    for client in clients:
        client.join()
    with Client(state=plane.state) as client:
        jobs = _ended(client, len(told))
        assert sorted(told.values()) == [job.number for job in jobs], "every acknowledged job is there, once"
        assert {told[job.name] for job in jobs} == {job.number for job in jobs}
        assert {job.phase for job in jobs} == {JobPhase.SUCCEEDED}, [job.outcome for job in jobs]
        assert all(job.restarts == 0 for job in jobs), "what ran was adopted, not started again"
    _judge_diaries(diaries)
    plane.kill()
    ledger = SqlLedger(f"sqlite:///{plane.state / 'ledger.db'}")
    records = list(ledger.read())
    ledger.close()
    assert 0 < check_history(records) <= len(told), "a short one may have ended while nobody looked"
    assert retrace(records) >= len(told)


def _ended(client: Client, count: int):
    deadline = time.monotonic() + 120
    while True:
        jobs = client.jobs(limit=1000)
        if len(jobs) >= count and all(job.phase in FINAL for job in jobs):
            return jobs
        assert time.monotonic() < deadline, [(job.number, job.phase) for job in jobs]
        time.sleep(0.1)


def _judge_diaries(diaries: Path) -> None:
    """From what the ranks themselves wrote: each ran once, and no two on one chip at one time."""
    assert not list(diaries.glob("*.doubled"))
    spans = defaultdict(list)
    ranks = defaultdict(int)
    for path in diaries.iterdir():
        words = json.loads(path.read_text())
        attempt = path.name.rpartition("-")[0]
        ranks[attempt, int(words["world"])] += 1
        for chip in words["chips"].split(","):
            spans[words["node"], chip].append((words["began"], words["alive"], path.name))
    assert all(count == world for (_, world), count in ranks.items()), "gangs are whole"
    for chip, held in spans.items():
        held.sort()
        for (_, until, one), (since, _, other) in itertools.pairwise(held):
            assert until <= since, f"{one} and {other} held chip {chip} at once"
