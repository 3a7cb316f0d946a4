"""Collectives: readers of both forms, what is skipped and why, and the bars on rows that nothing was fitted on."""

from __future__ import annotations

import functools

import numpy as np
import polars as pl
import pytest

from serried.catalogue.entry import DATA
from serried.errors import BadInput
from serried.evidence import collectives
from serried.evidence.spec import CaseResults
from serried.fabric.observations import bus_ratio, observe, split_of_sweep

NETWORK = DATA / "measurements" / "network"


@functools.cache
def evaluated(name: str) -> CaseResults:
    return collectives.evaluate(pl.read_csv(NETWORK / name, infer_schema_length=10_000))


def unseen_errors(results: CaseResults, group: str, words: str, spans: tuple[str, ...] = ()) -> np.ndarray:
    rows = [row for row, label in enumerate(results.groups[group])
            if words in label and results.split[row] == "validate" and results.skipped[row] is None
            and (not spans or results.groups["payload"][row] in spans)
            and (group != "system" or "own" in results.groups["library"][row])]
    assert len(rows) > 20
    return np.expm1(np.abs(np.log(results.predicted[rows] / results.measured[rows])))


@pytest.mark.parametrize("system", ["a100_sxm", "h100_sxm", "b200_sxm"])
def test_inside_a_node_within_ten_percent(system):
    errors = unseen_errors(evaluated("collectives_intra_node.csv.gz"), "system", system, ("1 KiB to 1 GiB",))
    assert np.median(errors) <= 0.10


def test_across_nodes_within_twenty_percent():
    """Two systems whose rows were kept out of every fit; their parameters come from another chip's network rows."""
    results = evaluated("collectives.csv")
    assert np.median(unseen_errors(results, "reach", "across")) <= 0.20


@pytest.mark.parametrize("library", ["vllm", "sglang", "trtllm"])
def test_custom_kernels_of_serving_engines(library):
    errors = unseen_errors(evaluated("collectives_intra_node.csv.gz"), "library", f"-{library}")
    assert np.median(errors) <= 0.20


def test_what_cannot_be_predicted_says_why():
    results = evaluated("collectives.csv")
    reasons = {reason for reason in results.skipped if reason}
    assert any("outlier" in reason for reason in reasons)
    assert any("moe_dispatch" in reason for reason in reasons)
    for predicted, reason in zip(results.predicted, results.skipped, strict=True):
        assert np.isnan(predicted) == (reason is not None)
    assert sum(reason is not None for reason in results.skipped) < 0.1 * len(results.ids)


def test_every_sweep_row_is_read():
    results = evaluated("collectives_intra_node.csv.gz")
    assert not any(results.skipped)
    assert len(set(results.ids)) == len(results.ids)


def _row(**changed) -> dict[str, list]:
    row = {"system": "H100 cluster, 2 nodes", "collective": "allreduce", "n_ranks": 16, "ranks_per_node": 8,
           "message_bytes": 2**20, "time_us": 72.0, "algbw_GBps": None, "busbw_GBps": None, "notes": ""}
    return {name: [value] for name, value in (row | changed).items()}


def test_time_from_bandwidth_when_there_is_no_time():
    assert observe(_row(time_us=None, algbw_GBps=10.0)).time_s[0] == pytest.approx(2**20 / 10e9)
    assert observe(_row(time_us=0, busbw_GBps=10.0)).time_s[0] == pytest.approx(2**20 * 2 * 15 / 16 / 10e9)
    assert "neither" in observe(_row(time_us=None)).skipped[0]


def test_bus_bandwidth_is_counted_as_nccl_tests_counts_it():
    assert bus_ratio("all_reduce", 8) == pytest.approx(1.75)
    assert bus_ratio("all_gather", 8) == pytest.approx(0.875)
    assert bus_ratio("send", 2) == 1.0


def test_fewer_ranks_a_node_sit_apart():
    assert observe(_row(ranks_per_node=1, n_ranks=16)).stride[0] == 8
    assert observe(_row(system="GB200 rack", ranks_per_node=4, n_ranks=72)).stride[0] == 1


@pytest.mark.parametrize(("changed", "reason"), [
    ({"system": "Cray-1"}, "no fabric"), ({"collective": "gossip"}, "no formula"), ({"message_bytes": None}, "blank"),
    ({"n_ranks": None}, "blank"), ({"notes": "OUTLIER warm-up"}, "outlier"),
])
def test_a_row_without_an_answer_is_skipped(changed, reason):
    results = collectives.evaluate(pl.DataFrame(_row(**changed)))
    assert reason in results.skipped[0]
    assert np.isnan(results.predicted[0])


def test_a_user_row_without_a_split_is_for_validation():
    results = collectives.evaluate(pl.DataFrame(_row()))
    assert results.split == ["validate"]
    assert results.predicted[0] == pytest.approx(72e-6, rel=0.5)


def test_split_does_not_depend_on_release_or_format():
    assert split_of_sweep("all_reduce", "8", "1024") in ("calibrate", "validate")
    results = evaluated("collectives_intra_node.csv.gz")
    share = np.mean([split == "validate" for split in results.split])
    assert 0.4 < share < 0.6


def test_other_columns_are_refused():
    with pytest.raises(BadInput, match="columns"):
        collectives.evaluate(pl.DataFrame({"a": [1]}))
