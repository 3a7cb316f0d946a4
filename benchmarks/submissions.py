"""How many submissions a second are acknowledged over HTTP, and how long each waits: `serried up` on SQLite.

The control plane is a process of its own with an engine that never starts anything, so that what is measured is the
door, the reconciler and the disk. First as many as 16 clients can send, then a steady rate.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from serried.api.endpoint import Endpoint, find_endpoint
from serried.errors import NoAnswer

_CLIENTS = 16
_BODY = json.dumps({"command": ["python", "train.py"], "workers": 4, "memory": "2 GiB", "directory": "/srv"}).encode()

_SERVER = """
import sys
from pathlib import Path
from serried.api import service
from serried.control.charter import Charter
from serried.runners import Node, NodeSeen, Observation

class Idle:
    name = "idle"
    def nodes(self): return tuple(Node(name=f"n{n}", kind="virtual", chip_count=8) for n in range(8))
    def observe(self, now_ns): return Observation(nodes=tuple(
        NodeSeen(name=f"n{n}", incarnation="1", heard_ns=now_ns) for n in range(8)))
    def start(self, *_): ...
    def stop(self, *_): ...
    def fence(self, *_): ...
    def forget(self, *_): ...
    def log_path(self, *_): return ""
    def close(self): ...

service._engine_of = lambda order, ledger: (Idle(), Charter(nodes=Idle().nodes()))
service.run_service(service.Order(state=Path(sys.argv[1])))
"""


def measure(seconds: float = 10.0, rate_per_s: float = 200.0) -> dict[str, float]:
    """Rates and waits; needs the extra `control`."""
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen([sys.executable, "-c", _SERVER, folder])
        try:
            endpoint = _ready(Path(folder))
            steady = _run(endpoint, seconds, rate_per_s)
            most = _run(endpoint, seconds, float("inf"))
        finally:
            server.terminate()
            server.wait()
    return {"steady_per_s": len(steady) / seconds, "steady_p50_s": float(np.quantile(steady, 0.5)),
            "steady_p99_s": float(np.quantile(steady, 0.99)), "most_per_s": len(most) / seconds,
            "most_p50_s": float(np.quantile(most, 0.5)), "most_p99_s": float(np.quantile(most, 0.99))}


def _ready(folder: Path) -> Endpoint:
    for _ in range(600):
        try:
            return find_endpoint(folder)
        except NoAnswer:
            time.sleep(0.1)
    raise TimeoutError("the control plane does not begin")


def _run(endpoint: Endpoint, seconds: float, rate_per_s: float) -> list[float]:
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


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:14} {value:10.4f}")
