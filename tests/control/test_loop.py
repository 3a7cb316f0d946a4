"""The loop: its thread, its answers, and a ledger that is lost and found."""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest

from serried.control.charter import Charter
from serried.control.ledger import LedgerLost, MemoryLedger
from serried.control.loop import ControlLoop, SteadyClock
from serried.control.spec import JobPhase, JobSpec
from serried.errors import BadInput
from serried.runners import Node
from tests.control.world import World, WorldEngine

NODES = tuple(Node(name=f"n{place}", kind="chip", chip_count=4, switches={"switch": "s"}) for place in range(2))
SPEC = JobSpec(name="one", argv=("work",), workers=2, environment={"LIFE_S": "0.4", "FAILS": ""})


class Wire(MemoryLedger):
    """A ledger whose wire can be cut, before or after a transaction."""

    cut = ""

    def append(self, records):
        if self.cut == "before":
            raise LedgerLost("cut")
        super().append(records)
        if self.cut == "after":
            raise LedgerLost("cut")

    def read(self, after=-1):
        if self.cut:
            raise LedgerLost("cut")
        return super().read(after)


@pytest.fixture
def world():
    """A world without trouble whose time is the real one."""
    world, stop = World(1, NODES, trouble=0.0, now_ns=time.time_ns()), threading.Event()

    class Engine(WorldEngine):
        def observe(self, now_ns):
            world.advance(now_ns)
            return super().observe(now_ns)
    yield Engine(world)
    stop.set()


@pytest.fixture
def live(world):
    ledger = Wire()
    loop = ControlLoop(ledger, world, Charter(nodes=NODES))
    loop.start()
    yield loop, ledger
    loop.stop()


def _until(holds, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_a_job_goes_its_way(live):
    loop, _ = live
    number = loop.submit(SPEC, "key").result(10)
    assert loop.submit(SPEC, "key").result(10) == number
    _until(lambda: loop.job(number).result(10).phase == JobPhase.SUCCEEDED)
    view = loop.job(number).result(10)
    assert (view.outcome, view.restarts, view.chip_count) == ("", 0, 2)
    assert view.submitted_s < view.started_s < view.ended_s
    told = [one["record"] for one in loop.history(number).result(10)]
    assert told == ["event", "event", "running", "event", "closed"]
    assert loop.usage().result(10).jobs_by_phase == {"succeeded": 1}
    assert len(loop.records().result(10)) == 6
    assert [one.number for one in loop.jobs(phase="succeeded").result(10)] == [0]


def test_questions_that_cannot_be_answered(live):
    loop, _ = live
    for ask in (lambda: loop.job(3), lambda: loop.cancel(0), lambda: loop.why(-1), lambda: loop.drain("x"),
                lambda: loop.submit(JobSpec(name="a", argv=("b",), tenant="nobody")),
                lambda: loop.submit(JobSpec(name="a", argv=("b",), chips=("gpu",)))):
        with pytest.raises(BadInput) as refused:
            ask().result(10)
        assert refused.value.remedy
    loop.submit(SPEC, "key").result(10)
    with pytest.raises(BadInput, match="became job 0"):
        loop.submit(JobSpec(name="other", argv=("b",)), "key").result(10)


EXTREMES = {"workers": (1, 32_000), "chips_per_worker": (0, 64), "priority": (-30_000, 30_000),
            "runtime_s": (0.0, 1e9), "memory_bytes": (0, 2**60), "cpu_cores": (0.0, 1e4), "share": (1e-3, 1.0)}


@pytest.mark.parametrize("field", EXTREMES)
def test_figures_that_no_column_can_hold_are_refused_and_all_others_are_not(live, field):
    loop, _ = live
    least, most = EXTREMES[field]
    for value in (least, most):
        number = loop.submit(dataclasses.replace(SPEC, **({"workers": 1} | {field: value}))).result(10)
        assert loop.job(number).result(10).number == number
    for value in (least - 1, most * 10 + 1):
        with pytest.raises(BadInput, match=field):
            loop.submit(dataclasses.replace(SPEC, **({"workers": 1} | {field: value}))).result(10)
    assert loop.counters().result(10).get("ledger_lost", 0) == 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_ledger_loses_nothing_and_doubles_nothing(live, when):
    loop, ledger = live
    ledger.cut = when
    with pytest.raises(LedgerLost):
        loop.submit(SPEC, "key").result(10)
    with pytest.raises(LedgerLost):
        loop.jobs().result(10)
    ledger.cut = ""
    _until(lambda: not loop.jobs().exception(10))
    assert loop.submit(SPEC, "key").result(10) == 0
    assert [one.number for one in loop.jobs().result(10)] == [0]
    _until(lambda: loop.job(0).result(10).phase == JobPhase.SUCCEEDED)


def test_why_a_job_waits(live):
    loop, _ = live
    big = loop.submit(JobSpec(name="big", argv=("work",), workers=99)).result(10)
    assert loop.why(big).result(10).reason == "impossible"
    loop.drain("n0", "fan").result(10)
    loop.drain("n1", "fan").result(10)
    waits = loop.submit(SPEC).result(10)
    assert loop.why(waits).result(10).reason == "chips"
    assert {one.state for one in loop.nodes().result(10)} == {"draining"}
    loop.open("n0").result(10)
    _until(lambda: loop.job(waits).result(10).phase == JobPhase.SUCCEEDED)


def test_time_never_goes_back(monkeypatch):
    clock = SteadyClock()
    before_ns = clock.now_ns()
    monkeypatch.setattr(time, "time_ns", lambda: 1)
    assert clock.now_ns() >= before_ns
    clock.reach(before_ns + 10**15)
    assert clock.now_ns() >= before_ns + 10**15
    clock.reach(5)
    assert clock.now_ns() >= before_ns + 10**15
