"""Every rule of the scheduler on cases worked out by hand: 8 nodes of 4 chips, leaves of 2, spines of 4."""

from __future__ import annotations

import pytest

from serried.errors import BadInput
from serried.fleet import Alternative, EventKind, Job, JobStatus, Shape, State, Tenant
from serried.fleet.policies import policy_named
from serried.fleet.rules import POLICIES
from tests.fleet.examples import HOUR_NS, gang, happen, nodes_of, on, scheduler_of, settle, share, small_fleet, submit


def running(state: State) -> list[int]:
    return sorted(state.running)


def full_fleet(shape_nodes: int = 1, *, priority: int = 0, tenant: int = 0, **rules: object):
    """Eight nodes taken by gangs of `shape_nodes` nodes each, an hour long."""
    state = State(small_fleet(tenants=(Tenant(name="a"), Tenant(name="b"))))
    policy = scheduler_of(state.fleet, **rules)
    for _ in range(8 // shape_nodes):
        submit(state, gang(shape_nodes), priority=priority, tenant=tenant, runtime_ns=HOUR_NS)
    settle(state, policy)
    assert len(state.running) == 8 // shape_nodes
    return state, policy


# order

def test_priority_goes_first_then_arrival():
    state = State(small_fleet())
    low, high, late = submit(state, gang(8)), submit(state, gang(8), priority=1), submit(state, gang(8), priority=1)
    policy = scheduler_of(state.fleet, order="arrival", reservations=0)
    settle(state, policy)
    assert running(state) == [high]
    happen(state, EventKind.FINISH, high)
    settle(state, policy)
    assert running(state) == [late]
    happen(state, EventKind.FINISH, late)
    settle(state, policy)
    assert running(state) == [low]


@pytest.mark.parametrize(("strict", "expected"), [(True, [0]), (False, [0, 2, 3])])
def test_strict_order_blocks_and_backfill_does_not(strict, expected):
    state = State(small_fleet())
    policy = scheduler_of(state.fleet, order="arrival", strict=strict, reservations=0)
    for shape in (gang(4), gang(8), gang(1)):
        submit(state, shape)
    settle(state, policy)
    happen(state, EventKind.DRAIN, nodes=(7,))
    submit(state, gang(2))
    settle(state, policy)
    assert running(state) == expected


def test_fair_share_serves_whoever_used_least():
    tenants = (Tenant(name="a"), Tenant(name="b", weight=2.0))
    state = State(small_fleet(tenants=tenants))
    policy = scheduler_of(state.fleet, reservations=0)
    jobs = [submit(state, gang(8), tenant=tenant) for tenant in (0, 0, 0, 1, 1, 1)]
    order = []
    for _ in jobs:
        settle(state, policy)
        (job,) = running(state)
        order.append(state.jobs[job].tenant)
        happen(state, EventKind.FINISH, job, time_ns=state.time_ns + HOUR_NS)
    # b weighs double: after each has had its first hour b is at 1/2 and a at 1, so b is served twice for once of a
    assert order == [0, 1, 1, 0, 1, 0]


def test_fair_share_forgets():
    """Ten half-lives after an hour of use a tenant is as good as new, and the first in the queue goes first again."""
    tenants = (Tenant(name="a"), Tenant(name="b"))
    state = State(small_fleet(tenants=tenants, half_life_ns=HOUR_NS))
    usage = state.usage
    job = submit(state, gang(8), tenant=0)
    settle(state, scheduler_of(state.fleet))
    happen(state, EventKind.FINISH, job, time_ns=HOUR_NS)
    # an hour of 32 chips under a half-life of an hour: 32 * 3600 / ln 2 * (1 - 1/2)
    assert usage.used_chip_s(0, HOUR_NS) == pytest.approx(32 * 3600 / 0.6931471805599453 / 2)
    assert usage.used_chip_s(0, 11 * HOUR_NS) == pytest.approx(usage.used_chip_s(0, HOUR_NS) / 1024)
    assert usage.used_chip_s(1, HOUR_NS) == 0


def test_fair_share_is_hierarchical():
    """Team a1 has used nothing, but its parent has, through a2: the other parent's team goes first."""
    tenants = (Tenant(name="a"), Tenant(name="b"), Tenant(name="a1", parent=0), Tenant(name="a2", parent=0),
               Tenant(name="b1", parent=1))
    state = State(small_fleet(tenants=tenants))
    policy = scheduler_of(state.fleet, reservations=0)
    used = submit(state, gang(8), tenant=3)
    settle(state, policy)
    a1, b1 = submit(state, gang(8), tenant=2), submit(state, gang(8), tenant=4)
    happen(state, EventKind.FINISH, used, time_ns=HOUR_NS)
    settle(state, policy)
    assert running(state) == [b1]
    happen(state, EventKind.FINISH, b1, time_ns=2 * HOUR_NS)
    settle(state, policy)
    assert running(state) == [a1]


# quotas

def test_a_quota_may_be_exceeded_while_others_leave_theirs_idle():
    tenants = (Tenant(name="a", quota_chips_K=(16,)), Tenant(name="b", quota_chips_K=(16,)))
    state = State(small_fleet(tenants=tenants))
    policy = scheduler_of(state.fleet)
    jobs = [submit(state, gang(2), tenant=0) for _ in range(4)]
    settle(state, policy)
    assert running(state) == jobs


def test_a_tenant_that_may_not_borrow_waits_at_its_quota_and_is_told_so():
    tenants = (Tenant(name="a", quota_chips_K=(16,), borrows=False), Tenant(name="b"))
    state = State(small_fleet(tenants=tenants))
    policy = scheduler_of(state.fleet)
    jobs = [submit(state, gang(2), tenant=0) for _ in range(3)]
    settle(state, policy)
    assert running(state) == jobs[:2]
    why = policy.why(state.snapshot(), jobs[2])
    assert (why.reason, why.figures["held_chips"]) == ("quota", 16)


def test_a_quota_above_binds_all_below():
    tenants = (Tenant(name="a", quota_chips_K=(8,), borrows=False), Tenant(name="a1", parent=0),
               Tenant(name="a2", parent=0))
    state = State(small_fleet(tenants=tenants))
    policy = scheduler_of(state.fleet)
    first, second, third = (submit(state, gang(1), tenant=tenant) for tenant in (1, 2, 1))
    settle(state, policy)
    assert running(state) == [first, second]
    assert policy.why(state.snapshot(), third).reason == "quota"


def test_who_stays_within_quota_goes_before_who_borrows():
    tenants = (Tenant(name="a", quota_chips_K=(16,)), Tenant(name="b", quota_chips_K=(16,)))
    state = State(small_fleet(tenants=tenants))
    policy = scheduler_of(state.fleet, reservations=0)
    held = submit(state, gang(8), tenant=1)
    settle(state, policy)
    borrowing = submit(state, gang(6), tenant=0)
    within = submit(state, gang(3), tenant=1)
    happen(state, EventKind.FINISH, held, time_ns=1)
    settle(state, policy)
    assert within in state.running
    assert borrowing not in state.running


def test_what_was_borrowed_is_taken_back_at_equal_priority():
    tenants = (Tenant(name="a", quota_chips_K=(16,)), Tenant(name="b", quota_chips_K=(16,)))
    state = State(small_fleet(tenants=tenants))
    policy = scheduler_of(state.fleet, budget_chips=100)
    borrowed = [submit(state, gang(2), tenant=0) for _ in range(4)]
    settle(state, policy)
    mine = [submit(state, gang(2), tenant=1) for _ in range(3)]
    settle(state, policy)
    assert [job in state.running for job in mine] == [True, True, False]   # the third would borrow itself
    assert sum(job in state.running for job in borrowed) == 2


# mixed chips

def test_the_most_worthwhile_chips_are_taken_first_and_the_others_when_those_are_gone():
    ways = (Alternative(kinds=(0,), worker_count=2, chips_per_worker=4, throughput_per_s=10, price_usd_per_s=10),
            Alternative(kinds=(1,), worker_count=4, chips_per_worker=4, throughput_per_s=9, price_usd_per_s=3))
    state = State(small_fleet(kinds=2))
    policy = scheduler_of(state.fleet)
    shape = Shape(alternatives=ways)
    jobs = [submit(state, shape) for _ in range(4)]
    settle(state, policy)
    assert [state.placements[job].alternative for job in jobs[:3]] == [1, 0, 0]
    assert nodes_of(state, jobs[0]) == [4, 5, 6, 7]
    assert jobs[3] not in state.running


# reservations

def test_a_blocked_gang_gets_the_nodes_that_are_free_first_and_others_do_not_delay_it():
    """Nodes 0 to 3 are free after an hour, 4 to 7 after two. A gang of four nodes under one spine waits for 0 to 3."""
    state = State(small_fleet())
    policy = scheduler_of(state.fleet, order="arrival")
    short = submit(state, gang(4, level=1, level_required=True), runtime_ns=HOUR_NS)
    long = submit(state, gang(4, level=1, level_required=True), runtime_ns=2 * HOUR_NS)
    settle(state, policy)
    big = submit(state, gang(4, level=1, level_required=True), runtime_ns=HOUR_NS)
    settle(state, policy)
    kept = state.reservations[big]
    assert (kept.nodes, kept.until_ns) == ((0, 1, 2, 3), HOUR_NS)
    late = submit(state, gang(1), runtime_ns=3 * HOUR_NS)
    happen(state, EventKind.FINISH, short, time_ns=HOUR_NS)
    settle(state, policy)
    assert sorted(state.running) == [long, big]
    assert late not in state.running
    assert big not in state.reservations


def test_a_short_job_is_let_past_onto_reserved_nodes_and_a_long_one_is_not():
    state = State(small_fleet())
    policy = scheduler_of(state.fleet, order="arrival")
    half = submit(state, gang(4, level=1, level_required=True), runtime_ns=4 * HOUR_NS)
    settle(state, policy)
    whole = submit(state, gang(8), runtime_ns=HOUR_NS)
    settle(state, policy)
    assert len(state.reservations[whole].nodes) == 8
    long, short, unknown = (submit(state, gang(1), runtime_ns=runtime) for runtime in (5 * HOUR_NS, 3 * HOUR_NS, 0))
    settle(state, policy)
    assert sorted(state.running) == [half, short]
    assert policy.why(state.snapshot(), long).reason == "chips"
    assert "8 nodes are kept for other jobs" in policy.why(state.snapshot(), unknown).sentence
    assert "8 nodes are kept for it until all" in policy.why(state.snapshot(), whole).sentence


def test_a_job_on_slower_chips_takes_longer_to_be_gone():
    """A reservation in four hours. Only one node is left before it, where a job of three nodes runs at a third: an hour
    of it becomes three, and is let past; two become six, and are not."""
    state = State(small_fleet())
    policy = scheduler_of(state.fleet, order="arrival")
    half = submit(state, gang(7), runtime_ns=4 * HOUR_NS)
    settle(state, policy)
    whole = submit(state, gang(8), runtime_ns=HOUR_NS)
    settle(state, policy)
    shape = Shape(alternatives=(Alternative(kinds=(0,), worker_count=3, chips_per_worker=4, throughput_per_s=3.0),
                                Alternative(kinds=(0,), worker_count=1, chips_per_worker=4, throughput_per_s=1.0)))
    long, short = (submit(state, shape, runtime_ns=runtime) for runtime in (2 * HOUR_NS, HOUR_NS))
    settle(state, policy)
    assert sorted(state.running) == [half, short]
    assert state.jobs[long].runtime_on_ns(1) == 6 * HOUR_NS
    node = nodes_of(state, short)[0]
    assert state.columns.busy_until_ns_N[node] == 3 * HOUR_NS
    assert whole in state.reservations


def test_a_spoilt_reservation_is_made_again():
    state, policy = full_fleet(order="arrival")
    big = submit(state, gang(2, level=0, level_required=True), runtime_ns=HOUR_NS)
    settle(state, policy)
    kept = state.reservations[big].nodes
    happen(state, EventKind.FAIL, nodes=(kept[0],))
    settle(state, policy)
    assert kept[0] not in state.reservations[big].nodes


def test_nothing_is_kept_for_a_job_of_one_chip_and_it_is_first_all_the_same():
    """The first chip that is freed goes to whose turn it is."""
    state, policy = full_fleet(order="arrival")
    waiting = [submit(state, gang(1, 1)) for _ in range(5)]
    settle(state, policy)
    assert state.reservations == {}
    happen(state, EventKind.FINISH, next(iter(state.running)))     # a node of four chips
    settle(state, policy)
    assert [number in state.running for number in waiting] == [True] * 4 + [False]


def test_one_chip_with_memory_beside_it_is_kept_for():
    """Others that want less memory could overtake it for ever."""
    state, policy = full_fleet(order="arrival")
    greedy = submit(state, gang(1, 1, memory_bytes=1))
    settle(state, policy)
    assert list(state.reservations) == [greedy]


@pytest.mark.parametrize(("nodes", "again"), [(3, (1, 2, 3)), (4, None)])
def test_a_spoilt_reservation_keeps_what_still_helps_or_nothing(nodes, again):
    """One spine is down, and of the other's four nodes one that was kept: three are what is left, the two that were
    kept among them. Four are nowhere to be had, and nobody else is kept waiting for them."""
    state, policy = full_fleet(order="arrival")
    happen(state, EventKind.FAIL, nodes=(4, 5, 6, 7))
    big = submit(state, gang(nodes, level=1, level_required=True), runtime_ns=HOUR_NS)
    settle(state, policy)
    assert state.reservations[big].nodes == tuple(range(nodes))
    happen(state, EventKind.FAIL, nodes=(0,))
    settle(state, policy)
    assert (state.reservations[big].nodes if again else state.reservations.get(big)) == again
    for number in list(state.broken):
        happen(state, EventKind.CANCEL, number)
    small = submit(state, gang(1))         # nobody knows how long: it is never let past a reservation
    happen(state, EventKind.FINISH, next(number for number in state.running if nodes_of(state, number) == [1]))
    settle(state, policy)
    assert (small in state.running) == (again is None)


# preemption

def test_the_lowest_rank_and_no_more_than_needed_is_pushed_out():
    state = State(small_fleet())
    policy = scheduler_of(state.fleet, budget_chips=100)
    jobs = [submit(state, gang(2), priority=priority) for priority in (2, 0, 1, 2)]
    settle(state, policy)
    urgent = submit(state, gang(2), priority=3)
    done = settle(state, policy)
    assert [(event.kind, event.job) for event in done[:2]] == [(EventKind.EVICT, jobs[1]), (EventKind.PLACE, urgent)]
    assert state.status_J[jobs[1]] == JobStatus.PENDING
    assert state.evictions_J[jobs[1]] == 1


def test_equal_rank_is_never_pushed_out():
    state, policy = full_fleet(2, priority=1, budget_chips=100)
    submit(state, gang(2), priority=1)
    assert all(event.kind != EventKind.EVICT for event in settle(state, policy))


def test_who_may_not_be_pushed_out_is_not():
    state = State(small_fleet())
    policy = scheduler_of(state.fleet, budget_chips=100)
    firm = submit(state, gang(8), preemptible=False)
    settle(state, policy)
    submit(state, gang(2), priority=9)
    settle(state, policy)
    assert running(state) == [firm]


def test_a_gang_goes_as_a_whole_and_one_that_is_too_large_stays():
    state = State(small_fleet())
    policy = scheduler_of(state.fleet, budget_chips=100, victim_ratio=2.0)
    large, small = submit(state, gang(6)), submit(state, gang(2))
    settle(state, policy)
    urgent = submit(state, gang(1), priority=1)
    settle(state, policy)
    assert running(state) == [large, urgent]
    assert state.status_J[small] == JobStatus.PENDING


def test_the_budget_bounds_what_is_disturbed_in_a_window():
    state, policy = full_fleet(1, budget_chips=8, budget_window_ns=HOUR_NS)
    urgent = [submit(state, gang(1), priority=1) for _ in range(3)]
    settle(state, policy)
    assert [job in state.running for job in urgent] == [True, True, False]
    happen(state, EventKind.CANCEL, submit(state, gang(1)), time_ns=HOUR_NS // 2)
    settle(state, policy)
    assert urgent[2] not in state.running
    happen(state, EventKind.CANCEL, submit(state, gang(1)), time_ns=2 * HOUR_NS)
    settle(state, policy)
    assert urgent[2] in state.running


def test_there_is_no_second_order_storm():
    """Priorities 0, 1, 2: what 2 pushes out does not push out 0 in its turn."""
    state = State(small_fleet(2, leaf=1, spine=2))
    policy = scheduler_of(state.fleet, budget_chips=1000)
    low, middle = submit(state, gang(1), priority=0), submit(state, gang(1), priority=1)
    settle(state, policy)
    assert running(state) == [low, middle]
    happen(state, EventKind.FINISH, low)
    low = submit(state, gang(1), priority=0)
    settle(state, policy)
    top = [submit(state, gang(1), priority=2) for _ in range(2)]
    done = settle(state, policy)
    assert [event.job for event in done if event.kind == EventKind.EVICT] == [low, middle]
    happen(state, EventKind.FINISH, top[0])
    settle(state, policy)
    assert running(state) == [middle, top[1]]
    happen(state, EventKind.FINISH, top[1])
    settle(state, policy)
    assert running(state) == [middle, low]
    assert sum(state.evictions_J) == 2


# moves

def test_defragmentation_moves_small_gangs_to_make_one_leaf_whole():
    state = State(small_fleet())
    policy = scheduler_of(state.fleet, budget_chips=100, defragments=True)
    small = [submit(state, gang(1, 2)) for _ in range(2)]
    for job, node in zip(small, (0, 2), strict=True):
        happen(state, EventKind.PLACE, job, placement=on([node], 0b11))
    rest = submit(state, gang(4))
    happen(state, EventKind.PLACE, rest, placement=on([4, 5, 6, 7]))
    big = submit(state, gang(2, level=0, level_required=True))
    done = settle(state, policy)
    assert [event.kind for event in done] == [EventKind.MOVE, EventKind.PLACE]
    assert done[0].cause == "defragmented"
    assert big in state.running
    assert all(job in state.running for job in small)
    assert sum(state.evictions_J) == 0


# broken gangs

def test_several_failed_nodes_are_replaced_in_place():
    state = State(small_fleet(16, leaf=4, spine=8))
    policy = scheduler_of(state.fleet)
    job = submit(state, gang(6, level=1, level_required=True))
    settle(state, policy)
    assert nodes_of(state, job) == [0, 1, 2, 3, 4, 5]
    happen(state, EventKind.FAIL, nodes=(1, 4))
    (event,) = settle(state, policy)
    assert (event.kind, event.cause) == (EventKind.REPLACE, "failed")
    assert nodes_of(state, job) == [0, 6, 2, 3, 7, 5]   # ranks stay; the same spine, the only nodes left there
    assert state.status_J[job] == JobStatus.RUNNING
    assert state.evictions_J[job] == 0


def test_a_replacement_comes_from_the_nearest_switch_and_a_spare_goes_before_an_open_node():
    state = State(small_fleet(16, leaf=4, spine=8))
    policy = scheduler_of(state.fleet)
    job = submit(state, gang(2))
    settle(state, policy)
    happen(state, EventKind.SPARE, nodes=(3, 9))
    happen(state, EventKind.FAIL, nodes=(0,))
    settle(state, policy)
    assert nodes_of(state, job) == [3, 1]      # node 2 is as near, node 9 is a spare further off
    assert 3 not in state.spares


def test_a_gang_waits_for_nodes_up_to_its_patience_and_then_queues_again():
    state, policy = full_fleet(8, patience_ns=HOUR_NS // 2)
    happen(state, EventKind.FAIL, nodes=(3,), time_ns=HOUR_NS)
    assert settle(state, policy) == []
    assert policy.plan(state.snapshot()).wake_ns == HOUR_NS + HOUR_NS // 2
    (event,) = settle(state, policy, HOUR_NS + HOUR_NS // 2)
    assert (event.kind, event.cause) == (EventKind.EVICT, "failed")


def test_a_repaired_node_lets_the_same_gang_go_on():
    state, policy = full_fleet(8)
    happen(state, EventKind.FAIL, nodes=(3,))
    settle(state, policy)
    happen(state, EventKind.REPAIR, nodes=(3,))
    (event,) = settle(state, policy)
    assert event.kind == EventKind.REPLACE
    assert running(state) == [0]


def test_islands_and_failure_domains_hold_for_replacements_too():
    state = State(small_fleet())
    policy = scheduler_of(state.fleet)
    islands = submit(state, gang(2, 4, island_workers=2))
    settle(state, policy)
    happen(state, EventKind.FAIL, nodes=(0,))
    assert settle(state, policy) == []         # no node is left in leaf {0, 1}
    happen(state, EventKind.CANCEL, islands)
    spread = submit(state, gang(3, spread_level=0, spread_workers=1))
    settle(state, policy)
    assert nodes_of(state, spread) == [1, 2, 4]
    happen(state, EventKind.FAIL, nodes=(2,))
    settle(state, policy)
    assert nodes_of(state, spread) == [1, 3, 4]


def test_spares_are_kept_and_spread_over_the_outermost_switches():
    state = State(small_fleet(16, leaf=4, spine=8))
    policy = scheduler_of(state.fleet, spare_ratio=0.25)
    settle(state, policy)
    assert sorted(state.spares) == [0, 1, 8, 9]
    job = submit(state, gang(13))
    settle(state, policy)
    assert job not in state.running
    assert "4 nodes are spares" in policy.why(state.snapshot(), job).sentence


def test_a_draining_node_is_left_in_place():
    state = State(small_fleet())
    policy = scheduler_of(state.fleet)
    job = submit(state, gang(2))
    settle(state, policy)
    happen(state, EventKind.DRAIN, nodes=(0,))
    (event,) = settle(state, policy)
    assert (event.kind, event.cause) == (EventKind.REPLACE, "drained")
    assert nodes_of(state, job) == [2, 1]
    assert state.jobs_on(0) == []
    happen(state, EventKind.OPEN, nodes=(0,))
    assert state.columns.open_chips_N[0] == 4


# why

def test_why_says_what_is_true_now():
    state, policy = full_fleet(1, reservations=0)
    asked = {name: submit(state, shape) for name, shape in {
        "chips": gang(2), "fragmented switches": gang(2, level=0, level_required=True), "shares": share(500),
        "impossible": gang(9)}.items()}
    assert policy.why(state.snapshot(), asked["chips"]).figures["open_chips"] == 0
    assert policy.why(state.snapshot(), 0).reason == "running"
    assert policy.why(state.snapshot(), asked["impossible"]).reason == "impossible"
    assert policy.why(state.snapshot(), asked["shares"]).reason == "shares"
    for node in (0, 2):
        happen(state, EventKind.FINISH, node)
    why = policy.why(state.snapshot(), asked["fragmented switches"])
    assert (why.reason, why.figures["most_under_one_switch"]) == ("fragmented switches", 1)
    assert policy.why(state.snapshot(), asked["chips"]).reason == "turn"
    happen(state, EventKind.FINISH, 4)
    halves = submit(state, gang(4, 3))
    assert policy.why(state.snapshot(), halves).reason == "fragmented nodes"
    host = submit(state, gang(2, 1, cpu_milli=64_001))
    assert policy.why(state.snapshot(), host).reason == "impossible"


def test_policies_have_names():
    fleet = small_fleet()
    policy = policy_named("full+Fragmentation", fleet, [Job(name="j", shape=gang(1))])
    assert policy.rules is POLICIES["full"]
    assert policy.name == "full+Fragmentation"
    assert policy_named("best_fit", fleet, []).rules is POLICIES["fair"]
    with pytest.raises(BadInput, match="'fair'"):
        policy_named("fare", fleet, [])
