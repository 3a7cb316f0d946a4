"""Fitted schedules: bounds by hand, packings that reach them, predicted times of cases that can be counted."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.errors import BadInput
from serried.weave import faults, read_wires, schedule_time_s, stock_schedule, stock_times_s, synthesise
from serried.weave.bound import all_reduce_bound, broadcast_bound, gather_bound
from serried.weave.spec import in_equal_chunks
from serried.weave.synthesis import _cut
from serried.weave.timing import message_bytes_K, paths
from serried.weave.trees import Tree, _Mixer, _Routes, _stars, pack_trees
from serried.weave.wires import wires

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "broadcast")


def star(count, rate=1.0, slow=None):
    """Everybody on one switch; endpoint 0 perhaps slower."""
    rates = [slow if slow and rank == 0 else rate for rank in range(count)]
    links = [each for rank, own in enumerate(rates) for each in ((rank, count, own, 0.0), (count, rank, own, 0.0))]
    return wires("star", (*(f"r{rank}" for rank in range(count)), "s"), count, links)


def islands(count, rate=1.0, bridge=0.25):
    """Two stars of `count` on a thin bridge."""
    links = []
    for rank in range(2 * count):
        switch = 2 * count + rank // count
        links += [(rank, switch, rate, 0.0), (switch, rank, rate, 0.0)]
    links += [(2 * count, 2 * count + 1, bridge, 0.0), (2 * count + 1, 2 * count, bridge, 0.0)]
    return wires("islands", tuple(map(str, range(2 * count + 2))), 2 * count, links)


def rails(nodes=3, width=3):
    """Nodes of `width` chips on a quick switch each; chip i of every node on leaf i, and a spine over the leaves."""
    count = nodes * width
    links = [(rank, count + rank // width, 9.0) for rank in range(count)]
    links += [(rank, count + nodes + rank % width, 1.0) for rank in range(count)]
    links += [(count + nodes + leaf, count + nodes + width, float(nodes)) for leaf in range(width)]
    both = [each for one, other, rate in links for each in ((one, other, rate, 0.0), (other, one, rate, 0.0))]
    return wires("rails", tuple(map(str, range(count + nodes + width + 1))), count, both)


def torus(side):
    ends = [(x * side + y, (x + dx) % side * side + (y + dy) % side) for x in range(side) for y in range(side)
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    return wires("torus", tuple(map(str, range(side * side))), side * side, [(*end, 1.0, 0.0) for end in ends])


def test_bounds_by_hand():
    """A star of n: 2 (n-1)/n; a slow leaf passes the buffer once each way; a bridge carries it once each way."""
    assert all_reduce_bound(star(8)) == pytest.approx(2 * 7 / 8, rel=1e-3)
    assert all_reduce_bound(star(8, slow=0.1)) == pytest.approx(10.0, rel=1e-3)
    assert gather_bound(star(8)) == pytest.approx(7 / 8)
    assert gather_bound(islands(4, bridge=0.1)) == pytest.approx(0.5 / 0.1)
    assert all_reduce_bound(islands(4, bridge=0.1)) == pytest.approx(1 / 0.1, rel=1e-3)
    assert gather_bound(torus(4)) == pytest.approx(15 / 16 / 4)
    assert broadcast_bound(torus(4), 0) == pytest.approx(1 / 4)


def test_the_gather_bound_is_the_worst_of_all_cuts():
    """Independent and slow: every subset of the nodes of a small odd graph."""
    chance = np.random.default_rng(5)
    links = [(one, other, float(chance.integers(1, 9)), 0.0) for one, other in itertools.permutations(range(6), 2)
             if chance.random() < 0.7 or other == (one + 1) % 6]
    graph = wires("odd", tuple("abcdef"), 5, links)
    worst = 0.0
    for nodes in itertools.product((False, True), repeat=6):
        side = np.asarray(nodes)
        leaving = graph.bandwidth_bytes_per_s_E[side[graph.source_E] & ~side[graph.target_E]].sum()
        if side.any() and not side[:5].all() and side[:5].any():
            worst = max(worst, side[:5].sum() / 5 / leaving)
    assert gather_bound(graph) == pytest.approx(worst, rel=1e-6)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("graph", [star(8), star(6, slow=0.3), islands(3), torus(4), rails()],
                         ids=["star", "slow", "bridge", "torus", "rails"])
def test_fitted_schedules_are_right_and_reach_the_bound(operation, graph):
    made = synthesise(operation, graph, 1e6, grain=8)
    assert faults(made.schedule) == []
    assert made.packed_s <= made.bound_s * 1.01
    assert made.bound_s <= made.packed_s * (1 + 1e-6)
    assert made.bound_s <= made.chunked_s * (1 + 1e-6)
    assert made.chunked_s <= made.time_s * (1 + 1e-6)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.01, 100.0), st.floats(0.01, 100.0))
def test_times_scale_as_seconds(rate, payload):
    """Twice the bytes take twice as long, twice the rate half as long."""
    schedule = stock_schedule("all_reduce", "ring", 4)
    once = schedule_time_s(schedule, star(4), 1.0)
    assert schedule_time_s(schedule, star(4, rate=rate), payload) == pytest.approx(once * payload / rate)


def test_a_ring_takes_what_its_formula_says():
    """2 (n-1) steps of 1/n of the buffer, each also paying two latencies of the star and the software once."""
    graph = wires("star", ("a", "b", "c", "d", "s"), 4, [each for rank in range(4) for each in (
        (rank, 4, 2.0, 0.5), (4, rank, 2.0, 0.5))])
    time_s = schedule_time_s(stock_schedule("all_reduce", "ring", 4), graph, 8.0, step_s=0.25)
    assert time_s == pytest.approx(6 * (8 / 4 / 2 + 2 * 0.5 + 0.25))


def test_software_handles_one_message_at_a_time():
    """A root that takes a message from each of three others: half a cost at the sender, then three halves in turn."""
    links = [each for rank in (1, 2, 3) for each in ((rank, 0, 1e9, 0.0), (0, rank, 1e9, 0.0))]
    schedule = stock_schedule("broadcast", "direct", 4)
    graph = wires("spokes", tuple("abcd"), 4, links)
    assert schedule_time_s(schedule, graph, 4.0, step_s=0.2) == pytest.approx(3 * 0.1 + 0.1, rel=1e-6)


def test_sums_do_not_wait_for_each_other_s_messages():
    """On a star everybody sends its block to its root at once: the fitted all-reduce reaches its bound."""
    made = synthesise("all_reduce", star(8), 1e6)
    assert made.time_s <= made.bound_s * 1.06


@pytest.mark.parametrize("graph", [star(8, slow=0.2), islands(4)], ids=["slow", "bridge"])
def test_a_list_schedule_fills_the_narrow_wire(graph):
    """What is predicted comes near the bound when messages cost nothing: the pipeline never starves."""
    made = synthesise("all_reduce", graph, 1e6, grain=32)
    assert made.time_s <= made.bound_s * 1.2
    assert faults(made.schedule) == []


def test_costly_messages_make_coarser_chunks():
    graph = islands(4, rate=1e6, bridge=2.5e5)
    cheap, dear = (synthesise("all_reduce", graph, 1e6, step_s=step_s).schedule.chunk_count for step_s in (1e-5, 0.1))
    assert dear < cheap


def test_fitted_beats_stock_where_the_wires_are_odd():
    graph = islands(4, bridge=0.1)
    assert synthesise("all_reduce", graph, 1e6).time_s < min(stock_times_s("all_reduce", graph, 1e6).values()) / 1.3


def test_the_same_seed_makes_the_same_schedule():
    one, other = (synthesise("all_gather", islands(3), 1e6, grain=4).schedule.steps for _ in range(2))
    assert (one.peer_K == other.peer_K).all()
    assert (one.source_chunk_K == other.source_chunk_K).all()


_EXPLICIT = 'schema = "serried/topology/1"\nkind = "explicit"\nnode = [{name = "a"}, {name = "b"}]\n'


def test_wires_come_from_a_topology_file(tmp_path):
    """One link is two wires, one each way."""
    path = tmp_path / "pair.toml"
    link = '[[link]]\nfrom = "a"\nto = "b"\nbandwidth = "1 GB/s"\nlatency = "2 us"\n'
    path.write_text(_EXPLICIT + link, encoding="utf-8")
    graph = read_wires(path)
    assert graph.bandwidth_bytes_per_s_E.tolist() == [1e9, 1e9]
    assert graph.latency_s_E.tolist() == [2e-6, 2e-6]


@pytest.mark.parametrize("text", [
    _EXPLICIT, _EXPLICIT + '[[link]]\nfrom = "a"\nto = "c"\nbandwidth = "1 GB/s"\n',
    _EXPLICIT + '[[link]]\nfrom = "a"\nto = "b"\none_way = true\nbandwidth = "1 GB/s"\n', "node = ["])
def test_bad_wires_are_refused(tmp_path, text):
    path = tmp_path / "wires.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput):
        read_wires(path)


def test_wires_that_need_not_be_full_are_not():
    """Two islands of four: a chunk crosses the bridge once each way and takes 14 messages over the 8 other wires each
    way, where 14 / 8 of a buffer at rate 1 stand beside 1 at the bridge's quarter."""
    graph = islands(4)
    packing = pack_trees(graph, None, spreads=True, gathers=True, bound_s_per_byte=all_reduce_bound(graph))
    load_E = np.zeros(len(graph.source_E))
    for tree, share in zip(packing.trees, packing.share_T, strict=True):
        np.add.at(load_E, list(tree.load_E), share)
    bridge_E = (graph.source_E >= 8) & (graph.target_E >= 8)
    assert load_E[bridge_E] == pytest.approx(1.0, rel=1e-3)
    assert load_E[~bridge_E] == pytest.approx(14 / 8, rel=0.02)


def test_trees_go_where_messages_go():
    """The wires that a tree was packed with are those that its messages take in the timing."""
    graph = rails()
    routes = paths(graph)
    packing = pack_trees(graph, None, spreads=True, gathers=True, bound_s_per_byte=all_reduce_bound(graph))
    for tree in packing.trees:
        hops = [(child, parent) if tree.gathers else (parent, child)
                for child, parent in enumerate(tree.parent_V) if parent >= 0]
        assert sorted(tree.load_E) == sorted(wire for hop in hops for wire in routes[hop])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=40), st.integers(1, 64))
def test_every_way_gets_its_share_in_chunks(shares, chunks):
    """`chunks` in all, none empty, and what a way carries is its part of what all that were kept carry."""
    ways = {(number,): share for number, share in enumerate(shares)}
    found = _cut(ways, chunks)
    units = sum(map(sum, found.values()))
    kept = sum(sorted(shares)[-chunks:])
    assert sum(map(len, found.values())) == chunks
    assert min(map(min, found.values())) >= 1
    for way, cut in found.items():
        assert sum(cut) / units == pytest.approx(ways[way] / kept, abs=1 / 4096)
        assert max(cut) - min(cut) <= 1


def test_chunks_of_any_weight_become_equal_ones():
    made = synthesise("all_reduce", star(5, slow=0.37), 1e6, grain=3).schedule
    equal = in_equal_chunks(made)
    assert len(np.unique(made.chunk_weight_C)) > 1
    assert faults(equal) == []
    assert message_bytes_K(equal, 1e6) == pytest.approx(message_bytes_K(made, 1e6))


def test_shallow_trees_where_they_do_as_well():
    """Straight through the switches is as good as anything on paths that are what they are: nothing is passed on."""
    graph = rails(nodes=2, width=2)
    packing = pack_trees(graph, None, spreads=True, gathers=True, bound_s_per_byte=all_reduce_bound(graph))
    stars = _stars(graph, _Routes(graph), range(4), (False, True))
    straight = _Mixer(graph, None, (False, True)).mix(stars).time_s_per_byte
    deepest = max(max(tree.depth_V()) for tree in packing.trees)
    assert packing.time_s_per_byte <= straight * (1 + 1e-6)
    assert deepest == 1 or packing.time_s_per_byte < straight * (1 - 2e-3)


def test_depths_by_hand():
    assert Tree(root=2, gathers=False, parent_V=(1, 2, -1, 0), load_E=()).depth_V() == [2, 1, 0, 3]
