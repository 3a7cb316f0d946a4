"""How fast is the live fleet? `serried up` as anybody starts it: SQLite, the local engine, real processes.

Submissions over HTTP at a steady rate while jobs start and end as fast as eight chips let them; the start of a gang of
four ranks; and how soon a rank that was killed is followed by the decision to start its gang again.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import Row
from serried.api.client import Client
from serried.api.endpoint import Endpoint, find_endpoint
from serried.control.spec import JobPhase, JobSpec

_CLIENTS = 16
_NODES = """
[[node]]
name = "node-{n}"
count = 2
kind = "cpu"
chips = 4
"""
_BODY = json.dumps({"command": ["true"], "workers": 1}).encode()
_GANG = JobSpec(name="gang", argv=("sleep", "1000"), workers=4, backoff_s=0.0, grace_s=0.0)


def run(*, seconds: float = 15.0, rate_per_s: float = 210.0, gangs: int = 20) -> list[Row]:
    """Rates and waits; needs the extra `control`."""
    with _live() as state, Client(state=state) as client:
        start_s = [_start_s(client) for _ in range(gangs)]
        decision_s = [_decision_s(client) for _ in range(gangs)]
        waits = _send(find_endpoint(state), seconds, rate_per_s)
        done = client.usage().jobs_by_phase.get("succeeded", 0)
    with _live() as state:
        most = _send(find_endpoint(state), seconds, float("inf"))
    p99_s, reached_per_s = float(np.quantile(waits, 0.99)), len(waits) / seconds
    return [
        Row(name="gang of 4 ranks, submit to all running, median", value=float(np.median(start_s)), unit="s",
            bar="<= 0.25 s", met=np.median(start_s) <= 0.25),
        Row(name="rank killed to decision to restart, worst", value=max(decision_s), unit="s", bar="<= 1 s",
            met=max(decision_s) <= 1),
        Row(name=f"submissions acknowledged at {rate_per_s:g}/s, jobs running", value=reached_per_s, unit="1/s",
            bar=">= 200/s", met=reached_per_s >= 200),
        Row(name="  wait, median", value=float(np.median(waits)), unit="s"),
        Row(name="  wait, 99 %", value=p99_s, unit="s", bar="<= 0.05 s", met=p99_s <= 0.05),
        Row(name="  one-chip jobs that ended meanwhile, on 8 chips", value=done / seconds, unit="1/s"),
        Row(name=f"submissions acknowledged, {_CLIENTS} clients that never pause", value=len(most) / seconds,
            unit="1/s"),
        Row(name="  wait, 99 %", value=float(np.quantile(most, 0.99)), unit="s")]


@contextmanager
def _live() -> Iterator[Path]:
    """A control plane with two nodes of four virtual chips."""
    with tempfile.TemporaryDirectory() as folder:
        nodes, state = Path(folder) / "nodes.toml", Path(folder) / "state"
        nodes.write_text(_NODES, encoding="utf-8")
        _serried("up", "--background", "--state", str(state), "--nodes", str(nodes))
        try:
            with Client(state=state) as client:
                _until(lambda: {node.state for node in client.nodes()} == {"up"})
            yield state
        finally:
            _serried("down", "--jobs", "--state", str(state))


def _serried(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "serried.cli", *words], check=True, stdout=subprocess.DEVNULL, timeout=200)


def _until(holds: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline_s = time.perf_counter() + seconds
    while not (found := holds()):
        if time.perf_counter() > deadline_s:
            raise TimeoutError("it does not happen")
        time.sleep(0.002)
    return found


def _start_s(client: Client) -> float:
    """From before the request until the control plane says that all ranks run."""
    began_s = time.perf_counter()
    number = client.submit(_GANG)
    _until(lambda: client.job(number).phase == JobPhase.RUNNING)
    took_s = time.perf_counter() - began_s
    _end(client, number)
    return took_s


def _decision_s(client: Client) -> float:
    """From SIGKILL of a rank until another attempt is written down."""
    number = client.submit(_GANG)
    _until(lambda: client.job(number).phase == JobPhase.RUNNING)
    view = client.job(number)
    began_s = time.perf_counter()
    os.kill(view.ranks[2].pid, signal.SIGKILL)
    _until(lambda: client.job(number).epoch != view.epoch)
    took_s = time.perf_counter() - began_s
    _end(client, number)
    return took_s


def _end(client: Client, number: int) -> None:
    client.cancel(number)
    _until(lambda: client.job(number).phase == JobPhase.CANCELLED)


def _send(endpoint: Endpoint, seconds: float, rate_per_s: float) -> list[float]:
    """Seconds that each acknowledged submission waited, from when it was due."""
    begin_s = time.perf_counter() + 0.2
    waits: list[list[float]] = [[] for _ in range(_CLIENTS)]

    def client(which: int) -> None:
        host, port = endpoint.url.removeprefix("http://").rsplit(":", 1)
        line = http.client.HTTPConnection(host, int(port))
        sent = 0
        while True:
            due_s = begin_s + (which + sent * _CLIENTS) / rate_per_s
            now_s = time.perf_counter()
            if max(now_s, due_s) >= begin_s + seconds:
                return
            if due_s > now_s:
                time.sleep(due_s - now_s)
            asked_s = time.perf_counter() if rate_per_s == float("inf") else due_s
            line.request("POST", "/v1/jobs", _BODY, {"Authorization": f"Bearer {endpoint.token}",
                                                     "Idempotency-Key": f"{rate_per_s}-{which}-{sent}"})
            answer = line.getresponse()
            answer.read()
            assert answer.status == 201, answer.status
            waits[which].append(time.perf_counter() - asked_s)
            sent += 1

    threads = [threading.Thread(target=client, args=(which,)) for which in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [wait for found in waits for wait in found]

