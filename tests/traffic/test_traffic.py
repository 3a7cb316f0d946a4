"""Arrival processes have the statistics they promise; lengths, sessions, mixes and scaling do what they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.errors import BadInput
from serried.traffic import (
    Client,
    bursts,
    constant,
    cut,
    diurnal,
    gamma,
    mix,
    open_loop,
    poisson,
    read_trace,
    refuse_beyond,
    scaled,
    sessions,
    stream,
    within,
)
from serried.traffic.lengths import empirical, fixed, lognormal, uniform

COUNT = 40_000


@pytest.mark.parametrize(("arrivals", "variation"), [
    (lambda random: poisson(5.0, COUNT, random), 1.0), (lambda random: gamma(5.0, COUNT, random, variation=3.0), 3.0),
    (lambda random: gamma(5.0, COUNT, random, variation=0.3), 0.3), (lambda random: constant(5.0, COUNT), 0.0)])
def test_rate_and_variation(arrivals, variation):
    gaps_s = np.diff(arrivals(stream(1, 0))) * 1e-9
    assert gaps_s.mean() == pytest.approx(0.2, rel=0.06)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(variation, rel=0.06, abs=1e-6)


def test_bursts_and_days_keep_the_mean_rate():
    crowd = bursts(5.0, COUNT, stream(2, 0), ratio=8.0, on_s=5.0, off_s=20.0) * 1e-9
    assert COUNT / crowd[-1] == pytest.approx(5.0, rel=0.05)
    in_burst = (crowd % 25.0 < 5.0).mean()
    assert in_burst == pytest.approx(8 * 5 / (8 * 5 + 20), rel=0.05)
    day = diurnal(5.0, COUNT, stream(3, 0), swing=0.8, period_s=1000.0) * 1e-9
    phase = day[day < 8000.0] % 1000.0
    assert (np.abs(phase - 500) < 100).sum() > 3 * ((phase < 100) | (phase > 900)).sum()


def test_the_same_seed_draws_the_same():
    assert np.array_equal(poisson(3.0, 100, stream(9, 0)), poisson(3.0, 100, stream(9, 0)))
    assert not np.array_equal(poisson(3.0, 100, stream(9, 0)), poisson(3.0, 100, stream(9, 1)))


def test_lengths():
    drawn = uniform(1000, COUNT, stream(0, 1), shortest_ratio=0.8)
    assert (drawn.min(), drawn.max()) == (800, 1000)
    assert drawn.mean() == pytest.approx(900, rel=0.01)
    assert set(fixed(7, 3).tolist()) == {7}
    assert np.median(lognormal(300.0, COUNT, stream(0, 2), sigma=1.0, longest=10**6)) == pytest.approx(300, rel=0.05)
    assert set(empirical(np.array([3, 9]), 100, stream(0, 3)).tolist()) == {3, 9}


def test_sessions_grow_by_what_was_said():
    load = sessions(2.0, 3000, turns=4.0, think_s=10.0, input_tokens_R=fixed(100, 3000),
                    output_tokens_R=fixed(50, 3000), seed=1)
    follows = load.previous_R >= 0
    assert (~follows).sum() == pytest.approx(3000 / 4, rel=0.1)
    before = load.previous_R[follows]
    assert (load.input_tokens_R[follows] == load.input_tokens_R[before] + 150).all()
    assert (load.input_tokens_R[~follows] == 100).all()
    assert load.think_ns_R[follows].mean() * 1e-9 == pytest.approx(10.0, rel=0.1)


def test_clients_keep_their_own_rates_and_lengths():
    clients = [Client(rate_per_s=4.0, input_median=100.0, output_median=10.0, name="chat"),
               Client(rate_per_s=1.0, variation=4.0, input_median=5000.0, output_median=20.0, name="batch")]
    load = mix(clients, 2000.0, seed=3)
    counts = np.bincount(load.class_R)
    assert counts[0] / 2000.0 == pytest.approx(4.0, rel=0.1)
    assert (load.input_tokens_R[load.class_R == 1] == 5000).all()
    assert (np.diff(load.arrival_ns_R) >= 0).all()


@settings(max_examples=20, deadline=None)
@given(rate=st.floats(0.1, 10), length=st.floats(0.1, 4))
def test_scaling_is_what_it_says(rate, length):
    load = read_trace("mooncake-synthetic")
    made = scaled(cut(load, count=200), rate=rate, length=length)
    assert made.arrival_ns_R[-1] == pytest.approx(load.arrival_ns_R[199] / rate, rel=1e-6, abs=2)
    assert made.input_tokens_R.sum() == pytest.approx(load.input_tokens_R[:200].sum() * length, rel=0.01)
    counts = np.diff(made.block_start_R)
    assert (counts <= -(-made.input_tokens_R // 512)).all() or length >= 1


def test_a_cut_keeps_hashes_beside_their_requests():
    load = read_trace("mooncake-synthetic")
    part = cut(load, begin_s=100.0, end_s=200.0)
    first = int(np.flatnonzero(load.arrival_ns_R >= 100 * 10**9)[0])
    for row in (0, len(part) - 1):
        ours = part.block_hash_H[part.block_start_R[row]:part.block_start_R[row + 1]]
        theirs = load.block_hash_H[load.block_start_R[first + row]:load.block_start_R[first + row + 1]]
        assert np.array_equal(ours, theirs)


def test_the_context_is_a_law():
    load = open_loop(constant(1.0, 3), np.array([10, 500, 20]), np.array([5, 600, 5]))
    with pytest.raises(BadInput, match="request 2"):
        refuse_beyond(load, 1000)
    assert len(within(load, 1000)) == 2
