"""Published reliability: every row is predicted or says why not; nothing is predicted from itself."""

import polars as pl
import pytest

from serried.catalogue.entry import DATA
from serried.evidence.reliability import _others, _rates_per_node_day, _scale, evaluate

FRAME = pl.read_csv(DATA / "measurements" / "fleet" / "reliability" / "reliability.csv", infer_schema=False)
RESULTS = evaluate(FRAME)


def row(metric: str) -> int:
    return FRAME["metric"].to_list().index(metric)


def test_the_large_run_within_ten_percent():
    for metric in ("unexpected_interruptions", "effective_training_time"):
        place = row(metric)
        assert RESULTS.predicted[place] == pytest.approx(RESULTS.measured[place], rel=0.1)


def test_no_fleet_is_predicted_from_itself():
    rates = _rates_per_node_day(FRAME.to_dicts())
    assert sorted(rates.values()) == pytest.approx([2.34e-3, 419 / (2048 * 54), 6.5e-3])
    assert _others(rates, "Llama 3 Herd of Models (Meta)") == pytest.approx((2.34e-3 * 6.5e-3) ** 0.5)
    changed = FRAME.with_columns(value=pl.when(pl.col("metric") == "unexpected_interruptions").then(
        pl.lit("9999")).otherwise(pl.col("value")))
    place = row("unexpected_interruptions")
    assert evaluate(changed).predicted[place] == RESULTS.predicted[place]


def test_every_row_is_used_or_says_why():
    assert len(RESULTS.ids) == FRAME.height
    used = [reason is None for reason in RESULTS.skipped]
    assert sum(used) == 9
    for place, predicted in enumerate(used):
        if predicted:
            assert RESULTS.low[place] < RESULTS.predicted[place] < RESULTS.high[place]
        else:
            assert len(RESULTS.skipped[place]) > 20


def test_formulas_by_hand():
    place = row("MTTF_projected")
    assert RESULTS.predicted[place] == pytest.approx(24 / (2048 * 6.5e-3))
    assert RESULTS.predicted[row("MTTF")] == pytest.approx(1 / 6.5e-3)
    assert _scale({"system_scale": "16384 H100 / 54 days"}) == (16384, 54)
