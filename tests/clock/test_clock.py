"""The clock: order of equal times, and streams of chance that do not touch each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serried.clock import FOREVER_NS, SECOND_NS, Chance, EventQueue, nanoseconds


@given(st.lists(st.integers(0, 5), max_size=60))
def test_earliest_first_and_equal_times_in_the_order_of_asking(times):
    queue = EventQueue()
    for place, time_ns in enumerate(times):
        queue.push(time_ns, place)
    came = [queue.pop() for _ in times]
    assert came == sorted(((time_ns, place) for place, time_ns in enumerate(times)))
    assert queue.next_ns == FOREVER_NS


def test_nothing_happens_in_the_past():
    queue = EventQueue()
    queue.push(5, "later")
    queue.pop()
    with pytest.raises(AssertionError):
        queue.push(4, "earlier")


def test_streams_are_known_by_name_and_seed():
    first = Chance(seed=1).stream("failures", "node").random(8)
    assert (first == Chance(seed=1).stream("failures", "node").random(8)).all()
    others = [Chance(seed=1).stream("failures", "chip"), Chance(seed=2).stream("failures", "node"),
              Chance(seed=1).stream("failuresn", "ode")]
    assert not any((first == other.random(8)).any() for other in others)


def test_streams_are_independent_across_seeds():
    draws = np.array([Chance(seed=seed).stream("a").standard_normal() for seed in range(2000)])
    assert abs(draws.mean()) < 4 / 2000**0.5
    assert abs(draws.std() - 1) < 0.1


def test_seconds_become_whole_nanoseconds():
    assert nanoseconds(1.5) == 3 * SECOND_NS // 2
    assert nanoseconds(1e30) == FOREVER_NS
