"""Collectives on the wires: closed forms, arithmetic routes beside searched ones, conservation, chance by seed."""

import numpy as np
import pytest

from serried.errors import BadInput, NoAnswer
from serried.topology import build_topology, explicit_graph, wire
from serried.topology.contention import class_loads, fair_rates
from serried.topology.direct import GraphNetwork
from serried.topology.reduction import one_network, reduced_fabric
from serried.topology.simulation import axis_rates, place_jobs, simulate
from serried.topology.traffic import phases
from serried.topology.wires import ROUTINGS

GIB = np.array([2.0**30])
CLOS = {"chips": 128, "node": 8, "leaf": 32, "pod": 64}
SHAPES = [("clos", {"chips": 64, "node": 1, "leaf": 8, "pod": 32}), ("torus", {"x": 4, "y": 3, "z": 5}),
          ("torus", {"x": 4, "y": 4}), ("ring", {"chips": 7}), ("full", {"chips": 6}), ("cube-mesh", {}),
          ("dragonfly", {"groups": 4, "routers": 3, "router_chips": 2, "global_links": 3}),
          ("hpn", {"chips": 64, "leaf": 32, "pod": 64})]


def _way(found, algorithm, protocol="simple"):
    return next(way for way in found.ways if (way.algorithm, way.protocol) == (algorithm, protocol))


def _pairs(chips, count, seed):
    rng = np.random.default_rng(seed)
    source = rng.integers(0, chips, count)
    return source, (source + rng.integers(1, chips, count)) % chips


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize(("kind", "parameters"), SHAPES)
def test_every_route_is_a_way_from_source_to_target(kind, parameters, routing):
    """What leaves a node has entered it: one unit leaves the source and one enters the target, at every node."""
    network = wire(build_topology("it", kind, parameters)).outer
    source, target = _pairs(network.chips, 50, seed=3)
    routes = network.route(source, target, routing, np.random.default_rng(0))
    if any(block.bundle for block in network.blocks) and routing != "ecmp":
        first = next(block.first for block in network.blocks if block.name == "nics up")
        np.testing.assert_array_equal(np.sort(routes.link_N[routes.link_N - first < network.chips][:50]),
                                      np.sort(first + source))
        return
    ends = network.ends()
    nodes = network.chips + len(ends.switch_names)
    net = np.zeros((50, nodes))
    np.add.at(net, (routes.flow_N, ends.source_L[routes.link_N]), routes.share_N)
    np.add.at(net, (routes.flow_N, ends.target_L[routes.link_N]), -routes.share_N)
    wanted = np.zeros_like(net)
    wanted[np.arange(50), source] += 1.0
    wanted[np.arange(50), target] -= 1.0
    np.testing.assert_allclose(net, wanted, atol=1e-12)


@pytest.mark.parametrize(("kind", "parameters"), [row for row in SHAPES if row[0] not in ("dragonfly", "torus")])
def test_spraying_by_class_gives_the_rates_of_spraying_on_the_explicit_graph(kind, parameters):
    """Bundles of alike cables beside every single cable with its own share, on searched shortest paths."""
    topology = build_topology("it", kind, parameters | ({"node": 1, "rails": 1} if kind == "hpn" else {}))
    wired = wire(topology)
    searched = GraphNetwork(graph=explicit_graph(topology))
    source, target = _pairs(wired.chips, 3 * wired.chips, seed=5)
    rates = []
    for network in (wired.outer, searched):
        routes = network.route(source, target, "spray", np.random.default_rng(0))
        width = network.bandwidth_bytes_per_s_L
        columns = class_loads(routes, np.arange(len(source)), len(source), len(width))
        rates.append(fair_rates(width, *columns, len(source)).rate_bytes_per_s_C)
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-9)


def test_a_ring_in_order_has_the_wires_for_itself():
    """One flow leaves each adapter and one enters it: nothing is slower than the ports, and the formula stands."""
    found = simulate("all_reduce", GIB, wire(build_topology("it", "rail", {"chips": 128, "leaf": 64})), routing="spray")
    assert _way(found, "ring").slowdown == pytest.approx(1.0)


@pytest.mark.parametrize("ratio", [2, 4])
def test_oversubscription_slows_what_climbs_by_its_ratio(ratio):
    """Random places: every flow of an all-to-all over many leaves climbs, and 1/ratio of the bandwidth is there."""
    wired = wire(build_topology("it", "clos", {"chips": 256, "node": 1, "leaf": 16, "oversubscription": ratio}))
    found = simulate("all_to_all", GIB, wired, routing="spray", placement="random", seed=2)
    assert _way(found, "direct").slowdown == pytest.approx(ratio * 240 / 255, rel=0.06)


def test_hashing_is_slower_than_spraying_and_planning_is_not():
    wired = wire(build_topology("it", "clos", {**CLOS, "node": 1}))
    slow = {routing: _way(simulate("all_reduce", GIB, wired, routing=routing, placement="random", seed=4),
                          "ring").slowdown for routing in ROUTINGS}
    assert slow["spray"] == pytest.approx(1.0)
    assert slow["planned"] == pytest.approx(1.0)
    assert slow["ecmp"] > 1.5


def test_more_hashed_parts_collide_less():
    wired = wire(build_topology("it", "clos", {"chips": 512, "node": 1, "leaf": 32}))
    one, many = (_way(simulate("all_reduce", GIB, wired, placement="random", queue_pairs=parts, seed=1),
                      "ring").slowdown for parts in (1, 16))
    assert 1.0 < many < one


def test_a_failed_spine_takes_its_share_of_the_bandwidth():
    """Four of four uplinks less one: random traffic under spraying has 3/4 left."""
    shape = {"chips": 64, "node": 1, "leaf": 4}
    whole, broken = (_way(simulate("all_reduce", GIB, wire(build_topology("it", "clos", shape, failed=failed)),
                                   routing="spray", placement="random", seed=9), "ring").slowdown
                     for failed in ((), ("spine:0",)))
    assert whole == pytest.approx(1.0)
    assert broken == pytest.approx(4 / 3)


def test_hashing_never_takes_what_is_out_of_order():
    topology = build_topology("it", "clos", {**CLOS, "node": 1}, failed=("spine:3", "link:7", "core:1"))
    network = wire(topology).outer
    source, target = _pairs(network.chips, 3000, seed=8)
    routes = network.route(source, target, "ecmp", np.random.default_rng(1))
    assert (network.bandwidth_bytes_per_s_L[routes.link_N] > 0).all()


@pytest.mark.parametrize("routing", ROUTINGS)
def test_a_chip_without_its_adapter_is_named(routing):
    wired = wire(build_topology("it", "clos", {**CLOS, "node": 1}, failed=("nic:5",)))
    with pytest.raises(NoAnswer, match="chip"):
        simulate("all_reduce", GIB, wired, routing=routing)


def test_one_seed_gives_one_answer():
    wired = wire(build_topology("it", "clos", CLOS))
    first, again, other = (simulate("all_reduce", GIB, wired, placement="random", seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.time_s, again.time_s)
    assert first.ways == again.ways or first.ways[0].slowdown == again.ways[0].slowdown
    assert [way.slowdown for way in first.ways] != [way.slowdown for way in other.ways]


def test_jobs_share_and_none_is_lost():
    wired = wire(build_topology("it", "clos", {**CLOS, "node": 8}))
    for placement in ("packed", "scattered", "random"):
        chips = np.concatenate([job.reshape(-1) for job in place_jobs(wired, 4, placement, np.random.default_rng(0))])
        np.testing.assert_array_equal(np.sort(chips), np.arange(128))
    with pytest.raises(BadInput, match="--jobs"):
        place_jobs(wired, 17, "packed", np.random.default_rng(0))


@pytest.mark.parametrize("pattern", ["ring", "tree", "exchange", "bruck", "shift", "flat"])
def test_every_domain_takes_part_and_weights_add_up(pattern):
    found = list(phases(pattern, np.arange(32).reshape(16, 2), np.random.default_rng(0), most_shifts=40))
    assert sum(phase.weight for phase in found) == pytest.approx(1.0)
    assert set(np.concatenate([phase.source_F for phase in found]).tolist()) == set(range(32))
    assert all((phase.source_F != phase.target_F).all() for phase in found)


def test_the_two_trees_load_every_adapter_twice_at_most():
    """Who forwards in one tree is a leaf of the other: 2 S a node, as the formula says; every child has a parent."""
    phase = next(phases("tree", np.arange(16)[:, None], np.random.default_rng(0)))
    sent = np.bincount(phase.source_F, weights=phase.load_F, minlength=16)
    assert sent.max() <= 2.0
    assert sent.sum() == pytest.approx(2 * 15)


def test_axes_share_the_adapters():
    """Two rings across nodes on every adapter get half each; one inside the node loads none."""
    wired = wire(build_topology("it", "clos", CLOS))
    found = axis_rates(wired, {"tp": (8, 1, "ring"), "cp": (4, 8, "ring"), "dp": (4, 32, "ring")}, routing="spray")
    assert found["tp"] == (np.inf, np.inf)
    np.testing.assert_allclose(found["cp"], [50e9, 25e9])
    np.testing.assert_allclose(found["dp"], [50e9, 25e9])


def test_time_scales_with_the_unit_of_time_and_of_bytes():
    """All bandwidths and the payload times k: the same time."""
    wires = [wire(build_topology("it", "clos", {**CLOS, "bandwidth": 50e9 * scale, "inner_bandwidth": 450e9 * scale}))
             for scale in (1.0, 8.0)]
    small, large = (simulate("all_reduce", GIB * scale, wired, routing="spray")
                    for wired, scale in zip(wires, (1.0, 8.0), strict=True))
    np.testing.assert_allclose(small.time_s, large.time_s, rtol=1e-9)


def test_the_tiers_of_a_reduced_fabric():
    fabric = reduced_fabric(build_topology("it", "rail", {"chips": 1024, "leaf": 256, "oversubscription": 2}))
    assert [(tier.name, tier.group_size) for tier in fabric.tiers] == [("node", 8), ("segment", 256), ("spine", 0)]
    assert [tier.oversubscription for tier in fabric.tiers] == [1.0, 1.0, 2.0]
    hashed = reduced_fabric(build_topology("it", "clos", {"chips": 1024, "leaf": 64}), routing="ecmp")
    assert 3.0 < hashed.tiers[-1].oversubscription < 6.0
    assert len(one_network(wire(build_topology("it", "clos", CLOS))).tiers) == 2
