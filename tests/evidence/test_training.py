"""Training runs against the measured world, on rows that nothing was fitted on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from serried.calibration.training_stacks import fit_training_stacks
from serried.catalogue.entry import DATA
from serried.evidence.cases import accuracy
from serried.evidence.harness import read_cases
from serried.evidence.intervals import with_intervals
from serried.evidence.runs import Run
from serried.evidence.spec import CaseResults
from serried.evidence.training import evaluate, evaluate_with_memory, predict_runs, prepare_runs, read_runs

PUBLISHED = DATA / "measurements" / "training" / "published.csv"


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return read_cases(PUBLISHED)


@pytest.fixture(scope="module")
def judged(frame: pl.DataFrame) -> tuple[CaseResults, CaseResults]:
    times, memory = evaluate_with_memory(frame)
    return with_intervals(times), with_intervals(memory)


def test_unseen_runs_are_predicted_within_the_bar(judged: tuple[CaseResults, CaseResults]) -> None:
    times, _ = judged
    unseen = accuracy(times, np.array([split != "calibrate" for split in times.split]))
    assert unseen.n >= 230
    assert unseen.median_abs_error <= 0.10
    assert unseen.p90_abs_error <= 0.30
    assert 0.70 <= unseen.coverage <= 0.90


def test_few_rows_are_skipped_and_each_says_why(judged: tuple[CaseResults, CaseResults]) -> None:
    times, _ = judged
    skipped = [reason for reason in times.skipped if reason is not None]
    assert len(skipped) <= 0.2 * len(times.ids)
    assert all(len(reason) > 10 for reason in skipped)


def test_peak_memory_is_within_the_bar(judged: tuple[CaseResults, CaseResults]) -> None:
    memory = accuracy(judged[1])
    assert memory.n >= 50
    assert memory.median_abs_error <= 0.08


def test_every_source_of_some_size_is_roughly_right(judged: tuple[CaseResults, CaseResults]) -> None:
    times, _ = judged
    for source in set(times.groups["source"]):
        chosen = np.array([label == source and split != "calibrate"
                           for label, split in zip(times.groups["source"], times.split, strict=True)])
        figures = accuracy(times, chosen)
        if figures.n >= 10:
            assert figures.median_abs_error <= 0.30, source


def test_validate_rows_do_not_touch_a_fit(frame: pl.DataFrame) -> None:
    runs = [run for run in read_runs(frame) if isinstance(run, Run) and run.framework == "Megatron-LM 0.14"]
    spoiled = [run if run.split == "calibrate" else replace(run, metric=replace(run.metric, value=run.metric.value * 3))
               for run in runs]
    before, after = fit_training_stacks(runs), fit_training_stacks(spoiled)
    assert before[0].fit.parameters == after[0].fit.parameters


def test_more_work_takes_longer_and_faster_chips_less(frame: pl.DataFrame) -> None:
    run = next(run for run in read_runs(frame) if isinstance(run, Run) and run.id == "T0802")
    deeper = replace(run, job=replace(run.job, model=replace(run.model, blocks=(
        replace(run.model.blocks[0], count=24),))))
    slower = replace(run, chip="H100")
    once, twice, other = predict_runs([run, deeper, slower])
    assert 1.6 < twice.time_s / once.time_s < 2.1
    assert other.time_s > once.time_s


def test_one_table_says_what_each_run_says_alone(frame: pl.DataFrame) -> None:
    runs = [run for run in read_runs(frame) if isinstance(run, Run)][::90]
    together = predict_runs(runs)
    for run, said in zip(runs, together, strict=True):
        alone = predict_runs([run])[0]
        assert alone.skipped == said.skipped
        if said.skipped is None:
            assert alone.time_s == pytest.approx(said.time_s, rel=1e-9)


def test_a_figure_above_the_peak_is_refused_with_the_arithmetic(frame: pl.DataFrame) -> None:
    run = next(run for run in read_runs(frame) if isinstance(run, Run) and run.id == "T0802")
    refused = prepare_runs([replace(run, metric=replace(run.metric, value=1.0))]).refused
    assert "TFLOP/s a chip" in refused[0]


def test_unknown_words_of_a_users_file_are_no_crash(frame: pl.DataFrame) -> None:
    some = frame[::60].with_columns(framework=pl.lit("My own trainer 3"), source=pl.lit("mine"), url=pl.lit(""))
    strange = frame[:4].with_columns(chip=pl.Series(["quantum-9000", "NVIDIA H100 80GB HBM3 x8", "", "b200"]))
    for one in (some, strange, frame[:3].select("id", "model", "chip", "n_chips")):
        results = with_intervals(evaluate(one))
        assert len(results.ids) == one.height
        predicted = [reason is None for reason in results.skipped]
        assert np.isfinite(results.predicted[predicted]).all()
    assert any(reason is None for reason in evaluate(some).skipped)
