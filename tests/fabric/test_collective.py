"""Collectives: formulas by hand, units by rescaling, bounds and order for every fabric of the catalogue."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serried.catalogue import names_of
from serried.errors import BadInput
from serried.fabric import (
    OPERATIONS,
    CollectiveProfile,
    Fabric,
    Tier,
    choose,
    collective_time_s,
    read_fabric,
    stolen_shares,
)
from serried.fabric.algorithms import join

PAYLOADS = 2.0 ** np.arange(8, 35)


def fabric_of(parameters: dict[str, float], *, kind: str = "switch", group: int = 8, adds: bool = False,
              network: bool = True, dimensions: tuple[int, ...] = ()) -> Fabric:
    tiers = (Tier(name="node", kind=kind, group_size=group, bandwidth_bytes_per_s=100e9, latency_s=1e-6,
                  in_network_reduction=adds, dimensions=dimensions),)
    if network:
        tiers += (Tier(name="network", kind="clos", group_size=0, bandwidth_bytes_per_s=10e9, latency_s=2e-6,
                       oversubscription=1.0),)
    profile = CollectiveProfile(name="test", library="test", parameters={"launch": 5e-6, **parameters}, spread=0.0,
                                evidence_class="data sheet only")
    return Fabric(name="test", tiers=tiers, profile=profile)


RING = {"ratio.ring.ll": 1.0, "network.ring.ll": 1.0, "step.ll": 3e-6, "hop.ll": 8e-6}


def test_ring_inside_a_node_by_hand():
    """Four ranks, 400 MB, 100 GB/s: 6 steps of 1 + 3 us, and 2 x 3/4 x 400 MB over 100 GB/s = 6 ms."""
    time_s = collective_time_s("all_reduce", 400e6, 4, fabric=fabric_of(RING))
    assert time_s == pytest.approx(5e-6 + 6 * 4e-6 + 6e-3)


def test_all_gather_takes_half_of_an_all_reduce():
    time_s = collective_time_s("all_gather", 400e6, 4, fabric=fabric_of(RING))
    assert time_s == pytest.approx(5e-6 + 3 * 4e-6 + 3e-3)


def test_ring_over_two_nodes_by_hand():
    """16 ranks, 8 a node: 14 hops inside and 1 between, twice; 8 x 10 GB/s between nodes bind, not 100 GB/s inside."""
    time_s = collective_time_s("all_reduce", 800e6, 16, fabric=fabric_of(RING))
    assert time_s == pytest.approx(5e-6 + 2 * (14 * 4e-6 + 1 * 10e-6) + 2 * 15 / 16 * 800e6 / 80e9)


@pytest.mark.parametrize(("stride", "bandwidth"), [(1, 80e9), (2, 40e9), (4, 20e9), (8, 10e9), (64, 10e9)])
def test_members_of_a_node_bring_their_adapters(stride, bandwidth):
    """A group with m members a node drives m adapters; with one member a node it has its own."""
    time_s = collective_time_s("all_gather", 1e12, 32, stride, fabric=fabric_of(RING))
    assert time_s == pytest.approx(31 / 32 * 1e12 / bandwidth, rel=1e-3)


def test_oversubscription_divides_the_tier():
    fabric = fabric_of(RING)
    narrow = dataclasses.replace(fabric, tiers=(fabric.tiers[0],
                                                dataclasses.replace(fabric.tiers[1], oversubscription=4.0)))
    wide_s, narrow_s = (collective_time_s("all_reduce", 1e12, 64, fabric=each) for each in (fabric, narrow))
    assert narrow_s / wide_s == pytest.approx(4.0, rel=1e-3)


def test_two_nodes_exchange_once_and_more_nodes_twice():
    """Complementary trees send S per node over two nodes, 2 S over more."""
    fabric = fabric_of({"ratio.tree.simple": 1.0, "network.tree.simple": 1.0, "exponent.stages": 32.0})
    two_s, four_s = (collective_time_s("all_reduce", 1e12, ranks, 8, fabric=fabric) for ranks in (2, 4))
    assert two_s == pytest.approx(1e12 / 10e9, rel=1e-3)
    assert four_s == pytest.approx(2e12 / 10e9, rel=1e-3)


def test_a_tree_needs_logarithmic_hops():
    fabric = fabric_of({"ratio.tree.ll": 1.0, "network.tree.ll": 1.0, "hop.ll": 8e-6})
    hops = (collective_time_s("all_reduce", 0, np.array([2, 4, 8, 1024]), 8, fabric=fabric) - 5e-6) / 10e-6
    assert hops == pytest.approx([2, 4, 6, 20])


def test_chunked_pipeline_has_a_square_root_term():
    """p = 1/2 is (sqrt(a) + sqrt(S/B))^2: 9 us of steps and 16 us of bytes make 49 us."""
    assert join(np.array(9e-6), np.array(16e-6), 0.5) == pytest.approx(49e-6)
    assert join(np.array(9e-6), np.array(16e-6), 1.0) == pytest.approx(25e-6)
    assert join(np.array(9e-6), np.array(16e-6), 64.0) == pytest.approx(16e-6)
    assert join(np.array(3.0), np.array(4.0), 2.0) == pytest.approx(5.0)


def test_the_largest_chunk_ends_the_square_root():
    assert join(np.array(1.0), np.array(10_000.0), 0.5, fill=7.0) == pytest.approx(10_008.0)
    assert join(np.array(1.0), np.array(4.0), 0.5, fill=7.0) == pytest.approx(9.0)


def test_switch_reduction_only_where_the_switch_adds_and_knows_the_format():
    parameters = {**RING, "ratio.switch.simple": 1.3, "network.switch.simple": 1.0, "minimum.switch": 5.0}
    adding = fabric_of(parameters, adds=True)
    assert choose("all_reduce", [1e9], 8, fabric=adding).algorithm == ["switch"]
    assert choose("all_reduce", [1e9], 4, fabric=adding).algorithm == ["ring"], "too small a group"
    assert choose("all_reduce", [1e9], 8, fabric=adding, switch_adds=False).algorithm == ["ring"]
    assert choose("all_reduce", [1e9], 8, fabric=fabric_of(parameters)).algorithm == ["ring"]
    assert choose("all_reduce", [1e9], 8, 8, fabric=adding).algorithm == ["ring"], "one member a node has no switch"


def test_mesh_gives_each_pair_its_own_wire():
    """Eight fully connected chips: two of them share one of seven wires, all eight use all."""
    fabric = fabric_of(RING, kind="mesh")
    two_s, eight_s = (collective_time_s("all_gather", 1e12, ranks, fabric=fabric) for ranks in (2, 8))
    assert two_s == pytest.approx(0.5e12 / (100e9 / 7), rel=1e-3)
    assert eight_s == pytest.approx(7 / 8 * 1e12 / 100e9, rel=1e-3)


def test_torus_uses_the_dimensions_a_group_spans():
    fabric = fabric_of(RING, kind="torus", group=64, dimensions=(4, 4, 4), network=False)
    one, two, three = (collective_time_s("all_gather", 1e12, ranks, fabric=fabric) / (ranks - 1) * ranks
                       for ranks in (4, 16, 64))
    assert one / three == pytest.approx(3.0, rel=1e-2)
    assert one / two == pytest.approx(2.0, rel=1e-2)


def test_hierarchical_sends_a_node_share_over_the_network():
    fabric = fabric_of({"ratio.hierarchical.simple": 1.0, "network.hierarchical.simple": 1.0})
    time_s = collective_time_s("all_reduce", 1e12, 32, fabric=fabric)
    assert time_s == pytest.approx(2 * (7 / 8 * 1e12 / 100e9 + 3 / 4 * 1e12 / 8 / 10e9), rel=1e-3)


def test_all_to_all_is_bound_by_what_leaves_the_node():
    fabric = fabric_of({"ratio.direct.simple": 1.0, "network.direct.simple": 1.0})
    assert collective_time_s("all_to_all", 1e12, 32, fabric=fabric) == pytest.approx(24 / 32 * 1e12 / 10e9, rel=1e-3)
    assert collective_time_s("all_to_all", 1e12, 8, fabric=fabric) == pytest.approx(7 / 8 * 1e12 / 100e9, rel=1e-3)


def test_send_goes_over_the_outermost_tier_that_any_hop_crosses():
    fabric = fabric_of({"ratio.direct.simple": 1.0, "network.direct.simple": 1.0})
    assert collective_time_s("send", 1e12, 4, 1, fabric=fabric) == pytest.approx(1e12 / 100e9, rel=1e-3)
    assert collective_time_s("send", 1e12, 4, 8, fabric=fabric) == pytest.approx(1e12 / 10e9, rel=1e-3)


def test_the_library_may_choose_against_its_interest():
    """A library that believes in half of the ring's true time takes it where another way is faster."""
    parameters = {**RING, "ratio.two-shot.simple": 0.9, "step.two-shot": 1e-6}
    small = choose("all_reduce", [1e3], 8, fabric=fabric_of(parameters))
    assert small.algorithm == ["two-shot"]
    assert small.time_s[0] == min(times[0] for times in small.alternatives_s.values())
    biased = choose("all_reduce", [1e3], 8, fabric=fabric_of({**parameters, "choice.ring": 0.1}))
    assert biased.algorithm == ["ring"]
    assert biased.time_s[0] > small.time_s[0]


def test_ways_narrow_the_choice():
    fabric = read_fabric("hgx-h100")
    free = choose("all_reduce", PAYLOADS, 8, fabric=fabric)
    ring_s = collective_time_s("all_reduce", PAYLOADS, 8, fabric=fabric, ways=["ring/simple"])
    assert (ring_s == free.alternatives_s["ring/simple"]).all()
    with pytest.raises(BadInput, match="algorithm"):
        collective_time_s("all_reduce", 1e6, 8, fabric=fabric, ways=["carrier-pigeon/"])


@pytest.mark.parametrize("name", names_of("fabrics"))
def test_every_fabric_runs_every_collective(name):
    """Finite, nothing for one rank, monotone in bytes, and never faster than the widest wires allow."""
    fabric = read_fabric(name)
    for operation in OPERATIONS:
        for degree, stride in ((2, 1), (4, 2), (8, 1), (16, 8), (64, 1)):
            time_s = collective_time_s(operation, PAYLOADS, degree, stride, fabric=fabric)
            assert np.isfinite(time_s).all()
            assert (time_s > 0).all()
            widest = max(tier.bandwidth_bytes_per_s for tier in fabric.tiers)
            share = (degree - 1) / degree if operation not in ("send", "broadcast") else 0.5
            assert (time_s >= 0.7 * share * PAYLOADS / widest).all()
            ways = choose(operation, PAYLOADS, degree, stride, fabric=fabric).alternatives_s
            assert all((np.diff(times[np.isfinite(times)]) >= -1e-15).all() for times in ways.values())
        assert (collective_time_s(operation, PAYLOADS, 1, fabric=fabric) == 0.0).all()


@pytest.mark.parametrize("name", names_of("fabrics"))
def test_a_library_is_never_far_from_its_best(name):
    """Libraries misjudge, but a pick that takes thrice the best way is a fault of ours."""
    fabric = read_fabric(name)
    for operation in ("all_reduce", "all_gather", "all_to_all"):
        for degree in (8, 64, 512):
            pick = choose(operation, PAYLOADS, degree, fabric=fabric)
            best_s = np.min(list(pick.alternatives_s.values()), axis=0)
            assert (pick.time_s <= 3.0 * best_s).all()


@pytest.mark.parametrize("name", ["hgx-h100", "dgx-a100", "hgx-b200", "mi300x-node", "tpu-v5p-pod"])
def test_scatter_and_gather_make_no_less_than_half_an_all_reduce(name):
    """The two halves move what an all-reduce moves, so they cannot beat it where no switch adds."""
    fabric = read_fabric(name)
    payload = 2.0 ** np.arange(24, 34)
    halves_s = sum(collective_time_s(half, payload, 8, fabric=fabric) for half in ("reduce_scatter", "all_gather"))
    whole_s = collective_time_s("all_reduce", payload, 8, fabric=fabric, switch_adds=False)
    assert (halves_s > 0.8 * whole_s).all()


def _rescaled(fabric: Fabric, second: float, byte: float) -> Fabric:
    """The same fabric in a world whose second and byte are counted in other units."""
    in_s = {"launch", "step", "hop", "peer", "floor"}
    parameters = {name: value * (second if name.partition(".")[0] in in_s else byte
                                 if name.startswith("maximum") else 1.0)
                  for name, value in fabric.profile.parameters.items()}
    tiers = tuple(dataclasses.replace(tier, bandwidth_bytes_per_s=tier.bandwidth_bytes_per_s * byte / second,
                                      latency_s=tier.latency_s * second) for tier in fabric.tiers)
    return dataclasses.replace(fabric, tiers=tiers, profile=dataclasses.replace(fabric.profile, parameters=parameters))


@given(second=st.floats(1e-3, 1e3), byte=st.floats(1e-3, 1e3), operation=st.sampled_from(OPERATIONS),
       ranks=st.integers(2, 512), stride=st.sampled_from([1, 2, 8]), payload=st.floats(1.0, 1e11))
def test_seconds_scale_as_seconds(second, byte, operation, ranks, stride, payload):
    fabric = read_fabric("hgx-b200")
    here = collective_time_s(operation, payload, ranks, stride, fabric=fabric)
    there = collective_time_s(operation, payload * byte, ranks, stride, fabric=_rescaled(fabric, second, byte))
    assert there == pytest.approx(here * second, rel=1e-6)


def test_broadcasting_and_speed_of_arrays():
    fabric = read_fabric("hgx-h100")
    table_s = collective_time_s("all_reduce", PAYLOADS[:, None], np.array([2, 8, 64])[None, :], fabric=fabric)
    assert table_s.shape == (len(PAYLOADS), 3)
    assert table_s[5, 2] == collective_time_s("all_reduce", PAYLOADS[5], 64, fabric=fabric)


def test_bad_questions_are_refused():
    fabric = read_fabric("hgx-h100")
    for bad in ({"payload_bytes": -1.0}, {"degree": 0}, {"stride": 0}, {"payload_bytes": np.nan},
                {"operation": "all_hands"}):
        question = {"operation": "all_reduce", "payload_bytes": 1.0, "degree": 8, "stride": 1, **bad}
        with pytest.raises(BadInput):
            collective_time_s(fabric=fabric, **question)


def test_a_running_collective_steals_some_of_the_chip():
    cores, hbm = stolen_shares(read_fabric("hgx-h100"))
    assert 0.0 < cores < 0.5
    assert 0.0 < hbm < 0.5
