"""Matrix products: hand-worked tiles, physical limits, units by rescaling, and what a chip file may leave out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.compiler import read_profile
from serried.compiler.gemm import ELEMENT_BYTES, GemmParameters, gemm_time_s, soft_maximum
from serried.errors import BadInput, MissingFigure
from serried.silicon import read_chip
from tests.compiler.chips import round_chip

#: A library without losses: one tile, an engine at its peak, memories that never bind.
PERFECT = GemmParameters(
    rate_ratio=1.0, sustained_rate_ratio=1.0, core_feed_ratio=40.0, hbm_ratio=1.0, drain_ratio=60.0, resident_ratio=2.0,
    ramp_s=1e-9, launch_s=1e-8, tile_s=1e-10, latency_s=1e-9, slice_s=1e-9, sharpness=16.0, slice_limit=1.0,
    resident_tile_elements=128.0 * 128.0, tiles=((128, 128),))
SHIPPED = {name: read_profile(name) for name in ("a100", "h100", "b200")}


def time_s(m, n, k, parameters=PERFECT, chip=None, number_format="bf16", **more):
    return gemm_time_s(np.asarray(m, float), np.asarray(n, float), np.asarray(k, float), chip=chip or round_chip(),
                       parameters=parameters, number_format=number_format, **more)


def test_one_wave_of_hand_worked_tiles():
    # 100 tiles on 100 cores of 1 TFLOP/s: each walks 2 * 128 * 128 * 16384 flop
    by_hand = 2 * 128 * 128 * 16384 / 1e12
    assert time_s(1280, 1280, 16384) == pytest.approx(by_hand, rel=0.06)   # the norm of two equal bounds adds 4 %


def test_one_tile_more_than_cores_takes_a_second_wave():
    one, two = time_s([1280, 1281], 1280, 16384)
    assert two == pytest.approx(2 * one, rel=0.1)


def test_resident_tiles_hide_each_others_latency():
    slow = dataclasses.replace(PERFECT, latency_s=1e-5, tiles=((64, 64),))
    alone = dataclasses.replace(slow, resident_tile_elements=64.0 * 64.0)
    shared = dataclasses.replace(slow, resident_tile_elements=4 * 64.0 * 64.0)
    m = 64 * 20
    assert time_s(m, m, 4096, shared) < 0.5 * time_s(m, m, 4096, alone)


def test_slices_of_k_fill_idle_cores():
    sliced = dataclasses.replace(PERFECT, slice_limit=32.0)
    whole_s, sliced_s = time_s(128, 128, 65536), time_s(128, 128, 65536, sliced)
    assert sliced_s < whole_s / 10
    assert time_s(12800, 12800, 512, sliced) == time_s(12800, 12800, 512)   # no idle core, no slices


def test_one_row_costs_the_weights():
    slow = dataclasses.replace(PERFECT, hbm_ratio=0.8, tiles=((8, 128),))
    assert time_s(1, 16384, 16384, slow) == pytest.approx(2 * 16384**2 / 0.8e12, rel=0.05)


def test_narrow_weights_are_read_narrow():
    flat = dataclasses.replace(PERFECT, tiles=((8, 128),))
    assert time_s(1, 16384, 16384, flat, weight_bytes_per_element=0.5) < 0.4 * time_s(1, 16384, 16384, flat)


def test_batch_is_that_many_grids():
    fed = round_chip(hbm_bandwidth=1e14)
    batch_s, one_s = time_s(128, 128, 16384, chip=fed, batch=100.0), time_s(1280, 1280, 16384, chip=fed)
    assert batch_s == pytest.approx(float(one_s), rel=0.05)


def test_a_shape_does_not_depend_on_its_neighbours():
    chance = np.random.default_rng(1)
    m, n, k = np.ceil(2 ** chance.uniform(0, 14, (3, 30_000)))
    parameters = SHIPPED["h100"].parameters("gemm", "bf16")
    many = time_s(m, n, k, parameters)
    some = np.arange(0, 30_000, 1499)
    assert np.array_equal(many[some], time_s(m[some], n[some], k[some], parameters))
    assert time_s(m.reshape(3, -1), 64, 64).shape == (3, 10_000)
    assert time_s(5, 64, 64).shape == ()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40_000), st.integers(8, 70_000), st.integers(8, 70_000), st.sampled_from(sorted(SHIPPED)),
       st.sampled_from(["bf16", "fp8"]))
def test_never_faster_than_the_engines_or_the_weights(m, n, k, name, number_format):
    if name == "a100":
        number_format = "bf16"
    chip = read_chip(name)
    predicted_s = time_s(m, n, k, SHIPPED[name].parameters("gemm", number_format), chip, number_format)
    assert predicted_s >= 2.0 * m * n * k / chip.matrix_peak_flop_per_s(number_format)
    assert predicted_s >= ELEMENT_BYTES[number_format] * n * k / chip.need("hbm_bandwidth")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20_000), st.integers(8, 20_000), st.integers(8, 20_000), st.floats(1e-3, 1e3))
def test_a_time_rescales_as_the_second(m, n, k, second):
    """Rates over `second`, seconds times it: half the second, double the peaks and bandwidths, half the time."""
    parameters = SHIPPED["h100"].parameters("gemm", "bf16")
    seconds = {column.name: getattr(parameters, column.name) * second for column in dataclasses.fields(parameters)
               if column.metadata.get("unit") == "s"}
    assert set(seconds) >= {"launch_s", "tile_s", "latency_s", "slice_s", "ramp_s"}
    stretched = dataclasses.replace(parameters, **seconds)
    assert float(time_s(m, n, k, stretched, round_chip(second=second))) == pytest.approx(
        second * float(time_s(m, n, k, parameters)), rel=1e-9)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_large_products_grow_with_the_work(name):
    edge = np.array([8192.0, 16384.0, 32768.0])
    times = time_s(edge, edge, edge, SHIPPED[name].parameters("gemm", "bf16"), read_chip(name))
    assert np.allclose(times[1:] / times[:-1], 8.0, rtol=0.08)
    assert (np.diff(time_s(2.0 ** np.arange(8, 16), 8192, 8192, SHIPPED[name].parameters("gemm", "bf16"),
                           read_chip(name))) > 0).all()


def test_cores_scratchpad_and_cache_may_be_unknown():
    chip = read_chip("h100")
    figures = {name: figure for name, figure in chip.figures.items()
               if name not in ("core_count", "scratchpad_per_core", "cache")}
    bare = dataclasses.replace(chip, figures=figures)
    parameters = SHIPPED["h100"].parameters("gemm", "bf16")
    m = np.array([1.0, 100.0, 4096.0])
    assert np.allclose(time_s(m, 4096, 4096, parameters, bare), time_s(m, 4096, 4096, parameters, chip), rtol=0.01)


def test_what_is_missing_is_named():
    chip = round_chip()
    with pytest.raises(BadInput, match="number format"):
        time_s(8, 8, 8, chip=chip, number_format="nvfp4")
    figures = {name: figure for name, figure in chip.figures.items() if name != "hbm_bandwidth"}
    with pytest.raises(MissingFigure, match="hbm_bandwidth"):
        time_s(8, 8, 8, chip=dataclasses.replace(chip, figures=figures))


@given(st.floats(1e-9, 1.0), st.floats(1e-9, 1.0), st.sampled_from([2.0, 3.0, 4.0, 16.0]))
def test_a_soft_maximum_lies_between_the_maximum_and_the_sum(one, other, sharpness):
    joined = soft_maximum(np.asarray(one), np.asarray(other), sharpness)
    assert max(one, other) * (1 - 1e-9) <= joined <= (one + other) * (1 + 1e-9)
    assert joined == pytest.approx(np.linalg.norm([one, other], ord=sharpness), rel=1e-9)


def test_power_sets_the_sustained_rate_of_a_relative():
    """Half the power per flop holds the square root of a half; a slow engine on full power comes near its peak."""
    limited = dataclasses.replace(PERFECT, sustained_rate_ratio=0.8, reference_j_per_flop=4e-12)
    edge = 128.0 * 100
    same, half, ample, unknown = (
        float(time_s(edge, edge, edge, limited, chip)) for chip in (
            round_chip(board_power=400.0), round_chip(board_power=200.0), round_chip(board_power=4000.0), round_chip()))
    ideal_s = 2 * edge**3 / 100e12
    assert same == unknown
    assert same == pytest.approx(ideal_s / 0.8, rel=0.02)
    assert half == pytest.approx(same * np.sqrt(2), rel=0.02)
    assert ideal_s <= ample == pytest.approx(ideal_s, rel=0.1)
