"""Arrival processes have the rate and the burstiness that they say, and are their seed's."""

from __future__ import annotations

import numpy as np
import pytest

from serried.errors import BadInput
from serried.traffic import bursts, constant, diurnal, gamma, poisson, stream

COUNT, RATE = 40_000, 8.0


def gaps_s(arrival_ns):
    return np.diff(arrival_ns) * 1e-9


def of(name, seed=1):
    random = stream(seed)
    return {"constant": lambda: constant(RATE, COUNT), "poisson": lambda: poisson(RATE, COUNT, random),
            "bunched": lambda: gamma(RATE, COUNT, random, variation=3.0),
            "regular": lambda: gamma(RATE, COUNT, random, variation=0.5),
            "bursts": lambda: bursts(RATE, COUNT, random, ratio=10.0, on_s=5.0, off_s=45.0),
            "diurnal": lambda: diurnal(RATE, COUNT, random, swing=0.8, period_s=500.0)}[name]()


@pytest.mark.parametrize(("name", "variation"), [("constant", 0.0), ("poisson", 1.0), ("bunched", 3.0),
                                                 ("regular", 0.5)])
def test_rate_and_variation_of_gaps(name, variation):
    gaps = gaps_s(of(name))
    assert gaps.mean() == pytest.approx(1 / RATE, rel=0.06 if name == "bunched" else 0.02)
    assert gaps.std() / gaps.mean() == pytest.approx(variation, rel=0.05, abs=1e-6)


def test_bursts_keep_the_mean_and_the_ratio():
    time_s = of("bursts") * 1e-9
    assert len(time_s) / time_s[-1] == pytest.approx(RATE, rel=0.03)
    on = (time_s % 50.0) < 5.0
    assert (on.sum() / 5.0) / ((~on).sum() / 45.0) == pytest.approx(10.0, rel=0.05)


def test_a_day_is_lowest_at_its_beginning():
    time_s = of("diurnal") * 1e-9 % 500.0
    by_tenth = np.histogram(time_s, bins=10, range=(0, 500))[0] / len(time_s) * 10
    middle = (np.arange(10) + 0.5) / 10
    expected = 1 - 0.8 * np.cos(2 * np.pi * middle) * np.sin(np.pi / 10) / (np.pi / 10)
    assert by_tenth == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("name", ["constant", "poisson", "bunched", "bursts", "diurnal"])
def test_a_seed_is_an_answer(name):
    one, same = of(name), of(name)
    assert one.dtype == np.int64
    assert (np.diff(one) >= 0).all()
    assert one[0] >= 0
    assert np.array_equal(one, same)
    if name != "constant":
        assert not np.array_equal(one, of(name, seed=2))


@pytest.mark.parametrize("make", [
    lambda random: constant(0.0, 5), lambda random: poisson(-1.0, 5, random),
    lambda random: poisson(float("nan"), 5, random), lambda random: gamma(1.0, 5, random, variation=0.0),
    lambda random: diurnal(1.0, 5, random, swing=1.0), lambda random: bursts(1.0, 5, random, ratio=2, on_s=0, off_s=1),
    lambda random: constant(1e-10, 5)])
def test_what_is_no_process_is_refused(make):
    with pytest.raises(BadInput):
        make(stream(0))
