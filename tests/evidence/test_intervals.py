"""Intervals: as wide as the residuals of measured cases say, wider where less is known."""

from __future__ import annotations

import numpy as np
import pytest

from serried.evidence.intervals import Spread, half_width, interval, measured_spreads, spread_text, with_intervals
from serried.evidence.spec import EVIDENCE_CLASSES, CaseResults

KNOWN = {("kernels", "kernel-calibrated chip", ""): Spread(
    area="kernels", evidence_class="kernel-calibrated chip", kind="", half_width=0.1, case_count=100, fold_count=10)}


def test_less_is_known_wider_it_gets() -> None:
    widths = [half_width("kernels", evidence_class, spreads=KNOWN) for evidence_class in EVIDENCE_CLASSES]
    assert widths == sorted(widths)
    assert widths[0] == pytest.approx(0.1)
    assert widths[0] < widths[1] < widths[2]


def test_extra_spread_adds_in_quadrature() -> None:
    wide = half_width("kernels", EVIDENCE_CLASSES[0], extra=(np.expm1(0.24), ), spreads=KNOWN)
    assert wide == pytest.approx(np.hypot(0.1, 0.24))


def test_an_interval_is_around_one() -> None:
    low, high = interval("nothing measured", "data sheet only")
    assert low < 1 < high
    assert low * high == pytest.approx(1.0)


def cases(count: int, sigma: float, seed: int, split: str) -> CaseResults:
    chance = np.random.default_rng(seed)
    measured = np.exp(chance.normal(0, sigma, count))
    return CaseResults(area="made up", ids=[str(row) for row in range(count)], predicted=np.ones(count),
                       measured=measured, units=["s"] * count, split=[split] * count,
                       evidence_class=[EVIDENCE_CLASSES[0]] * count, skipped=[None] * count,
                       fold=[str(row % 20) for row in range(count)])


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.4])
def test_four_of_five_unseen_cases_lie_inside(sigma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    spreads = {("made up", EVIDENCE_CLASSES[0], ""): measured_spreads(cases(400, sigma, 1, "calibrate"))[0]}
    monkeypatch.setattr("serried.evidence.intervals.read_spreads", lambda: spreads)
    unseen = with_intervals(cases(2000, sigma, 2, "validate"))
    inside = (unseen.measured >= unseen.low) & (unseen.measured <= unseen.high)
    assert 0.74 < inside.mean() < 0.9


def test_validate_cases_make_no_spread() -> None:
    assert measured_spreads(cases(400, 0.1, 1, "validate")) == []


def test_the_text_is_toml_with_a_schema() -> None:
    text = spread_text(list(KNOWN.values()))
    assert text.startswith('schema = "serried/spreads/1"')
    assert "half_width = 0.1" in text
