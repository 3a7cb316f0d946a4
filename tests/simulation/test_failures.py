"""Failures come at their rate, at random, evenly over components."""

import numpy as np
import pytest

from serried.clock import DAY_NS, Chance
from serried.errors import BadInput
from serried.simulation import Fault
from serried.simulation.failures import draw_failures, gang_failures_per_s
from tests.simulation.examples import scenario

FLEET = scenario().fleet


def test_inter_arrival_times_are_exponential():
    fault = Fault(name="chip", component="chip", rate_per_s=1e-4)
    found = draw_failures(FLEET, [fault], end_ns=10 * DAY_NS, chance=Chance(seed=5))
    gaps_s = np.diff(found.time_ns_F) / 1e9
    mean_s = 1 / (64 * 1e-4)
    assert len(found) == pytest.approx(64 * 1e-4 * 864_000, rel=0.06)
    assert gaps_s.mean() == pytest.approx(mean_s, rel=0.06)
    assert gaps_s.std() == pytest.approx(mean_s, rel=0.08)   # of an exponential, both are the same
    ranks = np.sort(1 - np.exp(-gaps_s / mean_s))
    assert np.abs(ranks - np.arange(1, len(ranks) + 1) / len(ranks)).max() < 1.95 / len(ranks) ** 0.5   # Kolmogorov
    counts = np.bincount(found.component_F, minlength=64)
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 110   # chi-square of 63 degrees


def test_repairs_have_their_median():
    fault = Fault(name="node", component="node", rate_per_s=1e-3, repair_median_ns=DAY_NS, repair_spread=0.8)
    found = draw_failures(FLEET, [fault], end_ns=10 * DAY_NS, chance=Chance(seed=5))
    assert np.median(found.repair_ns_F) == pytest.approx(DAY_NS, rel=0.05)
    assert np.log(found.repair_ns_F).std() == pytest.approx(0.8, rel=0.05)


def test_another_fault_changes_nobody_elses_draws():
    node, leaf = (Fault(name=name, component=name, rate_per_s=1e-4) for name in ("node", "leaf"))
    one = draw_failures(FLEET, [node], end_ns=DAY_NS, chance=Chance(seed=1))
    two = draw_failures(FLEET, [leaf, node], end_ns=DAY_NS, chance=Chance(seed=1))
    assert (two.time_ns_F[two.fault_F == 1] == one.time_ns_F).all()


def test_a_gang_meets_what_its_components_meet():
    faults = [Fault(name="chip", component="chip", rate_per_s=1.0),
              Fault(name="leaf", component="leaf", rate_per_s=5.0),
              Fault(name="slow", component="node", rate_per_s=9.0, effect="slow", pace=0.5)]
    assert gang_failures_per_s(faults, node_count=2, chip_count=8, switch_counts=[1], levels=["leaf"]) == 13.0


def test_an_absurd_rate_is_refused():
    with pytest.raises(BadInput, match="unit of its rate"):
        draw_failures(FLEET, [Fault(name="chip", component="chip", rate_per_s=1.0)], end_ns=10_000 * DAY_NS,
                      chance=Chance(seed=1))
