"""The application before the real control loop: held to its document, and to its promises when the database goes."""

from __future__ import annotations

import random
import threading
import time

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import checks

from serried.api.application import application
from serried.control.charter import Charter
from serried.control.job_form import read_form, spec_of
from serried.control.ledger import MemoryLedger
from serried.control.ledger_sql import SqlLedger
from serried.control.loop import ControlLoop
from serried.control.spec import JobSpec
from serried.errors import BadInput
from serried.runners import Node, NodeSeen, Observation
from tests.api.test_application import JOB, TOKEN, Caller
from tests.control.test_ledger_sql import server

__all__ = ["server"]   # a fixture
NODES = tuple(Node(name=f"n{number}", kind="virtual", chip_count=8) for number in range(4))


class Idle:
    """An engine whose nodes live and which never gets round to starting anything."""

    name = "idle"

    def nodes(self):
        return NODES

    def observe(self, now_ns):
        return Observation(nodes=tuple(NodeSeen(name=node.name, incarnation="1", heard_ns=now_ns) for node in NODES))

    def log_path(self, attempt, rank):
        return "/nonexistent"

    def _nothing(self, *_):
        return None

    start = stop = fence = forget = close = _nothing


@pytest.fixture
def loop(request):
    ledger = getattr(request, "param", MemoryLedger)()
    found = ControlLoop(ledger, Idle(), Charter(nodes=NODES))
    found.start()
    yield found
    found.stop()
    ledger.close()


class Late:
    """A control loop with three jobs, which begins only when it is first asked for something."""

    def __init__(self) -> None:
        self.loop: ControlLoop | None = None

    def __getattr__(self, name):
        if self.loop is None:
            self.loop = ControlLoop(MemoryLedger(), Idle(), Charter(nodes=NODES))
            self.loop.start()
            for number in range(3):
                self.loop.submit(JobSpec(name=f"job {number}", argv=("true",))).result()
        return getattr(self.loop, name)


late = Late()
schema = schemathesis.openapi.from_asgi("/openapi.json", application(late, TOKEN)).exclude(
    path_regex="logs")   # of jobs that never start, which can be followed for ever


@pytest.fixture(scope="module", autouse=True)
def _ends():
    yield
    if late.loop is not None:
        late.loop.stop()


@schema.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_asked_is_answered_as_the_document_says(case):
    case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"},
                           excluded_checks=[checks.positive_data_acceptance])


EXTREMES = {
    "workers": (1, 2, 7, 32_000), "chips_per_worker": (1, 3, 8, 64), "cpus": (0, 0.0004, 10_000),
    "share": (1, 0.0001, 1e-300), "memory": (0, 1, 2**60), "priority": (-30_000, 0, 30_000), "retries": (0, 10**6),
    "backoff": (0, 1e-12, 1e9), "grace": (0, 1e9), "runtime": (0, 1e-12, 1e9),
    "chips": ([], ["virtual"], ["virtual"] * 2, ["none"]),
    "topology": ({}, {"island_workers": 32_000}, {"island_workers": 1}, {"level": "none"}),
    "health": ({}, {"heartbeat": 1e9, "start": 0, "straggler_ratio": 1000}),
    "limits": ({}, {"open_files": 2**31, "memory": 2**60, "core": 2**60})}


@pytest.mark.parametrize("seed", range(4))
def test_no_job_that_the_door_takes_brings_the_loop_down(loop, seed):
    """A step that fails answers everybody with LedgerLost, and would again whenever that job is asked for again."""
    chance = random.Random(seed)
    for _ in range(60):
        chosen = chance.sample(sorted(EXTREMES), chance.randint(1, 6))
        form = {"command": ["true"], **{name: chance.choice(EXTREMES[name]) for name in chosen}}
        try:
            number = loop.submit(spec_of(read_form(form))).result(20)
            loop.why(number).result(20)
            if chance.random() < 0.5:
                loop.cancel(number).result(20)
        except BadInput:
            continue
    assert loop.usage().result(20).records > 10


def test_a_repeat_is_told_from_a_first_time_in_every_life(loop):
    for life in range(2):
        call = Caller(loop)
        for number in range(3):
            answer = call("POST", "/v1/jobs", json=JOB, headers={"Idempotency-Key": f"key-{number}"})
            assert (answer.status_code, answer.json()["job"]) == (200 if life else 201, number)
    assert Caller(loop)("POST", "/v1/jobs", json=JOB | {"workers": 3},
                        headers={"Idempotency-Key": "key-0"}).status_code == 422


def test_what_is_not_there_is_not_found(loop):
    call = Caller(loop)
    for path in ("/v1/jobs/0", "/v1/jobs/0/why", "/v1/jobs/0/history", "/v1/jobs/0/logs"):
        assert call("GET", path).status_code == 404, path
    for path in ("/v1/jobs/0/cancel", "/v1/nodes/none/drain", "/v1/nodes/none/open"):
        assert call("POST", path).status_code == 404, path
    call("POST", "/v1/jobs", json=JOB | {"workers": 99})
    assert call("GET", "/v1/jobs/0/logs").status_code == 409
    assert call("POST", "/v1/jobs", json=JOB | {"tenant": "nobody"}).status_code == 422


def test_a_database_that_goes_and_comes_back(server):
    """While it is away every submission is told to wait; asked again under their keys, all are there once."""
    ledger = SqlLedger(server.new())
    loop = ControlLoop(ledger, Idle(), Charter(nodes=NODES))
    loop.start()
    call, told, refused = Caller(loop), {}, []

    def submit(which: int) -> None:
        for number in range(40):
            key, status = f"{which}-{number}", 0
            while status not in (200, 201):
                answer = call("POST", "/v1/jobs", json=JOB, headers={"Idempotency-Key": key})
                status = answer.status_code
                assert status in (200, 201, 503), answer.text
                if status == 503:
                    refused.append(key)
                    time.sleep(0.05)
            told[key] = answer.json()["job"]

    clients = [threading.Thread(target=submit, args=(which,)) for which in range(3)]
    for client in clients:
        client.start()
    while len(told) < 10:
        time.sleep(0.01)
    server.stop()
    while not refused:
        time.sleep(0.01)
    server.start()
    for client in clients:
        client.join(60)
    assert len(told) == 120
    assert sorted(told.values()) == list(range(120)), "each of them once"
    assert len({*refused}) > 0
    loop.stop()
    ledger.close()
