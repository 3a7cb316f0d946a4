"""Where gangs go, worked out by hand on 8 nodes of 4 chips: leaves {0,1} {2,3} {4,5} {6,7}, spines {0..3} {4..7}."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serried.fleet import EventKind, State
from serried.fleet.gang import cover, place_gang, switches_of
from tests.fleet.examples import gang, happen, on, small_fleet, submit


def placed(state: State, shape):
    return place_gang(state.fleet, switches_of(state.fleet), state.columns, shape, 0)


def taken(state: State, nodes: list[int], chips: int = 0b1111) -> None:
    """Let somebody hold these chips of these nodes."""
    for node in nodes:
        job = submit(state, gang(1, chips.bit_count()))
        happen(state, EventKind.PLACE, job, placement=on([node], chips))


def where(state: State, shape) -> list[int] | None:
    found = placed(state, shape)
    return None if found is None else found.node_R.tolist()


def test_ranges_of_switches():
    switches = switches_of(small_fleet())
    assert [first.tolist() for first in switches.first_node] == [[0, 2, 4, 6, 8], [0, 4, 8], [0, 8]]
    assert [first.tolist() for first in switches.first_child[1:]] == [[0, 2, 4], [0, 2]]


def test_a_gang_fills_the_tightest_switch_that_holds_it():
    state = State(small_fleet())
    taken(state, [0, 1, 4])
    assert where(state, gang(1)) == [5]            # leaf {4,5} has one node left, and is left with none
    assert where(state, gang(2)) == [2, 3]         # the first full leaf
    assert where(state, gang(3)) == [5, 6, 7]      # one spine, though spine {0..3} has the first nodes
    assert where(state, gang(5)) == [2, 3, 5, 6, 7]


def test_all_or_nothing():
    state = State(small_fleet())
    taken(state, [0, 2, 4, 6])
    assert where(state, gang(4)) == [1, 3, 5, 7]
    assert where(state, gang(5)) is None


def test_a_required_level_is_kept_and_a_preferred_one_is_tried_first():
    state = State(small_fleet())
    taken(state, [0, 2, 4, 6])
    assert where(state, gang(2, level=0, level_required=True)) is None
    assert where(state, gang(2, level=0)) == [1, 3]
    assert where(state, gang(2, level=1, level_required=True)) == [1, 3]
    assert where(state, gang(3, level=1, level_required=True)) is None
    assert where(state, gang(3, level=2, level_required=True)) == [1, 3, 5]


def test_rank_order_is_the_order_of_nodes_and_workers_share_nodes():
    """Six workers of 2 chips: two full nodes of one leaf, two workers each, and one node beside them."""
    state = State(small_fleet())
    found = placed(state, gang(6, 2))
    assert found.node_R.tolist() == [0, 1, 2]
    assert found.workers_R.tolist() == [2, 2, 2]
    assert found.chips_R.tolist() == [0b1111] * 3
    taken(state, [0], 0b0010)
    found = placed(state, gang(3, 2))
    assert (found.node_R.tolist(), found.workers_R.tolist()) == ([0, 1], [1, 2])
    assert found.chips_R.tolist() == [0b0101, 0b1111]   # the first idle chips, in the leaf that is left with none


def test_an_island_never_straddles_two_leaves():
    state = State(small_fleet())
    taken(state, [0, 2])
    assert where(state, gang(2, island_workers=1)) == [4, 5]
    assert where(state, gang(4, island_workers=2)) == [4, 5, 6, 7]
    taken(state, [4])
    assert where(state, gang(4, island_workers=2)) is None   # five nodes are free, but only one whole leaf
    assert where(state, gang(4)) == [1, 3, 5, 6] or where(state, gang(4)) == [1, 5, 6, 7]


def test_failure_domains_bound_what_one_switch_holds():
    state = State(small_fleet())
    assert where(state, gang(4, spread_level=0, spread_workers=1)) == [0, 2, 4, 6]
    assert where(state, gang(4, spread_level=1, spread_workers=2)) == [0, 1, 4, 5]
    assert where(state, gang(5, spread_level=0, spread_workers=1)) is None


def test_a_gang_stands_on_one_kind():
    state = State(small_fleet(kinds=2))
    assert where(state, gang(4, kinds=(0, 1))) == [0, 1, 2, 3]
    assert where(state, gang(5, kinds=(0, 1))) is None
    taken(state, [0])
    assert where(state, gang(4, kinds=(0, 1))) == [4, 5, 6, 7]


def test_cpu_and_memory_bind_too():
    """A node has 64 CPUs: one worker of 40 fits where chips would hold four."""
    state = State(small_fleet())
    found = placed(state, gang(4, 1, cpu_milli=40_000))
    assert found.node_R.tolist() == [0, 1, 2, 3]
    assert found.workers_R.tolist() == [1, 1, 1, 1]
    assert where(state, gang(9, 1, cpu_milli=40_000)) is None
    assert where(state, gang(2, 1, memory_bytes=2**38)) == [0, 1]


def test_what_is_down_draining_spare_or_kept_is_not_taken():
    state = State(small_fleet())
    happen(state, EventKind.FAIL, nodes=(0,))
    happen(state, EventKind.DRAIN, nodes=(2,))
    happen(state, EventKind.SPARE, nodes=(4,))
    job = submit(state, gang(1))
    happen(state, EventKind.RESERVE, job, nodes=(6,), until_ns=1)
    assert where(state, gang(4)) == [1, 3, 5, 7]
    assert where(state, gang(5)) is None


@given(st.lists(st.integers(0, 6), min_size=1, max_size=7), st.integers(1, 20))
def test_cover_takes_the_fewest_places(capacity, needed):
    chosen, taken_X = cover(np.array(capacity), needed)
    if sum(capacity) < needed:
        assert chosen is None
        return
    assert sum(taken_X) == needed
    assert list(chosen) == sorted(set(chosen.tolist()))
    assert all(0 < take <= capacity[place] for place, take in zip(chosen, taken_X, strict=True))
    fewest = min(count for count in range(1, len(capacity) + 1)
                 if any(sum(pick) >= needed for pick in itertools.combinations(capacity, count)))
    assert len(chosen) == fewest


@pytest.mark.parametrize("workers", [1, 7, 64, 512])
def test_a_gang_of_any_number_is_found_in_a_large_fleet(workers):
    state = State(small_fleet(4096, chips=8, leaf=32, spine=1024))
    found = placed(state, gang(workers, 8, level=1, level_required=True))
    assert len(found.node_R) == workers
    leaves = {node // 32 for node in found.node_R.tolist()}
    assert len(leaves) == -(-workers // 32)
    assert len({node // 1024 for node in found.node_R.tolist()}) == 1
