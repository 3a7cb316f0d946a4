import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serried.insight.shapley import coalitions, shapley_values


def test_glove_game_by_hand():
    """One left glove (player 0), two right gloves: a pair is worth 1. Published values: 2/3, 1/6, 1/6."""
    on = coalitions(3)
    value = (on[:, 0] & (on[:, 1] | on[:, 2])).astype(float)
    assert shapley_values(value) == pytest.approx([2 / 3, 1 / 6, 1 / 6])


@given(st.integers(1, 7), st.randoms(use_true_random=False))
def test_efficiency_the_bars_add_up(players, chance):
    value = np.array([chance.uniform(-5, 5) for _ in range(2**players)])
    assert shapley_values(value).sum() == pytest.approx(value[-1] - value[0], abs=1e-12)


@given(st.integers(2, 6), st.randoms(use_true_random=False))
def test_null_player_gets_nothing_and_twins_get_the_same(players, chance):
    on = coalitions(players)
    table = {}
    value = np.empty(2**players)
    for row, switches in enumerate(on):
        others = tuple(switches[2:])  # depends on how many of players 0 and 1 are on; the last player never matters
        key = (int(switches[0]) + int(switches[1]), others[:-1] if players > 2 else ())
        value[row] = table.setdefault(key, chance.uniform(-5, 5))
    bars = shapley_values(value)
    assert bars[0] == pytest.approx(bars[1], abs=1e-12)
    if players > 2:
        assert bars[-1] == pytest.approx(0.0, abs=1e-12)


def test_mean_over_all_orders():
    rng = np.random.default_rng(7)
    value = rng.normal(size=2**4)
    marginal = np.zeros(4)
    for order in itertools.permutations(range(4)):
        coalition = 0
        for player in order:
            marginal[player] += value[coalition | 1 << player] - value[coalition]
            coalition |= 1 << player
    assert shapley_values(value) == pytest.approx(marginal / 24)


def test_further_axes_are_kept():
    value = np.random.default_rng(1).normal(size=(8, 5))
    assert shapley_values(value)[:, 3] == pytest.approx(shapley_values(value[:, 3]))
