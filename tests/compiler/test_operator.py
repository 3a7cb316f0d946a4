"""One dispatch over the kernel families."""

from __future__ import annotations

import numpy as np
import pytest

from serried.compiler import gemm_time_s, grouped_gemm_time_s, operator_kernel_count, operator_time_s, read_profile
from serried.silicon import read_chip
from serried.workload import Elementwise, Exchange, Gemm, GroupedGemm

CHIP, PROFILE = read_chip("h100"), read_profile("h100")
S = np.array([16.0, 4096.0])


def time_s(operator, number_format="bf16"):
    return operator_time_s(operator, chip=CHIP, profile=PROFILE, number_format=number_format)


def product(**more):
    return Gemm(name="mlp.up", m=S, n=np.array(8192.0), k=np.array(4096.0), **more)


def test_a_product_runs_in_the_recipe():
    wide, narrow = time_s(product()), time_s(product(), "fp8")
    assert wide.shape == narrow.shape == (2,)
    assert narrow[1] < 0.7 * wide[1]
    assert np.array_equal(narrow, gemm_time_s(S, np.array(8192.0), np.array(4096.0), chip=CHIP, number_format="fp8",
                                              parameters=PROFILE.parameters("gemm", "fp8")))


def test_a_product_that_needs_precision_stays_in_16_bits():
    assert np.array_equal(time_s(product(high_precision=True), "fp8"), time_s(product()))


def test_experts_by_phase():
    shape = {"groups": np.array(8.0), "rows": S * 8, "n": np.array(2048.0), "k": np.array(4096.0)}
    forward = time_s(GroupedGemm(name="moe", **shape))
    assert np.array_equal(forward, grouped_gemm_time_s(**shape, chip=CHIP, number_format="bf16",
                                                       parameters=PROFILE.parameters("grouped_gemm", "bf16")))
    gradient = time_s(GroupedGemm(name="moe", phase="backward_weight", **shape))
    assert gradient[1] == pytest.approx(forward[1], rel=0.4)


def test_launches_are_counted():
    assert operator_kernel_count(product()) == 1.0
    assert operator_kernel_count(Elementwise(name="rope", read_bytes=S, write_bytes=S, kernels=3)) == 3.0


def test_an_exchange_is_not_timed_on_a_chip():
    with pytest.raises(AssertionError, match="Exchange"):
        time_s(Exchange(name="sum", operation="all_reduce", axis="tensor", payload_bytes=S))
