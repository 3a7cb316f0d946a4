from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from serried.errors import BadInput, NoAnswer
from serried.fabric import read_fleet
from serried.planner import estimate_training, layout_space, machine_of, search_training
from serried.planner.spec import Layouts
from tests.planner.cases import job, machine

PINNED = {"number_format": ["bf16"], "micro_batch": [1, 2]}


def test_the_search_finds_what_evaluating_everything_finds():
    found = search_training(job(), machine(), top=5, chunk_layouts=500, **PINNED)
    space = layout_space(job(), machine(), **PINNED)
    whole = estimate_training(job(), machine(), space)
    times = np.sort(np.where(whole.fits, whole.time_s, np.inf))[:5]
    assert found.estimate.time_s == pytest.approx(times)
    assert found.evaluated == len(space)
    assert found.fitting == np.count_nonzero(whole.fits)
    assert found.smallest_memory_bytes == pytest.approx(whole.memory_bytes.min())


def test_the_same_question_has_the_same_answer_whatever_the_chunks():
    one, other = (search_training(job(), machine(), top=7, chunk_layouts=rows, **PINNED) for rows in (300, 50_000))
    for column in fields(Layouts):
        assert np.array_equal(getattr(one.layouts, column.name), getattr(other.layouts, column.name))
    assert np.array_equal(one.estimate.time_s, other.estimate.time_s)


def test_progress_is_told_and_rules_are_counted():
    seen = []
    found = search_training(job(), machine(), top=1, progress=lambda done, fitting: seen.append(done),
                            chunk_layouts=400, **PINNED)
    assert seen == sorted(seen)
    assert seen[-1] == found.evaluated
    assert found.rejected["chips divide"] > 0


def test_nothing_fits_says_what_binds_and_what_would_do():
    large = job(layers=32, hidden=8192, heads=64, batch=4096)
    with pytest.raises(NoAnswer) as refused:
        search_training(large, machine("h100:1"), number_format=["bf16"])
    assert refused.value.binding
    assert "fits on" in refused.value.remedy
    count = int(refused.value.remedy.split("on ")[1].split()[0])
    assert search_training(large, machine(f"h100:{count}"), top=1, number_format=["bf16"], micro_batch=[1]).fitting > 0


def test_nothing_legal_says_which_rule():
    with pytest.raises(NoAnswer, match="batch divides"):
        search_training(job(batch=3), machine(), tp=[1], cp=[1], pp=[1])


def test_money_is_an_objective():
    found = search_training(job(), machine(), top=3, objective="usd_per_token", **PINNED)
    assert (np.diff(found.estimate.price_usd) >= 0).all()
    with pytest.raises(BadInput):
        search_training(job(), machine(), objective="beauty")


def test_a_machine_takes_a_stack_by_name():
    pool = read_fleet("h100:8").pools[0]
    assert machine_of(pool, stack="torchtitan").stack.name == "torchtitan"
    assert machine_of(pool, framework="something nobody wrote").stack.name == "population"
    assert machine_of(pool).chip_count == 8


@pytest.mark.parametrize("experts", [0, 8])
def test_ruling_out_in_groups_changes_nothing_but_the_work(experts):
    work = job(experts=experts)
    for stack in ("torchtitan", "megatron-2024"):
        on = machine_of(read_fleet("h100:16").pools[0], stack=stack)
        one, other = (search_training(work, on, top=6, micro_batch=[1, 2], chunk_layouts=2000, bounded=flag)
                      for flag in (False, True))
        assert other.estimate.time_s == pytest.approx(one.estimate.time_s, rel=1e-12)
        assert other.evaluated < one.evaluated


def test_bounded_search_keeps_what_is_pinned():
    found = search_training(job(), machine(), top=3, bounded=True, recompute=["full", "mlp"], overlap_data=[False])
    assert {found.layouts.row(row)["recompute"] for row in range(3)} <= {"full", "mlp"}
    assert not found.layouts.overlap_data.any()
    rows = [tuple(found.layouts.row(row).items()) for row in range(3)]
    assert len(set(rows)) == 3
