"""Checkpoint intervals and what failures leave of the time: by hand, against each other, and against the simulator."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serried.clock import DAY_NS, SECOND_NS
from serried.simulation import Checkpoint, Simulator, simulate
from serried.simulation.checkpoint import daly_interval_s, effective_time_ratio, young_interval_s
from tests.simulation.examples import alone


def expected_wall_s(work_s, *, interval_s, write_s, restart_s, mtbf_s):
    """Mean time to finish under failures that come at random: M e^(R/M) (e^((tau + w)/M) - 1) work/tau.

    Restarts may fail too (Daly 2006, equation 20).
    """
    return mtbf_s * np.exp(restart_s / mtbf_s) * np.expm1((interval_s + write_s) / mtbf_s) * work_s / interval_s


def test_young_by_hand():
    assert young_interval_s(50.0, 10_000.0) == pytest.approx(1000.0)   # sqrt(2 * 50 * 10,000)


def test_daly_by_hand():
    # w/2M = 1/400: 1000 * (1 + (1/20)/3 + (1/400)/9) - 50
    assert daly_interval_s(50.0, 10_000.0) == pytest.approx(1000 * (1 + 1 / 60 + 1 / 3600) - 50)
    assert daly_interval_s(300.0, 100.0) == 100.0


@given(st.floats(1, 60), st.floats(2000, 1e6))
def test_daly_is_at_the_least_of_the_expected_time(write_s, mtbf_s):
    best_s = float(daly_interval_s(write_s, mtbf_s))
    around_s = best_s * np.geomspace(0.2, 5, 201)
    wall_s = expected_wall_s(1e5, interval_s=around_s, write_s=write_s, restart_s=0.0, mtbf_s=mtbf_s)
    at_best_s = expected_wall_s(1e5, interval_s=best_s, write_s=write_s, restart_s=0.0, mtbf_s=mtbf_s)
    assert at_best_s <= wall_s.min() * 1.002


@given(st.floats(0.1, 10))
def test_intervals_scale_as_time(scale):
    assert daly_interval_s(scale * 30.0, scale * 9000.0) == pytest.approx(scale * daly_interval_s(30.0, 9000.0))


def test_effective_time_by_hand():
    # 100 nodes, one failure a day between them, restart 864 s and half of 1728 s lost each: 2 %; writing 1 %
    assert effective_time_ratio(100, 1 / 86400 / 100, restart_s=864, interval_s=1728, write_s=17.28) == pytest.approx(
        0.98 / 1.01)


def test_the_simulator_keeps_to_the_closed_form():
    saves = Checkpoint(interval_ns=600 * SECOND_NS, write_ns=30 * SECOND_NS, restart_ns=200 * SECOND_NS)
    run = alone(nodes=8, work_ns=3 * DAY_NS, checkpoint=saves, mtbf_s=3000.0)
    walls_s = []
    for seed in range(8):
        simulator = Simulator(run, days=20, seed=seed)
        simulator.run()
        walls_s.append(simulator.gangs.finish_ns_J[0] / 1e9)
    expected_s = expected_wall_s(3 * 86400.0, interval_s=600, write_s=30, restart_s=200, mtbf_s=3000)
    expected_s += 200   # the first start
    assert np.mean(walls_s) == pytest.approx(expected_s, rel=0.03)


def test_the_optimum_is_taken_where_none_is_given():
    def effective(interval_ns):
        saves = Checkpoint(interval_ns=interval_ns, write_ns=30 * SECOND_NS, restart_ns=60 * SECOND_NS)
        run = alone(nodes=8, work_ns=100 * DAY_NS, checkpoint=saves, mtbf_s=5000.0)
        return simulate(run, days=20, seed=3).goodput_ratio
    assert effective(0) > effective(100 * SECOND_NS)
    assert effective(0) > effective(4000 * SECOND_NS)
