"""Fair rates: by hand, by the conditions of optimality, and beside a slow water-filling over single flows."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.topology.collisions import expected_fullest, fullest_probabilities
from serried.topology.contention import class_loads, fair_rates, planned_bandwidth
from serried.topology.wires import Routes

INSTANCES = st.integers(0, 2**32 - 1)


def _instance(seed: int, flows: int = 12, links: int = 7):
    rng = np.random.default_rng(seed)
    bandwidth = rng.integers(1, 20, links) * 1e9
    paths = [rng.choice(links, size=rng.integers(1, 4), replace=False).tolist() for _ in range(flows)]
    return bandwidth.astype(float), paths


def _columns(paths):
    flow = np.concatenate([np.full(len(path), row) for row, path in enumerate(paths)]).astype(np.int64)
    return flow, np.concatenate([np.array(path, dtype=np.int64) for path in paths]), np.ones(len(flow))


def water_filled(bandwidth, paths):
    """Every flow rises by the same drop of water until one of its links is full; plain loops, exact steps."""
    rate, growing = [0.0] * len(paths), set(range(len(paths)))
    left = list(map(float, bandwidth))
    while growing:
        users = [sum(link in paths[flow] for flow in growing) for link in range(len(left))]
        drop = min(left[link] / users[link] for link in range(len(left)) if users[link])
        for flow in growing:
            rate[flow] += drop
        left = [have - drop * count for have, count in zip(left, users, strict=True)]
        full = {link for link in range(len(left)) if users[link] and left[link] <= 1e-9 * bandwidth[link]}
        growing = {flow for flow in growing if not full & set(paths[flow])}
    return np.array(rate)


@given(INSTANCES)
@settings(max_examples=60, deadline=None)
def test_single_flows_get_what_slow_water_filling_gives(seed):
    bandwidth, paths = _instance(seed)
    found = fair_rates(bandwidth, *_columns(paths), len(paths))
    np.testing.assert_allclose(found.rate_bytes_per_s_C, water_filled(bandwidth, paths), rtol=1e-9)


@given(INSTANCES)
@settings(max_examples=60, deadline=None)
def test_rates_are_max_min_fair(seed):
    """No link is over-full, and every flow has a full link on which none is faster (the bottleneck condition)."""
    bandwidth, paths = _instance(seed)
    flow, link, load = _columns(paths)
    found = fair_rates(bandwidth, flow, link, load, len(paths))
    taken = np.bincount(link, weights=found.rate_bytes_per_s_C[flow], minlength=len(bandwidth))
    assert (taken <= bandwidth * (1 + 1e-9)).all()
    for row, rate in enumerate(found.rate_bytes_per_s_C):
        holds = found.bottleneck_C[row]
        assert holds in paths[row]
        assert taken[holds] == pytest.approx(bandwidth[holds])
        assert rate >= max(found.rate_bytes_per_s_C[other] for other in range(len(paths))
                           if holds in paths[other]) * (1 - 1e-9)


@given(INSTANCES, st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_rates_scale_with_the_unit_of_bandwidth(seed, scale):
    bandwidth, paths = _instance(seed)
    first, second = (fair_rates(pace, *_columns(paths), len(paths)) for pace in (bandwidth, bandwidth * scale))
    np.testing.assert_allclose(second.rate_bytes_per_s_C, first.rate_bytes_per_s_C * scale, rtol=1e-9)
    np.testing.assert_allclose(second.used_L, first.used_L, rtol=1e-9)


@given(INSTANCES)
@settings(max_examples=20, deadline=None)
def test_twins_as_one_class_get_what_they_get_alone(seed):
    """Two flows on the same links are one class of load 2: the classes' result is the single flows' result."""
    bandwidth, paths = _instance(seed, flows=6)
    single = water_filled(bandwidth, [path for path in paths for _ in range(2)])
    routes = Routes(**dict(zip(("flow_N", "link_N", "share_N"), _columns([p for p in paths for _ in range(2)]),
                               strict=True)))
    columns = class_loads(routes, np.repeat(np.arange(6), 2), 6, len(bandwidth))
    assert (columns[2] == 2.0).all()
    found = fair_rates(bandwidth, *columns, 6)
    np.testing.assert_allclose(np.repeat(found.rate_bytes_per_s_C, 2), single, rtol=1e-9)


def test_one_class_alone_goes_at_the_pace_of_its_fullest_link():
    """Loads 1, 2, 4 on links of 10, 6, 16: the second is full at 3; the same beside a class that loads nothing."""
    columns = np.zeros(3, dtype=np.int64), np.arange(3), np.array([1.0, 2.0, 4.0])
    alone = fair_rates(np.array([10.0, 6.0, 16.0]), *columns, 1)
    beside = fair_rates(np.array([10.0, 6.0, 16.0]), *columns, 2)
    assert alone.rate_bytes_per_s_C[0] == beside.rate_bytes_per_s_C[0] == 3.0
    assert alone.bottleneck_C[0] == beside.bottleneck_C[0] == 1
    np.testing.assert_allclose(alone.used_L, beside.used_L)
    np.testing.assert_allclose(alone.used_L, [0.3, 1.0, 0.75])


def test_a_flow_that_is_held_elsewhere_leaves_its_share():
    """Two flows on a link of 10, one of them held to 2 by another link: the other gets 8."""
    found = fair_rates(np.array([10.0, 2.0]), *_columns([[0, 1], [0]]), 2)
    np.testing.assert_allclose(found.rate_bytes_per_s_C, [2.0, 8.0])


def test_planned_flows_fill_whole_cables():
    """Five flows on four cables: one cable has two, and the bundle carries 5/8 of its bandwidth at an even pace."""
    found = planned_bandwidth(np.array([4.0]), np.array([4.0]), np.zeros(5, dtype=np.int64), np.ones(5))
    np.testing.assert_allclose(found, [4.0 * 1.25 / 2.0])


@pytest.mark.parametrize(("flows", "links", "by_hand"), [(1, 4, 1.0), (2, 2, 1.5), (2, 4, 1.25), (3, 2, 2.25),
                                                         (3, 3, (6 * 1 + 18 * 2 + 3 * 3) / 27)])
def test_the_fullest_of_few_links_by_hand(flows, links, by_hand):
    assert expected_fullest(flows, links) == pytest.approx(by_hand, rel=1e-9)


def test_the_fullest_link_as_drawn_is_the_fullest_as_computed():
    rng = np.random.default_rng(1)
    drawn = [np.bincount(rng.integers(0, 64, 64), minlength=64).max() for _ in range(4000)]
    assert np.mean(drawn) == pytest.approx(expected_fullest(64, 64), abs=4 * np.std(drawn) / math.sqrt(4000))


def test_probabilities_ascend_to_one():
    found = fullest_probabilities(200, 16)
    assert (np.diff(found) >= -1e-12).all()
    assert found[12] == 0.0
    assert found[-1] == 1.0
