"""Accuracy of matrix products and layers of experts on shape families that no fit has seen."""

from __future__ import annotations

import functools

import numpy as np
import polars as pl
import pytest

from serried.evidence import gemm, moe
from serried.evidence.harness import MEASUREMENTS, read_cases

#: Bars: median and 90th percentile of the error on the validate half, as fractions.
BARS = {("a100_sxm", "bf16"): (0.065, 0.20), ("h100_sxm", "bf16"): (0.065, 0.20), ("b200_sxm", "bf16"): (0.065, 0.20),
        ("h100_sxm", "fp8"): (0.05, 0.15), ("b200_sxm", "fp8"): (0.05, 0.15), ("a100_sxm", "int8"): (0.11, 0.40),
        ("a100_sxm", "int8-weight"): (0.11, 0.35), ("a100_sxm", "int4-weight"): (0.11, 0.35),
        ("h100_sxm", "fp8-block"): (0.07, 0.25), ("b200_sxm", "fp8-block"): (0.05, 0.15),
        ("b200_sxm", "nvfp4"): (0.05, 0.15)}
EXPERT_BARS = {"bf16": 0.15, "fp8": 0.15, "fp8-block": 0.08}


@functools.cache
def judged(module):
    name = module.__name__.rsplit(".", 1)[-1]
    return module.evaluate(read_cases(MEASUREMENTS / "kernels" / f"{name}.csv.gz"))


def unseen_errors(results, **groups):
    chosen = np.array([split == "validate" and reason is None for split, reason in
                       zip(results.split, results.skipped, strict=True)])
    for name, value in groups.items():
        chosen &= np.array(results.groups[name]) == value
    return np.expm1(np.abs(np.log(results.predicted[chosen] / results.measured[chosen])))


@pytest.mark.parametrize(("chip", "number_format"), sorted(BARS))
def test_products_meet_their_bars(chip, number_format):
    error = unseen_errors(judged(gemm), chip=chip, format=number_format)
    median, p90 = BARS[chip, number_format]
    assert len(error) > 500
    assert np.median(error) <= median
    assert np.quantile(error, 0.9) <= p90


@pytest.mark.parametrize("number_format", sorted(EXPERT_BARS))
def test_experts_meet_their_bars(number_format):
    error = unseen_errors(judged(moe), format=number_format)
    assert len(error) > 500
    assert np.median(error) <= EXPERT_BARS[number_format]


@pytest.mark.parametrize("module", [gemm, moe])
def test_every_case_is_predicted_or_says_why(module):
    results = judged(module)
    for predicted, reason in zip(results.predicted, results.skipped, strict=True):
        assert np.isfinite(predicted) == (reason is None)
    assert len(set(results.ids)) > 0.9 * len(results.ids)


def test_one_library_a_chip_and_format():
    results = judged(gemm)
    seen = {(chip, number_format, library) for chip, number_format, library, reason in zip(
        results.groups["chip"], results.groups["format"], results.groups["library"], results.skipped, strict=True)
        if reason is None}
    assert len({key[:2] for key in seen}) == len(seen)


def test_a_users_cases_are_judged_and_bad_rows_say_why():
    frame = pl.DataFrame({
        "chip": ["h100", "h100", "nonesuch", "a100", "h100", "h20"], "m": ["4096", "x", "1", "16", "16", "4096"],
        "n": ["4096"] * 6, "k": ["4096"] * 6, "dtype": ["bf16", "bf16", "bf16", "fp8", "int3_wo", "bf16"],
        "time_us": ["210", "5", "5", "5", "5", "1000"]})
    results = gemm.evaluate(frame)
    assert results.measured[0] == pytest.approx(210e-6)
    assert 0.8 < results.predicted[0] / results.measured[0] < 1.2
    assert "m:" in str(results.skipped[1])
    assert "nonesuch" in str(results.skipped[2])
    assert "fp8" in str(results.skipped[3])
    assert "int3_wo" in str(results.skipped[4])
    assert results.skipped[5] is None
    assert list(results.evidence_class)[::5] == ["kernel-calibrated chip", "same family"]


def test_bad_expert_rows_say_why():
    row = {"chip": "h100", "backend": "", "bver": "", "kernel_source": "mine", "moe_dtype": "bfloat16",
           "num_tokens": "64", "hidden_size": "4096", "inter_size": "1536", "topk": "8", "num_experts": "128",
           "moe_tp_size": "1", "moe_ep_size": "1", "distribution": "balanced", "time_us": "700"}
    changes = [{}, {"distribution": "uniform"}, {"moe_ep_size": "3"}, {"chip": "nonesuch"}, {"moe_dtype": "int4_wo"},
               {"num_tokens": "-1"}]
    results = moe.evaluate(pl.DataFrame([row | change for change in changes]))
    assert results.skipped[0] is None
    assert 0.3 < results.predicted[0] / results.measured[0] < 3.0
    for position, word in enumerate(["uniform", "3 ranks", "nonesuch", "int4_wo", "num_tokens"], start=1):
        assert word in str(results.skipped[position])
