"""Other programs' forms: what is written is read back the same, and hostile text is refused at its place."""

import json

import pytest

from serried.errors import BadInput
from serried.topology import build_topology, explicit_graph, wire
from serried.topology.labels import kubernetes_labels, read_host_table, read_kubernetes
from serried.topology.nccl_xml import read_nccl_xml
from serried.topology.slurm import expand, folded, read_slurm, slurm_conf, slurm_yaml, tiers_of

THREE_TIERS = build_topology("it", "rail", {"chips": 512, "leaf": 128, "pod": 256})
XML = """<system version="1">
  <cpu numaid="0" affinity="ff" arch="x86_64" vendor="AuthenticAMD">
    <pci busid="0000:01:00.0" class="0x060400" link_speed="16.0 GT/s PCIe" link_width="16">
      <pci busid="0000:02:00.0" class="0x030200" link_speed="16.0 GT/s PCIe" link_width="16">
        <gpu dev="0" sm="80" rank="0" gdr="1"><nvlink target="0000:03:00.0" count="2" tclass="0x030200"/></gpu></pci>
      <pci busid="0000:03:00.0" class="0x030200" link_speed="16.0 GT/s PCIe" link_width="16">
        <gpu dev="1" sm="80" rank="1" gdr="1"><nvlink target="0000:02:00.0" count="2" tclass="0x030200"/></gpu></pci>
      <pci busid="0000:04:00.0" class="0x020700" link_speed="16.0 GT/s PCIe" link_width="16"><nic/></pci>
    </pci>
  </cpu>
</system>"""


@pytest.mark.parametrize(("suffix", "write"), [("conf", slurm_conf), ("yaml", slurm_yaml)])
def test_slurm_gives_back_what_was_written(suffix, write, tmp_path):
    path = tmp_path / f"topology.{suffix}"
    path.write_text(write(THREE_TIERS))
    found = read_slurm(path, {"node": 8})
    hosts, labels = tiers_of(THREE_TIERS)
    got = dict(zip(found.hosts, zip(*found.labels.values(), strict=True), strict=True))
    assert got == dict(zip(hosts, zip(*labels.values(), strict=True), strict=True))
    assert wire(found).chips == 512


def test_kubernetes_gives_back_what_was_written(tmp_path):
    path = tmp_path / "nodes.json"
    path.write_text(kubernetes_labels(THREE_TIERS, ("a/leaf", "a/spine", "a/core")))
    found = read_kubernetes(path, {"node": 8}, ("a/leaf", "a/spine", "a/core"))
    assert (found.hosts, dict(found.labels)) == (tiers_of(THREE_TIERS)[0], dict(tiers_of(THREE_TIERS)[1]))


def test_a_table_of_hosts(tmp_path):
    path = tmp_path / "hosts.csv"
    path.write_text("ip,DSW,PSW,ASW\nh0,G,P1,S1\nh1,G,P1,S2\nh2,G,P2,S1\nh3,G,P2,S1\n")
    found = read_host_table(path, {"node": 8}, ("ASW", "PSW", "DSW"), "ip")
    network = wire(found).outer
    assert network.groups_K == (32, 3, 2, 1)   # S1 of P1 is not S1 of P2
    assert found.labels["leaf"] == ("P1.S1", "S2", "P2.S1", "P2.S1")
    (tmp_path / "topology.conf").write_text(slurm_conf(found))
    assert set(read_slurm(tmp_path / "topology.conf", {"node": 8}).labels["leaf"]) == {"P1.S1", "S2", "P2.S1"}


def test_blocks_need_no_switch_above(tmp_path):
    path = tmp_path / "topology.conf"
    path.write_text("# blocks\nBlockName=b0 Nodes=n[00-17]\nBlockName=b1 Nodes=n[18-35]\nBlockSizes=18\n")
    found = read_slurm(path, {"node": 4})
    assert len(found.hosts) == 36
    assert found.hosts[0] == "n00"
    assert set(found.labels["leaf"]) == {"b0", "b1"}


def test_names_fold_and_expand():
    names = ["n1", "n2", "n3", "n7", "login", "m09"]
    assert sorted(expand(folded(names), "", 1)) == sorted(names)


@pytest.mark.parametrize(("text", "place"), [
    ("SwitchName=s0 Nodes=a,b\nSwitchName=s1 Nodes=c\nSwitchName=top Switches=s0\n", "Nodes"),
    ("SwitchName=a Nodes=n\nSwitchName=b Nodes=m\nSwitchName=c Switches=a\nSwitchName=d Switches=b\n", "SwitchName"),
    ("SwitchName=s0 Nodes=a\nSwitchName=s0 Nodes=b\n", "line 2"),
    ("SwitchName=s0 Nodes=a\nSwitchName=s1 Nodes=a\n", "line 2"),
    ("SwitchName=s0 Switches=s1\nSwitchName=s1 Switches=s0 Nodes=x\n", "line 1"),
    ("SwitchName=s0 Nodes=n[0-99999999999]\n", "line 1"),
    ("SwitchName=s0 Nodes=n[0-9999999]\n", "line 1"),
    ("nonsense\n", "line 1"),
    ("", "Nodes"),
])
def test_a_bad_topology_conf_is_refused_at_its_line(text, place, tmp_path):
    path = tmp_path / "topology.conf"
    path.write_text(text)
    with pytest.raises(BadInput) as refused:
        read_slurm(path, {})
    assert refused.value.field == place


def test_yaml_with_anchors_is_refused(tmp_path):
    path = tmp_path / "topology.yaml"
    path.write_text("- topology: x\n  tree:\n    switches: &a\n      - switch: s0\n        nodes: *a\n")
    with pytest.raises(BadInput, match="line 3"):
        read_slurm(path, {})


def test_a_node_without_a_label_is_named(tmp_path):
    path = tmp_path / "nodes.json"
    path.write_text(json.dumps({"items": [{"metadata": {"name": "a", "labels": {"leaf": "x"}}},
                                          {"metadata": {"name": "b", "labels": {}}}]}))
    with pytest.raises(BadInput, match=r"b\.leaf"):
        read_kubernetes(path, {}, ("leaf",))


def test_a_node_as_its_library_sees_it(tmp_path):
    path = tmp_path / "topo.xml"
    path.write_text(XML)
    graph = explicit_graph(read_nccl_xml(path, {}, link_bandwidth="25 GB/s"))
    assert graph.node_names == ("chip0", "chip1", "cpu0", "pci-0000:01:00.0")
    links = {(graph.node_names[source], graph.node_names[target]): pace for source, target, pace in
             zip(graph.source_L, graph.target_L, graph.bandwidth_bytes_per_s_L, strict=True)}
    assert links["chip0", "chip1"] == links["chip1", "chip0"] == 50e9
    assert links["chip0", "pci-0000:01:00.0"] == pytest.approx(16 * 1.969e9)


def test_cpus_are_joined_as_fast_as_their_kind_is(tmp_path):
    path = tmp_path / "topo.xml"
    cpu = ('<cpu numaid="{}" arch="x86_64" vendor="{}" familyid="{}" modelid="{}"><pci busid="0000:{}0:00.0" '
           'link_speed="16.0 GT/s PCIe" link_width="16"><gpu dev="{}"/></pci></cpu>')
    for vendor, family, model, pace in (("AuthenticAMD", 143, 49, 16e9), ("AuthenticAMD", 175, 1, 24e9),
                                        ("GenuineIntel", 6, 143, 22e9), ("Else", 1, 1, 20e9)):
        path.write_text("<system>" + "".join(cpu.format(n, vendor, family, model, n, n) for n in (0, 1)) + "</system>")
        graph = explicit_graph(read_nccl_xml(path, {}, link_bandwidth="25 GB/s"))
        ends = [[graph.node_names[end] for end in pair] for pair in zip(graph.source_L, graph.target_L, strict=True)]
        assert graph.bandwidth_bytes_per_s_L[ends.index(["cpu0", "cpu1"])] == pace


@pytest.mark.parametrize("text", [
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><system>&b;</system>',
    "<system>" + "<pci>" * 5000 + "</pci>" * 5000 + "</system>",
    "<system><cpu></system>", "<graph/>", "", "<system/>",
    XML.replace('count="2"', 'count="-2"'), XML.replace('link_width="16"', 'link_width="many"'),
])
def test_hostile_xml_is_refused(text, tmp_path):
    path = tmp_path / "topo.xml"
    path.write_text(text)
    with pytest.raises(BadInput):
        read_nccl_xml(path, {}, link_bandwidth="25 GB/s")
