"""The simulator: chips and chip-hours are conserved, runs repeat bit by bit, logs give the same decisions again."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serried.clock import HOUR_NS, SECOND_NS
from serried.fleet import EventKind, State
from serried.fleet.columns import slots_of
from serried.fleet.rules import POLICIES, Rules
from serried.fleet.spec import WHOLE_MILLI, NodeFlag
from serried.simulation import Checkpoint, Simulator, policy_of, simulate
from serried.simulation.accounting import ACCOUNTS
from serried.simulation.outcome import outcome_of
from tests.simulation.examples import alone, scenario


class CountedState(State):
    """Counts every chip after every event."""

    checks = 0

    def apply(self, event):
        number = super().apply(event)
        held = sum(int(rows.chips_R[row]).bit_count() for rows in self.placements.values()
                   for row in range(len(rows.node_R))) * WHOLE_MILLI
        assert held + int(self.columns.free_milli_NC.sum()) == int(self.fleet.chip_count_N.sum()) * WHOLE_MILLI
        assert held == int(self.usage.held_milli_TK.sum())
        self.checks += 1
        return number


class Checked(Simulator):
    """Takes stock of the whole fleet after every instant."""

    def __init__(self, scenario, **length):
        super().__init__(scenario, **length)
        self.state.__class__ = CountedState

    def _instant(self, now_ns, progress):
        super()._instant(now_ns, progress)
        assert set(self.gangs.stints) == set(self.state.placements)
        kept = {account: milli for account, milli in self.books._unheld.items() if milli}
        assert sum(kept.values()) + self.books.held_milli == self.books.capacity_milli
        for account in ("nobody asked", "waiting jobs do not fit", "scraps of shared chips"):
            assert kept.pop(account, 0) >= 0
        assert kept == self.withheld()

    def withheld(self):
        """What nobody may take, node by node, from what the state says now."""
        found, columns = {}, self.state.columns
        for node, flags in enumerate(columns.flags_N.tolist()):
            words = [word for flag, word in ((NodeFlag.DRAINING, "draining"), (NodeFlag.SPARE, "kept as spares"),
                                             (NodeFlag.RESERVED, "kept for a waiting job")) if flags & flag]
            fault = f"down: {self.scenario.faults[self.breakage.down_fault_N[node]].name}"
            for chip, free_milli in enumerate(columns.free_milli_NC[node].tolist()):
                broken = int(columns.broken_chips_N[node]) >> chip & 1 or flags & NodeFlag.DOWN
                for account in [fault] if broken else words[:1]:
                    found[account] = found.get(account, 0) + free_milli
        return {account: milli for account, milli in found.items() if milli}


def test_chips_are_conserved_at_every_event_and_chip_hours_in_the_waterfall():
    run = Checked(scenario(jobs_per_day=30, rate_per_day=0.05, rules=POLICIES["full"],
                           decide_every_ns=60 * SECOND_NS), days=4, seed=2)
    run.run()
    outcome = outcome_of(run)   # asserts that the accounts add up, as whole numbers
    assert run.state.checks > 200
    assert sum(outcome.chip_hours.values()) == pytest.approx(outcome.capacity_chip_hours, rel=1e-12)
    struck = {name for name, count in outcome.failures.items() if count}
    assert struck >= {"chip", "link", "node", "process", "slow"}
    for kept, counted in zip(run.state.columns.slots_KSG,
                             slots_of(run.state.fleet, run.state.columns.open_chips_N), strict=True):
        assert (kept == counted).all()
    assert set(outcome.chip_hours) <= {*ACCOUNTS, *(f"down: {name}" for name in outcome.failures)}
    assert int(run.gangs.working_N().sum()) * WHOLE_MILLI == sum(run.gangs.working_K), "node by node or kind by kind"


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(nodes=st.sampled_from([8, 16]), kinds=st.integers(1, 2), jobs=st.floats(0, 60), rate=st.floats(0, 0.3),
       policy=st.sampled_from(sorted(POLICIES)), every=st.sampled_from([60, 600]), seed=st.integers(0, 2**32))
def test_whatever_happens_the_books_balance(nodes, kinds, jobs, rate, policy, every, seed):
    run = Checked(scenario(nodes=nodes, kinds=kinds, jobs_per_day=jobs, rate_per_day=rate, rules=POLICIES[policy],
                           decide_every_ns=every * SECOND_NS), days=1, seed=seed)
    run.run()
    outcome = outcome_of(run)
    assert 0 <= outcome.goodput_ratio <= outcome.allocation_ratio <= 1


def test_one_seed_gives_one_run_and_another_another():
    first, again, other = (simulate(scenario(kinds=2), days=3, seed=seed) for seed in (7, 7, 8))
    assert first.digest == again.digest
    assert first.chip_hours == again.chip_hours
    assert first.classes == again.classes
    assert first.digest != other.digest


@pytest.mark.parametrize("policy", ["fair", "full"])
def test_the_log_of_a_run_gives_the_same_decisions_again(policy):
    made = scenario(jobs_per_day=30, rate_per_day=0.05, rules=POLICIES[policy], decide_every_ns=60 * SECOND_NS)
    run = Simulator(made, days=3, seed=4)
    run.run()
    state, scheduler, log, decided = State(made.fleet), policy_of(made, seed=4), run.state.log, 0
    for version, time_ns in run.decided_at:
        state.apply_all(log[state.version:version])
        while (plan := scheduler.plan(state.snapshot(time_ns))).events:
            for event in plan.events:
                kept = log[state.version]
                assert (event.kind, event.job, event.nodes) == (kept.kind, kept.job, kept.nodes)
                if event.placement is not None:
                    assert event.placement.node_R.tolist() == kept.placement.node_R.tolist()
                    assert event.placement.chips_R.tolist() == kept.placement.chips_R.tolist()
                state.apply(event)
                decided += 1
    state.apply_all(log[state.version:])
    assert decided > 50
    assert state.digest() == run.state.digest()


def test_a_calm_fleet_loses_only_starts_and_saves():
    saves = Checkpoint(interval_ns=HOUR_NS, write_ns=36 * SECOND_NS, restart_ns=HOUR_NS)
    run = alone(nodes=4, work_ns=10 * HOUR_NS, checkpoint=saves, mtbf_s=1e15, spares=0)
    hours = simulate(run, days=1, seed=1).chip_hours
    # an hour to start, ten of work, nine saves of a hundredth; then nobody asks
    assert hours == pytest.approx({"starting": 4.0, "writing checkpoints": 0.36, "useful": 40.0,
                                   "nobody asked": 96 - 44.36})


def test_broken_gangs_are_mended_in_place():
    run = Simulator(scenario(rate_per_day=0.05, rules=Rules(spare_ratio=0.1)), days=5, seed=3)
    run.run()
    mended = [event for event in run.state.log if event.kind == EventKind.REPLACE and event.cause == "failed"]
    assert mended
    assert outcome_of(run).replacements == len(mended)
