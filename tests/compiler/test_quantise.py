"""Casts: hand-worked traffic, cores with one row each, formats that need none."""

from __future__ import annotations

import numpy as np
import pytest

from serried.compiler import QuantiseParameters, quantise_time_s
from tests.compiler.chips import round_chip

PARAMETERS = QuantiseParameters(hbm_ratio=0.5, core_ratio=50.0, launch_s=1e-6)


def cast_s(rows, columns, parameters=PARAMETERS, number_format="fp8", chip=None):
    return quantise_time_s(np.asarray(rows, float), np.asarray(columns, float), chip=chip or round_chip(),
                           parameters=parameters, number_format=number_format)


def test_a_large_cast_is_a_read_and_a_write():
    assert cast_s(10_000, 10_000) == pytest.approx(1e-6 + 3e8 / 0.5e12, rel=0.01)


def test_block_scales_are_written_too():
    assert cast_s(1e5, 1e4, number_format="nvfp4") == pytest.approx(1e-6 + 1e9 * (2 + 0.5 + 1 / 16) / 0.5e12, rel=0.01)


def test_few_rows_leave_cores_idle():
    slow = QuantiseParameters(hbm_ratio=1.0, core_ratio=0.5, launch_s=1e-6)
    one, hundred, more = cast_s([1, 100, 101], 8192, slow)
    assert one == pytest.approx(hundred, rel=0.1)
    assert more - 1e-6 == pytest.approx(2 * (hundred - 1e-6), rel=0.15)
    assert one - 1e-6 == pytest.approx(8192 * 3 * 100 / 0.5e12, rel=0.01)


@pytest.mark.parametrize("number_format", ["bf16", "fp16", "tf32", "fp32", "int4-weight"])
def test_wide_formats_need_no_cast(number_format):
    assert not cast_s([1, 1000], 4096, number_format=number_format).any()


def test_seconds_rescale():
    stretched = QuantiseParameters(hbm_ratio=0.5, core_ratio=50.0, launch_s=7e-6)
    assert cast_s(333, 4096, stretched, chip=round_chip(second=7.0)) == pytest.approx(7 * float(cast_s(333, 4096)))
