from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serried.planner.pieces import distinct_rows, distinct_values, stage_counts
from serried.workload import Block
from serried.workload.spec import AttentionSpec, MlpSpec
from tests.planner.cases import model


def _counts(built, pp, virtual_stages=1):
    found, total = stage_counts(built, np.array([pp]), np.array([virtual_stages]))
    return found[:, :, 0], total


def test_equal_stages_share_the_blocks_and_the_ends_stand_outside():
    found, total = _counts(model(layers=8), 4)
    assert found.tolist() == [[2, 1, 0], [2, 0, 0], [2, 0, 1]]
    assert total.tolist() == [8, 1, 1]


def test_one_stage_holds_everything():
    found, _ = _counts(model(layers=8), 1)
    assert found.tolist() == [[8, 1, 1], [0, 0, 0], [0, 0, 0]]


def test_blocks_that_do_not_divide_are_taken_from_the_ends():
    """126 blocks on 8 stages of 8 chunks: 15 on the first and the last, 16 between (published for a 405B model)."""
    found, _ = _counts(model(layers=126), 8, 8)
    assert found[:, 0].tolist() == [15, 16, 15]


def test_leading_dense_blocks_stand_on_the_first_stage():
    base = model(layers=29, experts=8)
    attention = AttentionSpec(kind="full", heads=16, kv_heads=8, head_dim=64, value_head_dim=64)
    dense = Block(count=3, attention=attention, mlp=MlpSpec(width=4096, gated=True))
    found, _ = _counts(dataclasses.replace(base, blocks=(dense, *base.blocks)), 4)
    assert found[:, 0].tolist() == [3, 0, 0]
    assert found[:, 1].tolist() == pytest.approx([5, 8, 8])


def test_prediction_blocks_stand_on_the_last_stage_with_a_head_each():
    found, total = _counts(dataclasses.replace(model(layers=8), prediction_blocks=1), 2)
    assert found[2].tolist() == [4, 1, 0, 2]
    assert total.tolist() == [8, 1, 1, 2]


@given(st.integers(1, 130), st.integers(1, 16), st.integers(1, 4))
def test_every_stage_has_a_block_and_none_is_overfull(layers, pp, virtual_stages):
    if pp * virtual_stages > layers:
        return
    found, _ = _counts(model(layers=layers), pp, virtual_stages)
    blocks = found[:, 0]
    assert blocks[0] >= 1
    even = virtual_stages * -(-layers // (pp * virtual_stages))
    assert blocks.max() <= max(even, layers if pp == 1 else -(-layers // 2))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2**40), st.integers(0, 2**40)), max_size=60))
def test_distinct_rows_are_those_of_the_table(rows):
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    heads, where = distinct_rows(list(table.T))
    assert np.array_equal(table[heads][where], table)
    assert len(heads) == len({tuple(row) for row in rows})


def test_distinct_values_broadcast():
    (first, second), where = distinct_values([np.array([1.0, 2.0, 1.0]), np.array(3.0)])
    assert first.tolist() == [1.0, 2.0]
    assert second.tolist() == [3.0, 3.0]
    assert where.tolist() == [0, 1, 0]


def test_prediction_blocks_stand_on_a_last_stage_with_fewer_blocks():
    """61 blocks and a prediction block over 16 stages: 4 each, and 1 beside the prediction block and the two heads."""
    found, _ = _counts(dataclasses.replace(model(layers=61), prediction_blocks=1), 16)
    assert found[:, 0].tolist() == [4, 4, 1]
    assert found[2, 1:].tolist() == [1, 0, 2]
    plain, _ = _counts(model(layers=61), 16)
    assert plain[:, 0].tolist() == [3, 4, 2]
