from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.errors import BadInput
from serried.planner import LEGALITY, broken_rules, explain, layout_chunks, layout_space, layouts_of, refuse_illegal
from serried.planner.spec import Layouts
from tests.planner.cases import job, machine


@pytest.fixture(scope="module")
def dense():
    return job(), machine(), layout_space(job(), machine(), number_format=["bf16"])


@pytest.fixture(scope="module")
def mixture():
    work = job(experts=8)
    return work, machine(), layout_space(work, machine(), number_format=["bf16"], micro_batch=[1])


@pytest.mark.parametrize("space", ["dense", "mixture"])
def test_every_enumerated_layout_keeps_every_rule(space, request):
    work, on, found = request.getfixturevalue(space)
    assert len(found) > 1000
    broken = broken_rules(found, work, on)
    assert len(broken) == len(LEGALITY)
    assert not [name for name, where in broken.items() if where.any()]


def test_no_layout_comes_twice(dense):
    _, _, found = dense
    table = np.stack([np.asarray(getattr(found, column.name), dtype=np.int64) for column in fields(Layouts)], axis=1)
    assert len(np.unique(table, axis=0)) == len(found)


def test_the_space_is_whole(dense):
    """Counted by a plain loop over every combination of degrees, for one micro-batch and one set of switches."""
    _, _, found = dense
    seen = {(int(t), int(c), int(p)) for t, c, p in zip(found.tp, found.cp, found.pp, strict=True)}
    expected = set()
    for tp in range(1, 17):
        for cp in range(1, 17):
            for pp in range(1, 17):
                if 16 % (tp * cp * pp) == 0 and 16 % tp == 0 and pp <= 8 and (cp == 1 or 2048 % (2 * cp) == 0):
                    expected.add((tp, cp, pp))
    assert seen == {(tp, cp, pp) for tp, cp, pp in expected if 8 % tp == 0 or tp % 8 == 0}


def test_chunks_are_the_space_in_its_order(dense):
    work, on, found = dense
    parts = list(layout_chunks(work, on, choices={"number_format": ["bf16"]}, chunk_layouts=700))
    assert len(parts) > 3
    for column in fields(Layouts):
        assert np.array_equal(np.concatenate([getattr(part, column.name) for part in parts]),
                              getattr(found, column.name))


def test_what_the_caller_pins_stays_pinned():
    found = layout_space(job(), machine(), tp=[4], recompute=["full", "none"], number_format=["bf16"])
    assert set(found.tp) == {4}
    assert {found.row(row)["recompute"] for row in range(len(found))} == {"full", "none"}


def test_experts_are_cut_over_the_ranks_of_a_stage(mixture):
    _, _, found = mixture
    assert found.ep.max() == 8
    assert ((found.expert_tp == 1) | (found.expert_tp == found.tp)).all()


@pytest.mark.parametrize(("row", "rule"), [
    ({"tp": 3}, "chips divide"), ({"tp": 16, "pp": 2}, "chips divide"), ({"pp": 16}, "stages hold blocks"),
    ({"micro_batch": 48}, "batch divides"), ({"ep": 2}, "experts divide"), ({"tp": 4, "expert_tp": 2},
                                                                           "expert tensor degree"),
    ({"pp": 2, "virtual_stages": 6}, "chunks hold blocks"), ({"virtual_stages": 2}, "interleaving has chunks"),
    ({"pp": 4, "virtual_stages": 2, "schedule": "1f1b"}, "1f1b has one chunk"),
    ({"pp": 2, "virtual_stages": 4, "schedule": "zero-bubble"}, "zero-bubble has one or two chunks"),
    ({"pp": 8, "virtual_stages": 1, "schedule": "interleaved"}, "interleaving has chunks"),
    ({"number_format": "int8"}, "format is known"), ({"number_format": "nvfp4"}, "format is known"),
    ({"sharding": 5}, "sharding has a stage"), ({"tp": 0}, "degrees are positive"),
    ({"pp": 4, "virtual_stages": 2, "micro_batch": 8}, "interleaving fills"),
])
def test_a_layout_that_cannot_exist_is_refused_by_its_rule(row, rule):
    one = layouts_of([row])
    assert rule in [broken.name for broken in explain(one, job(), machine())]
    with pytest.raises(BadInput) as refused:
        refuse_illegal(one, job(), machine())
    assert refused.value.remedy


def test_a_redundant_layout_may_be_asked_for():
    refuse_illegal(layouts_of([{"tp": 16, "sequence_parallel": True, "overlap_data": True, "sharding": 1}]), job(),
                   machine())


@given(st.fixed_dictionaries({
    "tp": st.integers(1, 32), "cp": st.integers(1, 8), "pp": st.integers(1, 12), "ep": st.integers(1, 4),
    "virtual_stages": st.integers(1, 5), "micro_batch": st.integers(1, 70), "sharding": st.integers(0, 4)}))
@settings(max_examples=80, deadline=None)
def test_random_layouts_are_legal_or_named(row):
    one = layouts_of([row])
    broken = explain(one, job(), machine())
    if broken:
        with pytest.raises(BadInput):
            refuse_illegal(one, job(), machine())
        assert all(rule.remedy and rule.broken for rule in broken)
    else:
        refuse_illegal(one, job(), machine())
        assert 16 % (row["tp"] * row["cp"] * row["pp"]) == 0


@pytest.mark.parametrize("choices", [{"dp": [2]}, {"tp": [0]}, {"recompute": ["everything"]}, {"tp": ["many"]}])
def test_choices_are_checked(choices):
    with pytest.raises(BadInput):
        layout_space(job(), machine(), **choices)


def test_unknown_words_in_a_row_are_refused():
    with pytest.raises(BadInput, match="tensor"):
        layouts_of([{"tensor": 8}])
