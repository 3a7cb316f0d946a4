"""Islands of an explicit graph become tiers, and what crosses between them costs what it costs on the wires."""

import numpy as np
import pytest

from serried.fabric import collective_time_s
from serried.topology import explicit_graph, read_topology, wire
from serried.topology.islands import island_chips, leaving_bytes_per_s
from serried.topology.reduction import reduced_fabric
from serried.topology.simulation import simulate
from serried.weave import schedule_time_s, stock_schedule
from serried.weave.wires import read_wires
from tests.laws.source import ROOT

EXAMPLE = ROOT / "examples" / "two-islands.toml"


def odd(tmp_path, homes, *, bridge=10, between="ab"):
    """Chips on the named switches at 40 bytes/s, and a bridge between two of them."""
    switches = sorted({*homes, *between})
    nodes = [f'{{name = "c{place}"}}' for place in range(len(homes))] + [
        f'{{name = "{switch}", switch = true}}' for switch in switches]
    links = [(f"c{place}", home, 40) for place, home in enumerate(homes)] + [(*between, bridge)]
    text = f'schema = "serried/topology/1"\nkind = "explicit"\nname = "odd"\nnode = [{", ".join(nodes)}]\n'
    for one, other, rate in links:
        text += f'[[link]]\nfrom = "{one}"\nto = "{other}"\nbandwidth = {rate}\nlatency = "0 s"\n'
    path = tmp_path / "odd.toml"
    path.write_text(text, encoding="utf-8")
    return read_topology(path)


def test_two_islands_by_hand():
    """Four chips at 25 GB/s behind 6.25 GB/s: 16 to 1."""
    topology = read_topology(EXAMPLE)
    inner, outer = reduced_fabric(topology).tiers
    assert (inner.name, inner.group_size, inner.oversubscription) == ("island", 4, 1.0)
    assert (outer.group_size, outer.bandwidth_bytes_per_s, outer.oversubscription) == (8, 25e9, pytest.approx(16.0))
    assert wire(topology).node_count == 2
    side = np.arange(8) < 4
    assert leaving_bytes_per_s(explicit_graph(topology), side) == pytest.approx(6.25e9, rel=1e-6)


@pytest.mark.parametrize(("homes", "bridge"), [
    ("aaaa", 10),      # one switch
    ("aabbb", 10),     # not equal
    ("abab", 10),      # not side by side
    ("aabb", 80)],     # the bridge carries whatever they send
    ids=["one", "unequal", "mixed", "wide"])
def test_other_graphs_are_one_domain(tmp_path, homes, bridge):
    topology = odd(tmp_path, homes, bridge=bridge)
    assert island_chips(explicit_graph(topology)) == 1
    assert [tier.oversubscription for tier in reduced_fabric(topology).tiers] == [1.0]


def test_tiers_cost_what_the_wires_cost():
    """The ring of the planner's formula, of flows on links and of a schedule played message by message agree."""
    topology, payload = read_topology(EXAMPLE), 2.0**28
    played_s = schedule_time_s(stock_schedule("all_reduce", "ring", 8), read_wires(EXAMPLE), payload)
    assert played_s == pytest.approx(2 * 7 / 8 * payload / 6.25e9, rel=0.01)
    fabric = reduced_fabric(topology)
    ratio = fabric.profile.parameters["ratio.ring.simple"]
    formula_s = float(collective_time_s("all_reduce", payload, 8, fabric=fabric, ways=["ring/simple"]))
    assert formula_s * ratio == pytest.approx(played_s, rel=0.02)
    found = simulate("all_reduce", np.array([payload]), wire(topology))
    flows = next(way for way in found.ways if (way.algorithm, way.protocol) == ("ring", "simple"))
    assert float(flows.time_s[0]) == pytest.approx(formula_s, rel=0.02)
