"""Figures of accuracy by hand-worked cases."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from serried.evidence.cases import FITTED, accuracy, answer, grouped, is_rate
from serried.evidence.harness import Report
from serried.evidence.intervals import with_intervals
from serried.evidence.spec import CaseResults


def results(**changes: object) -> CaseResults:
    values: dict[str, object] = {
        "area": "training", "ids": ["a", "b", "c", "d"], "predicted": np.array([2.0, 1.0, np.nan, 1.0]),
        "measured": np.array([1.0, 1.0, 1.0, 4.0]), "units": ["s", "s", "s", "tokens/s/GPU"],
        "split": ["validate", "validate", "validate", "calibrate"],
        "evidence_class": ["kernel-calibrated chip"] * 4, "skipped": [None, None, "chip is blank", None],
        "groups": {"source": ["x", "y", "x", "y"]}, "fold": ["f"] * 4}
    return with_intervals(CaseResults(**(values | changes)))  # type: ignore[arg-type]


def test_errors_weigh_both_ways_alike() -> None:
    first = np.array([True, False, False, False])
    twice, half = (accuracy(results(predicted=np.array([factor, 1.0, np.nan, 1.0])), first) for factor in (2.0, 0.5))
    assert twice.median_abs_error == pytest.approx(1.0)
    assert half.median_abs_error == pytest.approx(1.0)
    assert twice.bias == pytest.approx(1.0)
    assert half.bias == pytest.approx(-0.5)


def test_bias_of_a_rate_is_that_of_its_time() -> None:
    too_slow = accuracy(results(), np.array([False, False, False, True]))
    assert too_slow.bias == pytest.approx(3.0)
    assert is_rate("tokens/s/GPU")
    assert is_rate("TFLOP/s/chip")
    assert not is_rate("ms")


def test_fitted_cases_stand_apart() -> None:
    assert grouped([results()], "source")["y"].n == 1
    assert grouped([results()], "split", fitted=True)[FITTED].n == 1
    assert grouped([results()], "source")["x"].n_skipped == 1


def test_the_answer_has_exactly_the_documented_keys() -> None:
    said = json.loads(json.dumps(answer(Report(parts=(("file", results()),), wall_s=0.5)), allow_nan=False))
    assert set(said) == {"schema", "timing", "cases", "summary", "groups"}
    assert said["schema"] == "serried/evidence/1"
    assert said["timing"] == {"items": 4, "unit": "cases", "wall_s": 0.5}
    assert all(set(case) == {"id", "predicted", "measured", "unit", "ratio", "low", "high", "evidence_class", "skipped"}
               for case in said["cases"])
    assert set(said["summary"]) == {"n", "n_skipped", "median_abs_error", "p90_abs_error", "bias", "coverage"}
    assert said["cases"][0]["ratio"] == pytest.approx(2.0)
    assert said["cases"][2]["predicted"] is None
    assert said["cases"][2]["skipped"] == "chip is blank"
    assert said["summary"]["n"] == 2
    assert said["summary"]["n_skipped"] == 1


def test_an_empty_group_has_no_figures() -> None:
    assert math.isnan(accuracy(results(), np.zeros(4, dtype=bool)).coverage)
