"""Fits of layers of experts: known parameters come back; a profile without measured layers takes them over."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from serried.calibration.moe import fit_experts
from serried.compiler import ExpertLayer, RouteParameters, expert_layer_time_s, read_profile
from serried.errors import BadInput
from serried.silicon import read_chip

CHIP = read_chip("h100")
PRODUCTS = read_profile("h100").parameters("grouped_gemm", "fp8-block")
ROUTE = RouteParameters(hbm_ratio=0.4, activation_ratio=0.8, launch_s=3e-5, expert_s=2e-7)


def layers(count=120):
    chance = np.random.default_rng(5)
    experts = chance.choice([8.0, 64.0, 256.0], count)
    return ExpertLayer(
        tokens=2.0 ** chance.integers(0, 14, count), hidden=chance.choice([2048.0, 4096.0], count),
        width=chance.choice([512.0, 2048.0], count), experts=experts,
        experts_per_token=chance.choice([2.0, 8.0], count),
        ranks=chance.choice([1.0, 8.0], count), products=np.full(count, 2.0), loads=np.ones((count, 16)))


def test_known_parameters_come_back():
    layer = layers()
    time_s = expert_layer_time_s(layer, chip=CHIP, products=PRODUCTS, route=ROUTE, number_format="fp8-block")
    start = dataclasses.replace(PRODUCTS, hbm_ratio=0.6, sustained_rate_ratio=0.6)
    products, route, residuals = fit_experts(layer, time_s, chip=CHIP, number_format="fp8-block", start=start)
    assert products.hbm_ratio == pytest.approx(PRODUCTS.hbm_ratio, rel=0.1)
    assert route.expert_s == pytest.approx(ROUTE.expert_s, rel=0.15)
    assert np.median(np.abs(residuals)) < 0.01


def test_no_rows_are_refused():
    empty = ExpertLayer(**{name: getattr(layers(1), name)[:0] for name in ExpertLayer.__slots__})
    with pytest.raises(BadInput, match="rows"):
        fit_experts(empty, np.empty(0), chip=CHIP, number_format="bf16", start=PRODUCTS)


def test_a_chip_without_measured_layers_takes_them_over():
    own, taken = (read_profile(name) for name in ("h100", "b200"))
    assert own.fit("grouped_gemm", "bf16").rows > 500
    assert taken.fit("grouped_gemm", "bf16").rows == 0
    assert taken.parameters("grouped_gemm", "bf16").core_count != own.parameters("grouped_gemm", "bf16").core_count
    launch_s = [profile.parameters("route", "bf16").launch_s for profile in (own, taken)]
    assert launch_s[0] == pytest.approx(launch_s[1], rel=0.5)
