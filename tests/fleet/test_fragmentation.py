"""The fragmentation measure against a slow one that is written straight from its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.fleet import Alternative, EventKind, Placement, Shape, State
from serried.fleet.assembly import fleet_of
from serried.fleet.demand import demands_of
from serried.fleet.fragmentation import Fragmentation, typical_of
from tests.fleet.examples import gang, happen, on, share, small_fleet, submit


def slow_amount_milli(free_C, cpu_free_milli, kind, typical) -> float:
    """By the definition: for each typical worker (weight, CPU, share, chips, kinds), what it could not use."""
    amount = 0.0
    for weight, cpu_milli, share_milli, chips, kinds in typical:
        fits = (share_milli > 0 and kind in kinds and cpu_free_milli >= cpu_milli
                and sum(free >= share_milli for free in free_C) >= chips)
        if fits:
            amount += weight * sum(free for free in free_C if free < share_milli)
        else:
            amount += weight * sum(free_C)
    return amount


def slow_typical(shapes, coverage=0.95):
    keys = {}
    for shape in shapes:
        one = shape.alternatives[0]
        key = (shape.cpu_milli, shape.share_milli if one.chips_per_worker else 0, one.chips_per_worker, one.kinds)
        keys[key] = keys.get(key, 0) + 1
    kept, total = [], 0
    for key in sorted(keys, key=lambda key: (keys[key], key), reverse=True):
        if total >= coverage * len(shapes):
            break
        kept.append(key)
        total += keys[key]
    return [(keys[key] / total, *key) for key in kept]


def test_worked_by_hand():
    """Half of all jobs ask for a whole chip and 1 CPU, half for 0.3 of one and 8 CPUs; a node has 0.2 and 0.5 free.

    With 8 CPUs: the first fits nowhere, 0.7 are lost to it; the second can use 0.5 and loses 0.2. Mean: 0.45.
    With 4 CPUs neither fits: 0.7.
    """
    fleet = fleet_of(kinds=["k"], kind_N=[0], chip_count_N=[2], cpu_milli_N=8000)
    measure = Fragmentation(fleet, typical_of(fleet, [gang(1, 1, cpu_milli=1000), share(300, cpu_milli=8000)]))
    state = State(fleet)
    for milli, chip, cpu_milli in ((800, 0, 0), (500, 1, 0)):
        job = submit(state, share(milli, cpu_milli=cpu_milli))
        happen(state, EventKind.PLACE, job, placement=on([0], 1 << chip))
    assert measure.amount_milli(state.snapshot(), 0) == pytest.approx(450)
    job = submit(state, Shape(alternatives=(Alternative(kinds=(0,), chips_per_worker=0),), cpu_milli=4000))
    happen(state, EventKind.PLACE, job, placement=on([0], 0))
    assert measure.amount_milli(state.snapshot(), 0) == pytest.approx(700)


WORKERS = st.builds(
    lambda chips, milli, cpu, kinds: Shape(
        alternatives=(Alternative(kinds=kinds, chips_per_worker=chips),), cpu_milli=cpu * 1000,
        share_milli=milli if chips == 1 else 1000),
    st.sampled_from([0, 1, 1, 1, 2, 4]), st.sampled_from([100, 250, 500, 730, 1000]), st.integers(0, 40),
    st.sampled_from([(0,), (1,), (0, 1)]))


@settings(max_examples=60, deadline=None)
@given(st.lists(WORKERS, min_size=1, max_size=12), st.data())
def test_amount_and_scores_agree_with_the_slow_ones(shapes, data):
    fleet = small_fleet(4, kinds=2)
    state, typical = State(fleet), slow_typical(shapes)
    measure = Fragmentation(fleet, typical_of(fleet, shapes))
    for node in range(4):
        for chip in range(4):
            milli = data.draw(st.sampled_from([0, 0, 250, 400, 730, 1000]))
            if milli:
                job = submit(state, Shape(alternatives=(Alternative(kinds=(0, 1)),), share_milli=milli,
                                          cpu_milli=data.draw(st.integers(0, 12)) * 1000))
                happen(state, EventKind.PLACE, job, placement=Placement(
                    node_R=np.array([node], dtype=np.int32), chips_R=np.array([1 << chip], dtype=np.uint64),
                    workers_R=np.ones(1, dtype=np.int32)))
    snapshot = state.snapshot()
    columns, asked = snapshot.columns, demands_of(fleet, [(shape, 0) for shape in shapes])
    scores_NS = measure.scores_NS(snapshot, asked, np.arange(4, dtype=np.int32))
    for node in range(4):
        free_C, cpu = columns.free_milli_NC[node].tolist(), int(columns.cpu_free_milli_N[node])
        kind = int(fleet.kind_N[node])
        before = slow_amount_milli(free_C, cpu, kind, typical)
        assert measure.amount_milli(snapshot, node) == pytest.approx(before)
        for column, shape in enumerate(shapes):
            options = list(slow_options(free_C, shape))
            if not options:
                continue
            added = [slow_amount_milli(left_C, cpu - shape.cpu_milli, kind, typical) - before for left_C in options]
            expected = max(100 / (1 + math.exp(more / 1000)) for more in added)
            assert abs(scores_NS[node, column] - math.floor(expected)) <= 1   # a rounding step at whole numbers
            if abs(expected - round(expected)) > 1e-6:
                assert scores_NS[node, column] == math.floor(expected)


def slow_options(free_C, shape):
    """What a node could look like once a worker has taken its chips."""
    chips = shape.alternatives[0].chips_per_worker
    if chips == 0:
        yield list(free_C)
    elif shape.share_milli < 1000:
        for chip, free in enumerate(free_C):
            if free >= shape.share_milli:
                yield [left - shape.share_milli * (place == chip) for place, left in enumerate(free_C)]
    elif sum(free == 1000 for free in free_C) >= chips:
        left_C, need = list(free_C), chips
        for chip, free in enumerate(free_C):
            if free == 1000 and need:
                left_C[chip], need = 0, need - 1
        yield left_C


def test_typical_workers_are_the_most_frequent_ones():
    fleet = small_fleet()
    shapes = [share(100)] * 90 + [share(200)] * 6 + [share(300)] * 4
    typical = typical_of(fleet, shapes)
    assert typical.demands.share_milli_S.tolist() == [100, 200]
    assert typical.weight_M.tolist() == pytest.approx([90 / 96, 6 / 96])


def test_the_chip_is_the_one_that_adds_least():
    """Half of all ask for half a chip, half for a whole one: a half goes where a half is free, and breaks no whole."""
    fleet = fleet_of(kinds=["k"], kind_N=[0], chip_count_N=[3], cpu_milli_N=8000)
    measure = Fragmentation(fleet, typical_of(fleet, [share(500), gang(1, 1)]))
    state = State(fleet)
    for milli, chip in ((300, 0), (500, 2)):
        happen(state, EventKind.PLACE, submit(state, share(milli)), placement=on([0], 1 << chip))
    assert measure.chips(state.snapshot(), 0, share(500), 0) == 0b100
