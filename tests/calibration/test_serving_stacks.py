"""Fits of serving stacks: known parameters come back, and a file keeps what was not fitted."""

import re
from dataclasses import replace

import numpy as np
import pytest

from serried.calibration.serving_stacks import believed, fit_serving_stacks, stack_file_text
from serried.evidence.harness import MEASUREMENTS, read_cases
from serried.evidence.serving_points import Point, points_of
from serried.software import read_stack


@pytest.fixture(scope="module")
def dense() -> list[Point]:
    points = points_of(read_cases(MEASUREMENTS / "serving" / "published.csv"))
    return [point for point in points if point.model == "Llama 3.1 8B"][:12]


def test_faster_measurements_are_faster_software(dense: list[Point]):
    """Every figure 40 % higher: the same kernels must run faster, or less stand between them."""
    as_printed, = fit_serving_stacks(dense)
    faster, = fit_serving_stacks([replace(point, measured=point.measured * 1.4) for point in dense])
    gain = np.log(faster.fit.parameters["gemm_rate_ratio"] / as_printed.fit.parameters["gemm_rate_ratio"])
    assert gain > 0.01
    assert faster.fit.parameters["unfused_fraction"] < as_printed.fit.parameters["unfused_fraction"]


def test_validate_figures_are_never_fitted(dense: list[Point]):
    assert fit_serving_stacks([replace(point, split="validate") for point in dense]) == []


def test_fits_are_written_beside_what_is_believed_of_any_chip(dense: list[Point]):
    text = 'name = "x"\n\n[[fit]]\nchip_family = "*"\nrows = 0\n\n[[fit]]\nchip_family = "old"\nrows = 3\n'
    written = stack_file_text(text, fit_serving_stacks(dense))
    assert re.findall(r'chip_family = "(.*)"', written) == ["*", "hopper"]
    assert stack_file_text(written, fit_serving_stacks(dense)) == written


def test_belief_is_the_fit_for_any_chip():
    stack = read_stack("trtllm", "*")
    assert believed(stack)["gemm_rate_ratio"].value == stack["gemm_rate_ratio"]
