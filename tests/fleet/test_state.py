"""The state is a fold over its log; it refuses what breaks a law and then changes nothing."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from serried.errors import BadInput, NoAnswer
from serried.fleet import Event, EventKind, JobStatus, Tenant, replay
from serried.fleet.columns import slots_of
from serried.fleet.legality import LAWS
from serried.fleet.log_text import events_of, lines_of
from serried.fleet.spec import FAR_NS
from serried.fleet.state import State
from tests.fleet.examples import HOUR_NS, gang, happen, on, share, small_fleet, submit


def a_history() -> State:
    """One of everything that can happen."""
    state = State(small_fleet(tenants=(Tenant(name="top"), Tenant(name="a", parent=0)), half_life_ns=HOUR_NS))
    first = submit(state, gang(2), tenant=1, runtime_ns=HOUR_NS)
    second = submit(state, share(300, cpu_milli=1000, memory_bytes=2**30), priority=3)
    third = submit(state, gang(1, 2))
    happen(state, EventKind.PLACE, first, placement=on([0, 1]), time_ns=10)
    happen(state, EventKind.PLACE, second, placement=on([2], 0b1), time_ns=20)
    happen(state, EventKind.PLACE, third, placement=on([2], 0b110), time_ns=20)
    happen(state, EventKind.SPARE, nodes=(7,))
    happen(state, EventKind.FAIL, nodes=(1,), time_ns=HOUR_NS)
    happen(state, EventKind.REPLACE, first, placement=on([0, 7]))
    happen(state, EventKind.FAIL, nodes=(2,), chips=0b10)
    happen(state, EventKind.EVICT, third, cause="failed")
    happen(state, EventKind.DRAIN, nodes=(3,))
    happen(state, EventKind.RESERVE, third, nodes=(4, 5), until_ns=3 * HOUR_NS)
    happen(state, EventKind.REPAIR, nodes=(1,))
    happen(state, EventKind.REPAIR, nodes=(2,), chips=0b10)
    happen(state, EventKind.OPEN, nodes=(3,))
    happen(state, EventKind.PLACE, third, placement=on([4], 0b11))
    happen(state, EventKind.MOVE, third, placement=on([5], 0b11), cause="defragmented")
    happen(state, EventKind.FINISH, first, time_ns=2 * HOUR_NS)
    happen(state, EventKind.CANCEL, second)
    return state


def test_the_log_gives_the_state_back_byte_for_byte():
    state = a_history()
    assert replay(state.fleet, state.log).digest() == state.digest()
    shorter = replay(state.fleet, state.log[:-1])
    assert shorter.digest() != state.digest()


def test_the_log_survives_as_text():
    state = a_history()
    lines = list(lines_of(state.log))
    assert replay(state.fleet, events_of(lines)).digest() == state.digest()
    assert json.loads(lines[0]) == {"schema": "serried/fleet-log/1"}


@pytest.mark.parametrize("line", ["", "{}", "[]", "nonsense", '{"time_ns": 1, "kind": "PARTY"}', '{"kind": "FAIL"}',
                                  '{"time_ns": 0, "kind": "SUBMIT", "request": {"name": "x", "shape": 7}}'])
def test_a_broken_log_line_is_named(line):
    with pytest.raises(BadInput, match="line 2"):
        list(events_of(['{"schema": "serried/fleet-log/1"}', line], file="log.jsonl"))


def test_counts_by_switch_follow_their_nodes():
    state = a_history()
    for kept, counted in zip(state.columns.slots_KSG, slots_of(state.fleet, state.columns.open_chips_N), strict=True):
        assert (kept == counted).all()


def test_a_gang_takes_and_gives_back_what_it_asks():
    """Two workers of 4 chips on nodes 0 and 1 of 8: 24 of 32 chips stay open, 6 of 8 slots of four."""
    state = State(small_fleet())
    job = submit(state, gang(2, cpu_milli=1000))
    happen(state, EventKind.PLACE, job, placement=on([0, 1]))
    assert state.columns.open_chips_N.sum() == 24
    assert state.columns.slots_KSG[-1][0, 0].tolist() == [24, 12, 6, 6]
    assert state.columns.slots_KSG[0][0, :, 3].tolist() == [0, 2, 2, 2]
    assert state.columns.cpu_free_milli_N[:3].tolist() == [63_000, 63_000, 64_000]
    assert state.snapshot().residents(0) == [job]
    happen(state, EventKind.FINISH, job)
    assert state.columns.free_milli_NC.sum() == 32_000
    assert (state.columns.owner_NC == -1).all()
    assert state.status_J[job] == JobStatus.DONE


def test_a_gang_that_asks_for_gigabytes_is_judged_by_them():
    state = State(small_fleet())
    many, one = gang(2, memory_bytes=2**37 + 1), gang(1, memory_bytes=2**38)
    happen(state, EventKind.PLACE, submit(state, many), placement=on([0, 1]))
    kept = submit(state, one)
    happen(state, EventKind.RESERVE, kept, nodes=(2,), until_ns=HOUR_NS)
    happen(state, EventKind.PLACE, kept, placement=on([2]))
    happen(state, EventKind.FAIL, nodes=(0,))
    happen(state, EventKind.REPLACE, 0, placement=on([1, 3]))
    for nodes, free in (([1, 3], 2**37 - 1), ([2], 0), ([0, 4], 2**38)):
        assert (state.columns.memory_free_bytes_N[nodes] == free).all()
    with pytest.raises(NoAnswer, match="not free"):
        happen(state, EventKind.PLACE, submit(state, gang(2, 1, memory_bytes=2**37)), placement=on([1, 4], 0b1))


@pytest.mark.parametrize(("nodes", "index"), [([3, 4, 5], slice(3, 6)), ([7], slice(7, 8)), ([3, 5], [3, 5]),
                                              ([4, 3], [4, 3]), ([3, 5, 4, 6], [3, 5, 4, 6])])
def test_nodes_side_by_side_are_a_slice(nodes, index):
    found = on(nodes).nodes
    assert found == index if isinstance(found, slice) else found.tolist() == index


def test_shares_of_one_chip_add_up():
    state = State(small_fleet())
    jobs = [submit(state, share(400)) for _ in range(3)]
    for job in jobs[:2]:
        happen(state, EventKind.PLACE, job, placement=on([0], 0b1))
    assert state.columns.free_milli_NC[0].tolist() == [200, 1000, 1000, 1000]
    assert state.columns.idle_chips_N[0] == 3
    with pytest.raises(NoAnswer, match="free"):
        happen(state, EventKind.PLACE, jobs[2], placement=on([0], 0b1))
    happen(state, EventKind.FINISH, jobs[0])
    assert state.jobs_on(0) == [jobs[1]]


def test_a_failed_node_breaks_its_gangs_and_only_those():
    state = State(small_fleet())
    near, far = submit(state, gang(2)), submit(state, gang(1))
    happen(state, EventKind.PLACE, near, placement=on([0, 1]))
    happen(state, EventKind.PLACE, far, placement=on([4]))
    happen(state, EventKind.FAIL, nodes=(1, 3))
    assert [JobStatus(status).name for status in state.status_J] == ["BROKEN", "RUNNING"]
    assert list(state.broken) == [near]
    assert state.columns.open_chips_N.tolist() == [0, 0, 4, 0, 0, 4, 4, 4]


def test_a_failed_chip_is_no_longer_offered():
    state = State(small_fleet())
    happen(state, EventKind.FAIL, nodes=(0,), chips=0b101)
    assert state.columns.open_chips_N[0] == 2
    job = submit(state, gang(1, 2))
    with pytest.raises(NoAnswer, match="down"):
        happen(state, EventKind.PLACE, job, placement=on([0], 0b11))
    happen(state, EventKind.PLACE, job, placement=on([0], 0b1010))
    happen(state, EventKind.REPAIR, nodes=(0,), chips=0b101)
    assert state.columns.open_chips_N[0] == 2


def test_when_a_node_will_be_idle_is_the_last_end_there():
    state = State(small_fleet())
    short, long = (submit(state, gang(1, 1), runtime_ns=hours * HOUR_NS) for hours in (1, 2))
    unknown = submit(state, gang(1, 1))
    for chip, job in enumerate((short, long, unknown)):
        happen(state, EventKind.PLACE, job, placement=on([0], 1 << chip))
    assert state.columns.busy_until_ns_N[0] == FAR_NS
    happen(state, EventKind.FINISH, unknown)
    assert state.columns.busy_until_ns_N[0] == 2 * HOUR_NS
    happen(state, EventKind.FINISH, long)
    happen(state, EventKind.FINISH, short)
    assert state.columns.busy_until_ns_N[0] == 0


def refused() -> dict[str, tuple[str, Event]]:
    """Events that break each law on the state of `before`, by what is wrong."""
    def event(kind, job=-1, **said):
        return Event(time_ns=said.pop("time_ns", 100), kind=kind, job=job, **said)

    return {
        "in the past": ("time", event(EventKind.FINISH, 0, time_ns=1)),
        "no request": ("request", event(EventKind.SUBMIT)),
        "a job that is not there": ("status", event(EventKind.FINISH, 99)),
        "finishing what waits": ("status", event(EventKind.FINISH, 1)),
        "placing what runs": ("status", event(EventKind.PLACE, 0, placement=on([4, 5]))),
        "moving what waits": ("status", event(EventKind.MOVE, 1, placement=on([4]))),
        "a node that is not there": ("nodes", event(EventKind.FAIL, nodes=(0, 8))),
        "no node": ("nodes", event(EventKind.DRAIN)),
        "half a gang": ("gang", event(EventKind.PLACE, 2, placement=on([4]))),
        "a node twice": ("gang", event(EventKind.PLACE, 2, placement=on([4, 4]))),
        "a node beyond": ("gang", event(EventKind.PLACE, 2, placement=on([4, 8]))),
        "too few chips": ("gang", event(EventKind.PLACE, 2, placement=on([4, 5], 0b111))),
        "another alternative": ("gang", event(EventKind.PLACE, 2, placement=on([4, 5], alternative=1))),
        "chips of others": ("capacity", event(EventKind.PLACE, 2, placement=on([0, 4]))),
        "chips that no node has": ("capacity", event(EventKind.PLACE, 2, placement=on([4, 5], 0b110000000011))),
        "one chip of others": ("capacity", event(EventKind.PLACE, 1, placement=on([0]))),
        "a node that is down": ("open", event(EventKind.PLACE, 2, placement=on([4, 7]))),
        "a node kept for another": ("open", event(EventKind.PLACE, 2, placement=on([4, 6]))),
        "keeping what is kept": ("reservation", event(EventKind.RESERVE, 2, nodes=(6,))),
    }


def before() -> State:
    state = State(small_fleet())
    for shape in (gang(2), gang(1), gang(2)):
        submit(state, shape)
    happen(state, EventKind.PLACE, 0, placement=on([0, 1]), time_ns=50)
    happen(state, EventKind.FAIL, nodes=(7,))
    happen(state, EventKind.RESERVE, 1, nodes=(6,), until_ns=HOUR_NS)
    return state


@pytest.mark.parametrize("what", refused())
def test_what_breaks_a_law_is_refused_and_changes_nothing(what):
    law, event = refused()[what]
    state = before()
    digest = state.digest()
    with pytest.raises(NoAnswer) as caught:
        state.apply(event)
    assert caught.value.binding == law
    assert state.digest() == digest
    assert state.version == len(before().log)


def test_every_law_has_a_case():
    shaped = {"shape"}
    assert {law.name for law in LAWS} == {law for law, _ in refused().values()} | shaped


@pytest.mark.parametrize("change", [
    {"level": 3}, {"level_required": True}, {"share_milli": 500}, {"share_milli": 0}, {"island_workers": 3},
    {"spread_level": 9}, {"cpu_milli": -1}, {"alternatives": ()}])
def test_a_shape_that_makes_no_sense_is_refused(change):
    state = State(small_fleet())
    with pytest.raises(NoAnswer, match="shape"):
        submit(state, dataclasses.replace(gang(4), **change))
    with pytest.raises(NoAnswer):
        submit(state, gang(2, kinds=(5,)))


def test_a_snapshot_cannot_be_written_and_knows_its_age():
    state = State(small_fleet())
    snapshot = state.snapshot()
    with pytest.raises(ValueError, match="read-only"):
        snapshot.columns.free_milli_NC[0, 0] = 0
    with pytest.raises(ValueError, match="read-only"):
        snapshot.columns.slots_KSG[0][0, 0, 0] = 0
    assert snapshot.is_current
    happen(state, EventKind.DRAIN, nodes=(0,))
    assert not snapshot.is_current
    assert snapshot.touched_since(0) == set()
    assert state.snapshot().touched_since(0) == {0}


def test_the_columns_of_a_large_fleet_are_small():
    state = State(small_fleet(58_750, chips=8, leaf=32, spine=1024))
    assert sum(np.asarray(column).nbytes for column in state.columns.arrays()) < 30e6
