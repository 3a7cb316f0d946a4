"""Random fleets, jobs, failures and rules: what must hold at every event, whatever happens."""

from __future__ import annotations

import dataclasses
from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.fleet import Alternative, Event, EventKind, Job, JobStatus, Placement, Shape, State, Tenant, replay
from serried.fleet.assembly import fleet_of
from serried.fleet.columns import bits_of, slots_of
from serried.fleet.legality import LAWS, plainly_legal
from serried.fleet.log_text import events_of, lines_of
from serried.fleet.measures import BestFit
from serried.fleet.rules import Rules
from serried.fleet.scheduler import Scheduler
from serried.fleet.turns import barred

MINUTE_NS = 60_000_000_000
TENANTS = (Tenant(name="a", quota_chips_K=(24, 12)), Tenant(name="b", weight=3.0),
           Tenant(name="a1", parent=0, quota_chips_K=(8, 8), borrows=False), Tenant(name="b1", parent=1))

FLEETS = st.builds(
    lambda leaves, per_leaf, chips, half_life: fleet_of(
        kinds=["x", "y"], kind_N=np.arange(leaves * per_leaf) * 2 // (leaves * per_leaf),
        chip_count_N=np.full(leaves * per_leaf, chips), cpu_milli_N=64_000, memory_bytes_N=2**37, tenants=TENANTS,
        switches={"leaf": list(np.arange(leaves * per_leaf) // per_leaf),
                  "spine": list(np.arange(leaves * per_leaf) // (2 * per_leaf))}, usage_half_life_ns=half_life),
    st.integers(2, 6), st.integers(1, 4), st.sampled_from([1, 2, 4]), st.sampled_from([0, 30 * MINUTE_NS]))

RULES = st.builds(Rules, order=st.sampled_from(["arrival", "fair"]), strict=st.booleans(),
                  depth=st.sampled_from([2, 64]), reservations=st.integers(0, 2),
                  budget_chips=st.sampled_from([0, 8, 1000]),
                  budget_window_ns=st.just(5 * MINUTE_NS), most_evictions=st.integers(1, 2), defragments=st.booleans(),
                  patience_ns=st.sampled_from([0, 10 * MINUTE_NS]), spare_ratio=st.sampled_from([0.0, 0.15]))


@st.composite
def shapes(draw) -> Shape:
    """A gang of any form, or a share."""
    if draw(st.integers(0, 3)) == 0:
        return Shape(alternatives=(Alternative(kinds=(0, 1)),), share_milli=draw(st.sampled_from([200, 500, 700])),
                     cpu_milli=draw(st.sampled_from([0, 20_000])))
    island = draw(st.sampled_from([0, 0, 2]))
    ways = tuple(Alternative(kinds=kinds, chips_per_worker=draw(st.integers(1, 4)), throughput_per_s=worth,
                             worker_count=draw(st.integers(1, 4)) * max(island, 1))
                 for kinds, worth in draw(st.sampled_from([[((0,), 1)], [((0, 1), 1)], [((0,), 1), ((1,), 2)]])))
    level = draw(st.integers(-1, 2))
    return Shape(alternatives=ways, level=level, level_required=level >= 0 and draw(st.booleans()),
                 island_workers=island, cpu_milli=draw(st.sampled_from([0, 0, 12_000])),
                 spread_level=0 if draw(st.integers(0, 4)) == 0 else -1, spread_workers=2 * max(island, 1))


JOBS = st.builds(Job, name=st.just("j"), shape=shapes(), tenant=st.integers(0, 3), priority=st.integers(0, 2),
                 preemptible=st.booleans(), runtime_ns=st.sampled_from([0, MINUTE_NS, 20 * MINUTE_NS]))


@st.composite
def happenings(draw):
    """What the world does next: (what, a number to pick with, minutes later, a job)."""
    what = draw(st.sampled_from(["submit"] * 6 + ["finish"] * 3 + ["fail", "fail", "repair", "chip", "drain", "open"]))
    return what, draw(st.integers(0, 10**6)), draw(st.sampled_from([0, 0, 1, 7])), draw(JOBS)


def world_event(state: State, what: str, pick: int, time_ns: int, job: Job) -> Event | None:
    """The event that `what` means on the state, or None where it means nothing."""
    nodes = (pick % state.fleet.node_count, pick // 7 % state.fleet.node_count)
    if what == "submit":
        return Event(time_ns=time_ns, kind=EventKind.SUBMIT, request=job)
    if what == "finish":
        running = sorted(state.running)
        return Event(time_ns=time_ns, kind=EventKind.FINISH, job=running[pick % len(running)]) if running else None
    if what == "chip":
        return Event(time_ns=time_ns, kind=EventKind.FAIL, nodes=nodes[:1], chips=1)
    kinds = {"fail": EventKind.FAIL, "repair": EventKind.REPAIR, "drain": EventKind.DRAIN, "open": EventKind.OPEN}
    return Event(time_ns=time_ns, kind=kinds[what], nodes=tuple(set(nodes)))


@settings(max_examples=60, deadline=None)
@given(FLEETS, RULES, st.lists(happenings(), min_size=20, max_size=80))
def test_whatever_happens(fleet, rules, world):
    state, warm = State(fleet), Scheduler(fleet, BestFit(fleet), rules)
    time_ns = 0
    for what, pick, minutes, job in world:
        time_ns += minutes * MINUTE_NS
        event = world_event(state, what, pick, time_ns, job)
        if event is None:
            continue
        state.apply(event)
        check(state)
        for _ in range(200):
            before = state.digest()
            plan = warm.plan(state.snapshot(time_ns))
            fresh = Scheduler(fleet, BestFit(fleet), rules).plan(state.snapshot(time_ns))
            assert state.digest() == before, "a policy changes nothing"
            assert told(plan.events) == told(fresh.events), "memory changes no decision"
            if not plan.events:
                break
            for one in plan.events:
                check_decision(state, one, rules)
                state.apply(one)
                check(state)
        else:
            raise AssertionError("a policy comes to rest")
        check_reasons(state, warm, time_ns)
    assert replay(fleet, state.log).digest() == state.digest()
    assert replay(fleet, events_of(lines_of(state.log))).digest() == state.digest()
    with mock.patch("serried.fleet.state.exchanged", nothing_stays), (
            mock.patch("serried.fleet.legality.exchanged", nothing_stays)):
        assert replay(fleet, state.log).digest() == state.digest(), "rows that stay might as well have been exchanged"


def nothing_stays(old, new):
    """As if a gang that is mended gave all of its nodes up and took all of them again."""


@settings(max_examples=60, deadline=None)
@given(FLEETS, st.lists(happenings(), min_size=10, max_size=40), st.data())
def test_what_is_legal_at_a_glance_is_legal(fleet, world, data):
    """Placements as the policy makes them, and the same with one figure changed: the glance agrees with the laws."""
    state, policy, time_ns = State(fleet), Scheduler(fleet, BestFit(fleet)), 0
    for what, pick, minutes, job in world:
        time_ns += minutes * MINUTE_NS
        event = world_event(state, what, pick, time_ns, job)
        if event is None:
            continue
        state.apply(event)
        while (plan := policy.plan(state.snapshot(time_ns))).events:
            for one in plan.events:
                if one.kind == EventKind.PLACE:
                    for tried in (one, changed(one, data.draw(st.integers(0, 5)), data.draw(st.integers(-1, 40)))):
                        lawful = all(law.holds(state, tried) for law in LAWS if EventKind.PLACE in law.kinds)
                        assert lawful or not plainly_legal(state, tried)
                state.apply(one)


def changed(event: Event, which: int, figure: int) -> Event:
    """The event with one figure of its placement, or its job or time, put to another value."""
    held, where = event.placement, len(event.placement.node_R) - 1
    columns = [np.array(held.node_R), np.array(held.chips_R), np.array(held.workers_R)]
    if which < 3:
        columns[which][where] = abs(figure) if which == 1 else figure
    placement = Placement(node_R=columns[0], chips_R=columns[1], workers_R=columns[2],
                          alternative=figure if which == 3 else held.alternative)
    return Event(time_ns=figure if which == 4 else event.time_ns, kind=event.kind, placement=placement,
                 job=figure if which == 5 else event.job)


def told(events) -> list[str]:
    """Events as text, so that they compare by value."""
    return list(lines_of(events))


def check(state: State) -> None:
    """Conservation, by counting again from the placements alone."""
    fleet, columns = state.fleet, state.columns
    free = np.where(np.arange(columns.free_milli_NC.shape[1]) < fleet.chip_count_N[:, None], 1000, 0)
    cpu_milli_N, memory_bytes_N = fleet.cpu_milli_N.copy(), fleet.memory_bytes_N.copy()
    held_milli_TK = np.zeros((len(fleet.tenants), len(fleet.kinds)), dtype=np.int64)
    for number, placement in state.placements.items():
        job = state.jobs[number]
        for node, chips, workers in zip(placement.node_R.tolist(), placement.chips_R.tolist(),
                                        placement.workers_R.tolist(), strict=True):
            for chip in bits_of(chips):
                free[node, chip] -= job.shape.share_milli
                for tenant in state.usage.lineage(job.tenant):
                    held_milli_TK[tenant, fleet.kind_N[node]] += job.shape.share_milli
            cpu_milli_N[node] -= workers * job.shape.cpu_milli
            memory_bytes_N[node] -= workers * job.shape.memory_bytes
        assert_gang(state, number)
    assert (columns.free_milli_NC == free).all()
    assert free.min() >= 0
    assert cpu_milli_N.min() >= 0
    assert (columns.cpu_free_milli_N == cpu_milli_N).all()
    assert (columns.memory_free_bytes_N == memory_bytes_N).all()
    assert (state.usage.held_milli_TK == held_milli_TK).all()
    for kept, counted in zip(columns.slots_KSG, slots_of(fleet, columns.open_chips_N), strict=True):
        assert (kept == counted).all()
    assert set(state.placements) == set(state.running) | set(state.broken)
    assert sorted(number for queue in state.pending.values() for number in queue) == [
        number for number, status in enumerate(state.status_J) if status == JobStatus.PENDING]
    assert set(state.reserver.values()) <= set(state.reservations)


def assert_gang(state: State, number: int) -> None:
    """A gang stands whole, on one kind, and keeps what its shape requires of switches."""
    placement, shape = state.placements[number], state.jobs[number].shape
    one = shape.alternatives[placement.alternative]
    assert placement.workers_R.sum() == one.worker_count
    kinds = set(state.fleet.kind_N[placement.node_R].tolist())
    assert len(kinds) == 1
    assert kinds <= set(one.kinds)
    switch_LN = state.fleet.switch_LN
    if one.worker_count == 1:
        return
    if shape.level_required and shape.level < len(switch_LN):
        assert len(set(switch_LN[shape.level][placement.node_R].tolist())) == 1
    if shape.island_workers > 1:
        leaves = np.repeat(switch_LN[0][placement.node_R], placement.workers_R)
        assert all(len(set(island)) == 1 for island in leaves.reshape(-1, shape.island_workers).tolist())
    if shape.spread_level >= 0:
        load_S = np.bincount(switch_LN[shape.spread_level][placement.node_R], weights=placement.workers_R)
        assert load_S.max() <= shape.spread_workers


def check_decision(state: State, event: Event, rules: Rules) -> None:
    """Nobody is pushed out who may not be; no bound tenant exceeds its quota; moves stay on their alternative."""
    if event.kind == EventKind.EVICT and event.cause == "preempted":
        assert state.jobs[event.job].preemptible
        assert state.evictions_J[event.job] < rules.most_evictions
    if event.kind == EventKind.MOVE:
        assert event.placement.alternative == state.placements[event.job].alternative
    if event.kind == EventKind.PLACE:
        job = state.jobs[event.job]
        chips = np.bitwise_count(event.placement.chips_R).astype(int)
        for tenant in state.usage.lineage(job.tenant):
            bound = state.fleet.tenants[tenant]
            if not bound.borrows:
                taken_K = np.bincount(state.fleet.kind_N[event.placement.node_R], weights=chips * job.shape.share_milli,
                                      minlength=2)
                assert (state.usage.held_milli_TK[tenant] + taken_K <= np.array(bound.quota_chips_K) * 1000).all()


def check_reasons(state: State, policy: Scheduler, time_ns: int) -> None:
    """What is said of a waiting job is true: there is room if and only if it is told so, and figures bear it out."""
    snapshot = state.snapshot(time_ns)
    for queue in list(state.pending.values()):
        why = policy.why(snapshot, queue[0])
        job = state.jobs[queue[0]]
        room = policy.placer.place(snapshot, job.shape, barred(snapshot, job))
        assert (room is not None) == (why.reason == "turn")
        if why.reason == "chips":
            assert why.figures["open_chips"] < why.figures["asked_chips"]
        if why.reason in ("fragmented nodes", "fragmented switches", "host"):
            assert why.figures["open_chips"] >= why.figures["asked_chips"]
        if why.reason == "impossible":
            empty = State(state.fleet).snapshot()
            assert Scheduler(state.fleet, BestFit(state.fleet)).placer.place(empty, job.shape) is None


@settings(max_examples=20, deadline=None)
@given(FLEETS, st.lists(JOBS, min_size=1, max_size=12))
def test_two_runs_are_one(fleet, jobs):
    digests = set()
    for _ in range(2):
        state, policy = State(fleet), Scheduler(fleet, BestFit(fleet), Rules())
        for job in jobs:
            state.apply(Event(time_ns=0, kind=EventKind.SUBMIT, request=dataclasses.replace(job)))
            while (plan := policy.plan(state.snapshot())).events:
                state.apply_all(plan.events)
        digests.add(state.digest())
    assert len(digests) == 1
