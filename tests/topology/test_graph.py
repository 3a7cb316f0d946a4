"""Topologies as graphs: counts by hand, round trips through the file, and what is refused."""

import numpy as np
import pytest

from serried.errors import BadInput, NoAnswer
from serried.topology import build_topology, explicit_graph, read_topology, topology_toml

#: Kind, parameters, endpoints, switches, directed links; counted by hand.
COUNTED = [
    ("switch", {"chips": 8}, 8, 1, 16),
    ("full", {"chips": 8}, 8, 0, 56),
    ("ring", {"chips": 5}, 5, 0, 10),
    ("cube-mesh", {}, 8, 0, 32),
    ("torus", {"x": 4, "y": 4, "z": 4}, 64, 0, 384),
    ("clos", {"chips": 64, "node": 1, "leaf": 16, "pod": 0}, 64, 4 + 16, 2 * (64 + 64)),
    ("clos", {"chips": 64, "node": 1, "leaf": 16, "pod": 32}, 64, 4 + 2 * 16 + 16 * 2, 2 * 3 * 64),
    ("rail", {"chips": 128, "leaf": 64}, 128, 16 + 2 * 8 + 8 - 8, 768),
    ("hpn", {"chips": 64, "leaf": 64}, 64, 16 + 8, 2 * 128 * 2 + 128),
    ("dragonfly", {"groups": 4, "routers": 3, "router_chips": 2}, 24, 12, 2 * 24 + 4 * 6 + 12),
]


@pytest.mark.parametrize(("kind", "parameters", "chips"), [row[:3] for row in COUNTED])
def test_endpoints_are_as_many_as_asked_for(kind, parameters, chips):
    assert explicit_graph(build_topology("it", kind, parameters)).endpoint_count == chips


@pytest.mark.parametrize("row", [row for row in COUNTED if row[0] not in ("rail", "hpn")], ids=str)
def test_switches_and_links_are_counted_by_hand(row):
    kind, parameters, chips, switches, links = row
    graph = explicit_graph(build_topology("it", kind, parameters))
    assert (graph.node_count, graph.link_count) == (chips + switches, links)


@pytest.mark.parametrize("row", COUNTED, ids=str)
def test_every_link_has_its_other_direction(row):
    graph = explicit_graph(build_topology("it", row[0], row[1]))
    there, back = (sorted(zip(ends[0].tolist(), ends[1].tolist(), strict=True)) for ends in (
        (graph.source_L, graph.target_L), (graph.target_L, graph.source_L)))
    assert there == back
    assert (graph.bandwidth_bytes_per_s_L > 0).all()


@pytest.mark.parametrize("row", COUNTED, ids=str)
def test_a_file_gives_back_what_was_written(row, tmp_path):
    made = build_topology("it", row[0], row[1])
    path = tmp_path / "it.toml"
    path.write_text(topology_toml(made))
    assert dict(read_topology(path).parameters) == dict(made.parameters)


def test_an_explicit_graph_is_read_and_written(tmp_path):
    path = tmp_path / "odd.toml"
    path.write_text('schema = "serried/topology/1"\nname = "odd"\nkind = "explicit"\n'
                    + "".join(f'[[node]]\nname = "{name}"\n' for name in "abc")
                    + '[[node]]\nname = "s"\nswitch = true\n'
                    + "".join(f'[[link]]\nfrom = "{end}"\nto = "s"\nbandwidth = "{pace} GB/s"\n'
                              for end, pace in (("a", 1), ("b", 2), ("c", 3))))
    graph = explicit_graph(read_topology(path))
    assert graph.node_names == ("a", "b", "c", "s")
    assert graph.is_switch(3)
    np.testing.assert_allclose(graph.bandwidth_bytes_per_s_L, [1e9, 1e9, 2e9, 2e9, 3e9, 3e9])
    path.write_text(topology_toml(read_topology(path)))
    np.testing.assert_array_equal(explicit_graph(read_topology(path)).source_L, graph.source_L)


@pytest.mark.parametrize(("text", "field"), [
    ('kind = "closs"\n', "kind"),
    ('kind = "clos"\n', "parameters.chips"),
    ('kind = "clos"\nspeed = 3\n', "speed"),
    ('kind = "clos"\n[parameters]\nchips = 64\nspines = 3\n', "parameters.spines"),
    ('kind = "clos"\n[parameters]\nchips = 63\n', "parameters.chips"),
    ('kind = "clos"\n[parameters]\nchips = 1e300\n', "parameters.chips"),
    ('kind = "clos"\n[parameters]\nchips = 64\nbandwidth = "0 GB/s"\n', "parameters.bandwidth"),
    ('kind = "ring"\nfailed = ["link"]\n[parameters]\nchips = 6\n', "failed"),
    ('kind = "ring"\nfailed = ["link:99"]\n[parameters]\nchips = 6\n', "failed"),
    ('kind = "explicit"\n[[node]]\nname = "a"\n[[node]]\nname = "b"\n', "link"),
    ('kind = "explicit"\n[[node]]\nname = "a"\n[[link]]\nfrom = "a"\nto = "b"\nbandwidth = 1\n', "link[0].to"),
])
def test_what_is_wrong_is_refused_at_its_place(text, field, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text('schema = "serried/topology/1"\n' + text)
    with pytest.raises(BadInput) as refused:
        explicit_graph(read_topology(path))
    assert refused.value.field == field
    assert refused.value.file == str(path)


def test_a_fabric_cut_apart_has_no_answer():
    with pytest.raises(NoAnswer, match="cut apart"):
        explicit_graph(build_topology("it", "ring", {"chips": 4}, failed=("link:0", "link:4")))
