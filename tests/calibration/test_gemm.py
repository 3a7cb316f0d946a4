"""Fits of matrix products: known parameters come back, few rows stay near the start, a user's file is read."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from serried.calibration.gemm import GemmRows, fit_gemm, gemm_rows, read_gemm_rows
from serried.catalogue.measurements import kernel_split, read_measurements
from serried.compiler import QuantiseParameters, gemm_time_s, quantise_time_s, read_profile
from serried.compiler.gemm import GemmParameters
from serried.errors import BadInput
from serried.silicon import read_chip

CHIP = read_chip("h100")
SHIPPED = read_profile("h100").parameters("gemm", "bf16")


def rows_of(parameters, count=400, number_format="bf16", casts=None):
    chance = np.random.default_rng(3)
    m, n, k = np.ceil(2 ** chance.uniform((0, 6, 6), (13, 14, 14), (count, 3))).T
    time_s = gemm_time_s(m, n, k, chip=CHIP, parameters=parameters, number_format=number_format)
    if casts is not None:
        time_s = time_s + quantise_time_s(m, k, chip=CHIP, parameters=casts, number_format=number_format)
    return GemmRows(chip=CHIP, number_format=number_format, m=m, n=n, k=k, time_s=time_s)


def test_known_parameters_come_back():
    start = dataclasses.replace(SHIPPED, hbm_ratio=0.6, sustained_rate_ratio=0.6, launch_s=4e-6)
    found = fit_gemm([rows_of(SHIPPED)], start=start, fitted=("hbm_ratio", "sustained_rate_ratio", "launch_s"))
    for name in ("hbm_ratio", "sustained_rate_ratio", "launch_s"):
        assert getattr(found.parameters, name) == pytest.approx(getattr(SHIPPED, name), rel=0.02)
    assert np.abs(found.residuals).max() < 0.02


def test_a_cast_is_told_from_the_product():
    casts = QuantiseParameters(hbm_ratio=0.4, core_ratio=20.0, launch_s=8e-6)
    found = fit_gemm([rows_of(SHIPPED, number_format="fp8", casts=casts)], start=SHIPPED, fitted=("hbm_ratio",),
                     casts=QuantiseParameters())
    assert found.casts is not None
    assert found.casts.launch_s == pytest.approx(8e-6, rel=0.05)
    assert found.casts.hbm_ratio == pytest.approx(0.4, rel=0.05)


def test_few_rows_move_a_profile_little_and_many_move_it():
    slow = dataclasses.replace(SHIPPED, sustained_rate_ratio=SHIPPED.sustained_rate_ratio / 2,
                               hbm_ratio=SHIPPED.hbm_ratio / 2)
    few = fit_gemm([rows_of(slow, 3)], start=SHIPPED, prior_weight=300.0).parameters
    many = fit_gemm([rows_of(slow, 400)], start=SHIPPED).parameters
    assert few.hbm_ratio == pytest.approx(SHIPPED.hbm_ratio, rel=0.2)
    assert many.hbm_ratio == pytest.approx(slow.hbm_ratio, rel=0.1)


def test_the_shipped_profile_is_what_the_measurements_give():
    rows = gemm_rows(read_measurements("gemm"), chip=CHIP, number_format="bf16", library="trtllm")
    defaults = {column.name: column.default for column in dataclasses.fields(GemmParameters)
                if column.metadata.get("unit") in ("1", "s") and column.name not in ("cache_s", "core_count")}
    found = fit_gemm([rows], start=dataclasses.replace(SHIPPED, **defaults))
    for column in dataclasses.fields(GemmParameters):
        if column.name != "tiles":
            assert getattr(found.parameters, column.name) == pytest.approx(getattr(SHIPPED, column.name), rel=1e-2)


def test_fits_see_the_calibrate_half_only():
    frame = read_measurements("gemm")
    seen = gemm_rows(frame, chip=CHIP, number_format="bf16", library="trtllm")
    every = gemm_rows(frame, chip=CHIP, number_format="bf16", library="trtllm", split=None)
    assert 0.4 < len(seen) / len(every) < 0.6
    assert {kernel_split(f"{n:.0f},{k:.0f}") for n, k in zip(seen.n, seen.k, strict=True)} == {"calibrate"}


def test_a_users_file(tmp_path):
    path = tmp_path / "gemm.csv"
    path.write_text("m,n,k,dtype,time_us\n16,4096,4096,bf16,12.5\n4096,4096,4096,fp8,95\n32,4096,4096,bfloat16,13\n")
    found = read_gemm_rows(path, chip=CHIP)
    assert sorted(found) == ["bf16", "fp8"]
    assert found["bf16"].time_s == pytest.approx([12.5e-6, 13e-6])
    assert found["fp8"].m.tolist() == [4096.0]


@pytest.mark.parametrize(("text", "told"), [
    ("m,n,k,dtype,time_us\n16,0,4096,bf16,12\n", "row 2"),
    ("m,n,k,dtype,time_us\n16,8,4096,bf17,12\n", "dtype"),
    ("m,n,dtype,time_us\n16,8,bf16,12\n", "header"),
    ("m,n,k,dtype,time_us\n16,8,8,bf16,fast\n", "row 2"),
])
def test_a_bad_file_is_told_what_is_wrong(tmp_path, text, told):
    path = tmp_path / "gemm.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=told):
        read_gemm_rows(path, chip=CHIP)


def test_no_rows_are_refused():
    with pytest.raises(BadInput, match="rows"):
        fit_gemm([], start=SHIPPED)
