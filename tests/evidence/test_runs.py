"""Published rows become jobs and layouts, or are skipped with a reason that names the column."""

from __future__ import annotations

import csv

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.catalogue.entry import DATA
from serried.evidence.assumptions import read_assumptions, source_of
from serried.evidence.runs import Run, Skipped, run_of_row

ROW = {"id": "X1", "source": "my bench", "url": "", "model": "Mine 8B", "n_layers": "32", "hidden": "4096",
       "n_heads": "32", "n_kv_heads": "8", "head_dim": "128", "ffn": "14336", "vocab": "128256", "gated_mlp": "1",
       "seq_len": "8192", "global_batch": "128", "micro_batch": "2", "chip": "h100", "n_chips": "64", "tp": "2",
       "pp": "2", "dp": "16", "cp": "1", "vpp": "4", "dtype": "fp8", "framework": "Megatron-LM", "split": "validate",
       "metric_name": "iteration_time", "metric_value": "4000", "unit": "ms", "notes": "", "attention": "GQA"}


def run_of(**changes: str) -> Run | Skipped:
    return run_of_row(ROW | changes, read_assumptions(), position=0)


def the_run(**changes: str) -> Run:
    run = run_of(**changes)
    assert isinstance(run, Run), run
    return run


def test_a_whole_row_is_read_as_printed() -> None:
    run = the_run()
    assert run.job.sequence_tokens == 8192
    assert run.job.global_batch_sequences == 128
    assert run.model.layer_count == 32
    assert run.layout["tp"] == 2
    assert run.layout["virtual_stages"] == 4
    assert run.layout["schedule"] == "interleaved"
    assert run.layout["number_format"] == "fp8"
    assert run.metric.time_s == pytest.approx(4.0)


def test_tokens_per_chip_and_step_time_say_the_same() -> None:
    tokens = 8192 * 128 / 64 / 4.0
    rate = the_run(metric_name="tokens_per_sec_per_gpu", metric_value=str(tokens), unit="tokens/s/GPU").metric
    assert rate.time_s == pytest.approx(4.0)
    assert rate.shown(8.0) == pytest.approx(tokens / 2)


def test_cluster_rates_count_the_whole_batch() -> None:
    rate = the_run(metric_name="sequences_per_sec", metric_value="32", unit="seq/s (cluster)").metric
    assert rate.time_s == pytest.approx(4.0)


def test_tflops_need_the_count_of_their_source() -> None:
    skipped = run_of(metric_name="tflops_per_chip", metric_value="400", unit="TFLOP/s/chip")
    assert isinstance(skipped, Skipped)
    assert "count of FLOPs" in skipped.reason
    short = the_run(metric_name="tflops_per_chip", metric_value="400", unit="TFLOP/s/chip", seq_len="2048")
    assert 0.5 * 6 * 8e9 * 2048 * 128 < short.metric.time_s * 400e12 * 64 < 1.2 * 6 * 8e9 * 2048 * 128


@pytest.mark.parametrize(("column", "value", "word"), [
    ("n_layers", "many", "n_layers = 'many'"), ("seq_len", "", "seq_len is blank"), ("chip", "", "chip is blank"),
    ("metric_value", "-1)", "metric_value = '-1)'"), ("tp", "3", "does not divide n_chips"),
    ("global_batch", "129", "does not divide over dp"), ("micro_batch", "3", "does not divide the"),
    ("dtype", "fp11", "not a known number format"), ("unit", "furlongs", "not a known one"),
    ("recompute", "sometimes", "not a known choice"), ("n_kv_heads", "5", "does not divide n_heads"),
    ("vocab", "0", "vocab = '0'"), ("n_chips", "1e300", "n_chips"), ("vpp", "-2", "vpp"),
])
def test_what_is_missing_or_malformed_is_named(column: str, value: str, word: str) -> None:
    skipped = run_of(**{column: value})
    assert isinstance(skipped, Skipped)
    assert word in skipped.reason


def test_blanks_of_an_unknown_source_are_filled_by_habit() -> None:
    run = the_run(dtype="", recompute="", vpp="", sequence_parallel="", cp="")
    assert run.layout["number_format"] == "bf16"
    assert run.layout["sequence_parallel"] is True
    assert run.layout["sharding"] == 1
    assert run.recompute_choices[0] == "none"
    assert run.recompute_choices[-1] == "full"


def test_a_blank_vocabulary_is_the_catalogues_else_the_assumed_one() -> None:
    assert the_run(vocab="", model="Llama-3.1-8B").model.vocab == 128256
    assert the_run(vocab="").model.vocab == 51200


def test_a_sharded_framework_shards_everything() -> None:
    assert the_run(framework="Some FSDP trainer", tp="1", pp="1", dp="64").layout["sharding"] == 3


def test_batch_follows_from_tokens_per_step() -> None:
    run = the_run(global_batch="", micro_batch="", pp="1", dp="32", vpp="", notes="tokens per step=1048576")
    assert run.job.global_batch_sequences == 128
    assert run.layout["micro_batch"] == 4


def test_adapters_stand_in_the_name() -> None:
    assert the_run(model="Mine 8B LoRA").model.adapter_rank > 0
    assert the_run().model.adapter_rank == 0


def test_degrees_may_count_cores() -> None:
    run = the_run(n_chips="32", tp="4", pp="2", dp="8", global_batch="128", notes="TP/DP/PP count NeuronCores")
    assert run.layout["tp"] == 2


def test_every_shipped_row_has_a_source_and_few_are_skipped() -> None:
    with (DATA / "measurements" / "training" / "published.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assumptions = read_assumptions()
    read = [run_of_row(row, assumptions, position=position) for position, row in enumerate(rows)]
    assert all(source_of(row, assumptions).match for row in rows), "shipped sources have assumptions of their own"
    skipped = [row for row in read if isinstance(row, Skipped)]
    assert len(skipped) <= 0.1 * len(rows)
    assert all(row.reason for row in skipped)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(ROW)), st.text(max_size=12) | st.integers(-5, 10**12).map(str)
                       | st.floats().map(str), max_size=6))
def test_no_row_raises(changes: dict[str, str]) -> None:
    found = run_of(**changes)
    assert isinstance(found, Run) or found.reason


def test_a_variant_of_a_recipe_changes_the_facts_of_the_stack() -> None:
    source = {"url": "https://github.com/NVIDIA-NeMo/Megatron-Bridge"}
    dropped = {**source, "notes": "variant: Mine 8B (tokendrop); router force-balanced"}
    assert the_run(**dropped).stack_facts["synced_dispatch"] is False
    assert "captured" not in the_run(**dropped).stack_facts
    assert the_run(**dropped, pp="1", dp="32", vpp="").stack_facts["captured"] is True
    assert the_run(**source).stack_facts == {}
