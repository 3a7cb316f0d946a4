"""The closed forms of the pipeline against hand-worked cases and against a step-by-step simulation of the schedule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.planner.schedule import fill_s_L, pipeline_s_L
from serried.planner.spec import SCHEDULES


def _fill(before, after, count, forward, backward, weight=0.0, *, schedule="1f1b", chunks=1.0):
    columns = [np.array([float(value)]) for value in (before, after, count, forward, backward, weight)]
    return float(fill_s_L(*columns, schedule=np.array([SCHEDULES.index(schedule)]),
                          virtual_stages=np.array([chunks]))[0])


def test_equal_stages_idle_for_p_minus_1_passes():
    # 4 stages of forward 1 s and backward 2 s: (4 - 1) * 3 s; the bubble of m = 8 is 9 / 24 = (p - 1) / m
    assert _fill(0, 9, 3, 1, 2) == pytest.approx(9.0)
    assert _fill(3, 6, 2, 1, 2) == pytest.approx(9.0)
    assert _fill(9, 0, 0, 1, 2) == pytest.approx(9.0)


def test_interleaving_divides_the_bubble_by_the_chunks():
    assert _fill(0, 9, 3, 1, 2, schedule="interleaved", chunks=3.0) == pytest.approx(3.0)


def test_zero_bubble_fills_with_weight_gradients():
    # forward 1, data 1, weight 1 on 4 stages: (p - 1)(f + b_data - b_weight) = 3 * 1
    assert _fill(0, 9, 3, 1, 2, 3, schedule="zero-bubble") == pytest.approx(3.0)


def test_zero_bubble_never_gains_time():
    assert _fill(0, 9, 3, 1, 2, 8, schedule="zero-bubble") == 0.0


def _pipeline(turns, micro_batches):
    """Step time of first, equal middle and last stages, forward `turn` and backward twice that."""
    first, *middle, last = turns
    kinds = np.array([[first], [max(middle, default=0.0)], [last]])
    columns = kinds, 2 * kinds, 0 * kinds, np.array([3 * sum(turns)]), np.zeros(1)
    critical, idle_s = pipeline_s_L(*columns, micro_batches_L=np.array([float(micro_batches)]),
                                    pp_L=np.array([float(len(turns))]), schedule=np.array([0]),
                                    virtual_stages=np.ones(1))
    return float(micro_batches * 3 * kinds[critical[0], 0] + idle_s[0])


def _orders(stage: int, stages: int, micro_batches: int) -> list[tuple[str, int]]:
    """1F1B of one stage: warm up, then one forward and one backward in turn, then drain."""
    warm = min(stages - stage - 1, micro_batches)
    order = [("f", i) for i in range(warm)]
    for turn in range(micro_batches - warm):
        order += [("f", warm + turn), ("b", turn)]
    return order + [("b", i) for i in range(micro_batches - warm, micro_batches)]


def _simulated_s(forward: list[float], backward: list[float], micro_batches: int) -> float:
    """Every stage runs its order; a pass waits for the one before it in the pipeline."""
    stages = len(forward)
    orders = [_orders(stage, stages, micro_batches) for stage in range(stages)]
    done: dict[tuple[str, int, int], float] = {}
    free, position = [0.0] * stages, [0] * stages
    while any(position[stage] < len(orders[stage]) for stage in range(stages)):
        for stage in range(stages):
            if position[stage] == len(orders[stage]):
                continue
            kind, index = orders[stage][position[stage]]
            before = stage - 1 if kind == "f" else stage + 1
            needs = ("f", stage, index) if before == stages else (kind, before, index)
            if before >= 0 and needs not in done:
                continue
            start = max(free[stage], done.get(needs, 0.0) if before >= 0 else 0.0)
            free[stage] = done[kind, stage, index] = start + (forward if kind == "f" else backward)[stage]
            position[stage] += 1
    return max(free)


@given(stages=st.integers(1, 8), extra=st.integers(0, 12), turn=st.floats(0.1, 10.0))
@settings(max_examples=40, deadline=None)
def test_equal_stages_match_the_simulation_exactly(stages, extra, turn):
    micro_batches = stages + extra
    expected = _simulated_s([turn] * stages, [2 * turn] * stages, micro_batches)
    bubble = _fill(0, 3 * turn * (stages - 1), stages - 1, turn, 2 * turn)
    assert micro_batches * 3 * turn + bubble == pytest.approx(expected)


@given(first=st.floats(0.5, 2.0), middle=st.floats(0.5, 2.0), last=st.floats(0.5, 2.0), count=st.integers(0, 5),
       micro_batches=st.integers(8, 40))
@settings(max_examples=150, deadline=None)
def test_unequal_stages_stay_near_the_simulation(first, middle, last, count, micro_batches):
    turns = [first, *[middle] * count, last]
    assert _pipeline(turns, micro_batches) == pytest.approx(
        _simulated_s(turns, [2 * turn for turn in turns], micro_batches), rel=0.06)


@pytest.mark.parametrize(("turns", "expected"), [([2.0, 1.0], 73.0), ([1.0, 2.0], 75.0), ([2.0, 1.0, 1.0, 2.0], 84.0)])
def test_where_the_slow_stage_stands_matters(turns, expected):
    """12 micro-batches of 6 s on the slow stage; worked by hand from the timetable."""
    assert _simulated_s(turns, [2 * turn for turn in turns], 12) == expected
    assert _pipeline(turns, 12) == pytest.approx(expected)
