"""The published comparison of placement rules: one list here, all of them in `benchmarks.fleet_placement`."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from serried.evidence.harness import MEASUREMENTS, read_cases
from serried.evidence.intervals import with_intervals
from serried.evidence.placement import evaluate

PUBLISHED = MEASUREMENTS / "fleet" / "openb" / "fgd_expected_gpu_alloc.csv"


def test_rows_are_replayed_and_keep_their_own_intervals():
    frame = read_cases(PUBLISHED).filter(pl.col("workload").str.ends_with("default")
                                         & pl.col("sc_policy").is_in(["05-BestFit", "06-FGD"]))
    results = with_intervals(evaluate(frame))
    assert len(results.ids) == 12
    assert np.abs(results.predicted - results.measured).max() < 0.6
    assert (results.low < results.predicted).all()
    assert ((results.measured > results.low) & (results.measured < results.high)).mean() >= 0.5


def test_what_cannot_be_replayed_says_why():
    frame = read_cases(PUBLISHED).head(3).with_columns(
        pl.Series("workload", ["a_list_of_mine", "openb_pod_list_default", "openb_pod_list_default"]),
        pl.Series("sc_policy", ["01-Random", "07-Oracle", "01-Random"]), pl.lit("lots").alias("130_mean"))
    results = evaluate(frame.head(2))
    reasons = {reason.split("'")[0] for reason in results.skipped}
    assert reasons == {"the pod list ", "", "no published mean"} - (set() if "no published mean" in reasons else {
        "no published mean"})
    assert np.isnan(results.predicted).all()


@pytest.mark.parametrize("text", ["", "x", "-1", "101", "nan", None])
def test_a_figure_that_is_no_share_is_none(text):
    from serried.evidence.placement import _number

    assert _number(text) is None
