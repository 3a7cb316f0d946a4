"""Grouped products and layers of experts: equal to single products where they must be, and what uneven loads cost."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.compiler import (
    ExpertLayer,
    GroupedGemmParameters,
    RouteParameters,
    expert_layer_time_s,
    expert_loads,
    gemm_time_s,
    grouped_gemm_time_s,
)
from serried.compiler.grouped_gemm import grouped_weight_gradient_time_s
from tests.compiler.chips import round_chip

PARAMETERS = GroupedGemmParameters()
CHIP = round_chip()


def grouped_s(groups, rows, n, k, **more):
    return grouped_gemm_time_s(np.asarray(groups, float), np.asarray(rows, float), np.asarray(n, float),
                               np.asarray(k, float), chip=CHIP, parameters=PARAMETERS, number_format="bf16", **more)


def test_one_group_is_a_single_product():
    alone_s = gemm_time_s(np.array(777.0), np.array(4096.0), np.array(2048.0), chip=CHIP, parameters=PARAMETERS,
                          number_format="bf16")
    assert grouped_s(1, 777, 4096, 2048) == pytest.approx(float(alone_s))


def test_even_groups_are_a_batch():
    batch_s = gemm_time_s(np.array(512.0), np.array(4096.0), np.array(2048.0), batch=8.0, chip=CHIP,
                          parameters=PARAMETERS, number_format="bf16")
    assert grouped_s(8, 8 * 512, 4096, 2048) == pytest.approx(float(batch_s))


def test_only_experts_with_rows_are_read():
    few, half, all_of_them = grouped_s(256, [1, 128, 256], 4096, 4096)
    weight_s = 2 * 4096 * 4096 / 1e12
    assert few < 8 * weight_s
    assert (half - few) / (all_of_them - half) == pytest.approx(1.0, rel=0.1)
    assert all_of_them > 256 * weight_s


def test_no_rows_no_time():
    assert grouped_s(8, 0, 4096, 4096) == 0.0


def test_uneven_loads_cost_tiles_but_not_work():
    uneven = np.array([0.1] * 8 + [1.9] * 8)
    even_s, uneven_s = grouped_s(64, 64 * 128, 4096, 4096), grouped_s(64, 64 * 128, 4096, 4096, loads=uneven)
    assert even_s < uneven_s < 2.0 * even_s


def test_a_fuller_rank_works_longer():
    loads = np.stack([np.ones(16), np.full(16, 2.0)])
    mean_s, full_s = grouped_s([8, 8], 8 * 4096, 4096, 4096, loads=loads)
    assert full_s == pytest.approx(2 * mean_s, rel=0.05)


def test_weight_gradients_sum_over_rows():
    groups, rows, n, k = np.array(4.0), np.array(8192.0), np.array(1024.0), np.array(2048.0)
    found_s = grouped_weight_gradient_time_s(groups, rows, n, k, chip=CHIP, parameters=PARAMETERS, number_format="bf16")
    alone_s = gemm_time_s(k, n, rows / groups, batch=groups, chip=CHIP, parameters=PARAMETERS, number_format="bf16")
    assert found_s == alone_s


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([8, 16, 64, 128, 256]), st.sampled_from([1, 2, 4, 8]),
       st.sampled_from([0.5, 1.0, 1.01, 1.2, 2.0]), st.floats(2.0, 1e4), st.floats(1.0, 64.0))
def test_loads_are_shares_of_the_mean(experts, ranks, exponent, load_range, most):
    loads = expert_loads(experts, ranks, exponent, load_range, most)
    assert (loads >= 0).all()
    assert (np.diff(loads) >= 0).all()
    assert loads.mean() >= 1.0 - 1e-9          # the fullest rank has at least the mean
    assert loads.mean() <= ranks * (1 + 1e-9)
    if ranks == 1:
        assert loads.mean() == pytest.approx(1.0)


def test_balanced_loads_are_even_and_draws_are_repeatable():
    assert (expert_loads(64, 8, 0.0, 100.0) == 1.0).all()
    assert np.array_equal(expert_loads(64, 8, 1.2, 100.0), expert_loads(64, 8, 1.2, 100.0))
    assert expert_loads(64, 8, 1.2, 1000.0).mean() > 1.05


def layer(**changed):
    columns = {"tokens": 1024.0, "hidden": 4096.0, "width": 1024.0, "experts": 64.0, "experts_per_token": 8.0,
               "ranks": 1.0, "products": 2.0} | changed
    arrays = {name: np.array([value]) for name, value in columns.items()}
    return ExpertLayer(**arrays, loads=np.ones((1, 16)))


def layer_s(route=RouteParameters(), **changed):  # noqa: B008 -- frozen
    return float(expert_layer_time_s(layer(**changed), chip=CHIP, products=PARAMETERS, route=route,
                                     number_format="bf16")[0])


def test_a_layer_is_its_products_and_what_stands_around_them():
    route = RouteParameters(hbm_ratio=0.5, activation_ratio=1.0, launch_s=1e-5, expert_s=1e-8)
    rows = 8192
    products_s = float(grouped_s(64, rows, 2048, 4096)) + float(grouped_s(64, rows, 4096, 1024))
    around_s = 2 * 4096 * (3 * rows + 1024) / 0.5e12 + 2 * 1024 * rows * 3 / 1e12 + 1e-5 + 64e-8
    assert layer_s(route) == pytest.approx(products_s + around_s)


def test_expert_parallel_ranks_share_the_layer():
    assert layer_s(tokens=65536.0, ranks=8.0) == pytest.approx(layer_s(tokens=65536.0) / 8, rel=0.2)


def test_seconds_rescale():
    slow = round_chip(second=10.0)
    names = ("ramp_s", "launch_s", "tile_s", "latency_s", "slice_s")
    stretched = dataclasses.replace(PARAMETERS, **{name: 10 * getattr(PARAMETERS, name) for name in names})
    route = dataclasses.replace(RouteParameters(), launch_s=2e-4, expert_s=1e-6)
    found = expert_layer_time_s(layer(), chip=slow, products=stretched, route=route, number_format="bf16")
    assert found[0] == pytest.approx(10 * layer_s())
