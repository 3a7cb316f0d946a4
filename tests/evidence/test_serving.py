"""Rows become points, notes on launches are read, and the fusion ablation is replayed without a fit."""

import numpy as np
import polars as pl
import pytest

from serried.catalogue.entry import DATA
from serried.evidence.serving import evaluate
from serried.evidence.serving_points import COLUMNS, launch_note, points_of

SETTINGS = DATA / "measurements" / "serving" / "zhenwu_810e_measured.csv"
ENGINES = DATA / "measurements" / "serving" / "inference_measured.csv"
PUBLISHED = DATA / "measurements" / "serving" / "published.csv"


@pytest.fixture(scope="module")
def settings():
    frame = pl.read_csv(SETTINGS, infer_schema=False)
    return frame, evaluate(frame)


def row(results, name):
    return list(results.ids).index(name)


@pytest.mark.parametrize(("text", "kernels", "eager", "fused"), [
    ("unfused eager, 11296 device kernels", 11296.0, True, False),
    ("fused, 409 device kernels", 409.0, True, True),
    ("fused eager, 290 kernels per token", 290.0, True, True),
    ("fused + graph capture, 1 launch per token", 0.0, False, True)])
def test_notes_on_launches(text, kernels, eager, fused):
    note = launch_note(text)
    assert note is not None
    assert (note.kernels, note.eager, note.fused) == (kernels, eager, fused)


def test_a_setting_that_says_nothing_of_launches():
    assert launch_note("community stack") is None


def test_every_row_is_predicted_or_skipped_with_a_reason(settings):
    frame, results = settings
    assert len(results.ids) == frame.height
    for value, reason, measured in zip(results.predicted, results.skipped, results.measured, strict=True):
        assert (reason is None) == bool(np.isfinite(value))
        assert reason is None or len(reason) > 10
        assert reason is not None or measured > 0
    assert set(results.split) == {"validate"}


def test_replay_of_the_fusion_ablation(settings):
    """Each step of the ablation is predicted in its direction and within a factor of 2.5, with nothing fitted on it."""
    _, results = settings
    predicted = {name: results.predicted[row(results, name)] for name in ("P10", "P11", "P20", "P21", "P22")}
    measured = {name: results.measured[row(results, name)] for name in predicted}
    assert predicted["P10"] > predicted["P11"]
    assert predicted["P20"] > predicted["P21"] >= predicted["P22"]
    for name, value in predicted.items():
        assert abs(np.log(value / measured[name])) < np.log(2.5), name
    fusing = np.log(predicted["P20"] / predicted["P22"]) / np.log(measured["P20"] / measured["P22"])
    assert 0.5 < fusing < 1.5


def test_a_throughput_above_the_peak_is_skipped_with_the_arithmetic(settings):
    _, results = settings
    reason = results.skipped[row(results, "P05")]
    assert reason is not None
    assert "TFLOP/s a chip, above" in reason


def test_what_is_no_language_model_is_skipped(settings):
    _, results = settings
    assert "not a figure of serving" in str(results.skipped[row(results, "P40")])


@pytest.mark.parametrize("file", [ENGINES, PUBLISHED])
def test_other_files_of_serving_points_are_recognised(file):
    frame = pl.read_csv(file, infer_schema=False)
    assert sum(set(columns) <= set(frame.columns) for columns in COLUMNS.values()) == 1
    load = "concurrency_or_batch" if "concurrency_or_batch" in frame.columns else "batch_size"
    frame = frame.filter(pl.col(load).str.contains(r"^[0-9.]+$"))
    points = points_of(frame.head(40))
    assert len(points) >= 40
    assert any(point.skipped is None for point in points)
    results = evaluate(frame.head(12))
    assert np.isfinite(results.predicted).any()


def test_mangled_cells_are_skipped_not_raised(settings):
    frame, _ = settings
    for column in ("n_chips", "input_len", "output_len", "concurrency", "value", "dtype", "chip", "model", "metric"):
        for bad in ("", "-3", "nan", "many", "1e99", None):
            broken = frame.head(1).with_columns(pl.lit(bad, dtype=pl.String).alias(column))
            results = evaluate(broken)
            assert len(results.ids) == 1
            assert results.skipped[0] is not None or np.isfinite(results.predicted[0])
