"""Pools that a table leaves blank are read from the recipes of its source."""

from dataclasses import replace

import pytest

from serried.errors import BadInput
from serried.evidence.serving_pools import PrintedPools, draft_acceptance, pool_run, read_pool_runs

_PRINTED = PrintedPools(source="source_file=2026-03-25.csv; x", engine="trtllm 0.8.1", chip="gb200",
                        model="deepseek-ai/DeepSeek-R1", number_format="fp8-block", measured="2026-02-05",
                        lengths=(8192, 1024), concurrency=63, prefill_chips=8, decode_chips=8)


def test_a_row_takes_the_recipe_of_its_load_and_degrees():
    run = pool_run(_PRINTED)
    assert run is not None
    assert (run.prefill.engines, run.prefill.groups) == (1, 8)
    assert (run.decode.engines, run.decode.groups, run.decode.expert_degree, run.batch) == (3, 1, 8, 16)
    assert pool_run(replace(_PRINTED, concurrency=64)) is None
    assert pool_run(replace(_PRINTED, decode_chips=32)) is None
    assert pool_run(replace(_PRINTED, source="somebody else")) is None


def test_a_row_may_print_the_chips_of_all_engines():
    run = pool_run(replace(_PRINTED, prefill_chips=32, decode_chips=32))
    assert run is not None
    assert run.prefill.chip_count + run.decode.chip_count == 32


def test_runs_without_drafts_come_first_and_some_sources_have_no_others():
    both = pool_run(replace(_PRINTED, concurrency=6))
    only = pool_run(replace(_PRINTED, concurrency=15))
    assert both is not None
    assert only is not None
    assert (both.drafts, only.drafts) == (0, 3)
    assert len(draft_acceptance(3)) == 3
    assert pool_run(replace(_PRINTED, concurrency=15, source="db-dump/x")) is None


def test_every_group_can_be_read_and_says_where_it_is_from():
    assert all(group["origin"] and runs for group, runs in read_pool_runs())


@pytest.mark.parametrize("line", ['runs = ["4: 1 DEP4 > many"]', 'runs = []\nsurprise = 1'])
def test_a_group_that_cannot_be_read_is_refused(tmp_path, line):
    path = tmp_path / "pools.toml"
    path.write_text(f'schema = "serried/serving-pools/1"\n[[group]]\nengine = "x"\n{line}\n', encoding="utf-8")
    with pytest.raises(BadInput):
        read_pool_runs(path)


def test_a_row_of_one_engine_that_is_the_total_of_a_recipe_is_of_two_pools():
    """52 chips cannot hold one cut of 128 heads; five engines of four and one of 32 under that load are a recipe."""
    row = PrintedPools(source="source_file=2026-04-06", engine="trtllm", chip="gb200", model="deepseek-ai/DeepSeek-R1",
                       number_format="nvfp4", measured="2025-11-17", lengths=(8192, 1024), concurrency=269,
                       prefill_chips=52, decode_chips=52, one_engine=True)
    found = pool_run(row)
    assert found is not None
    assert (found.prefill.chip_count, found.decode.chip_count) == (20, 32)
    assert pool_run(replace(row, prefill_chips=8, decode_chips=8)) is None
    assert pool_run(replace(row, concurrency=270)) is None
