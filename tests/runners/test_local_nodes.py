"""Which nodes a machine offers, and how a wrong file is refused."""

import os

import pytest

from serried.errors import BadInput
from serried.runners.local_nodes import read_local_nodes, this_machine

GOOD = """
[[node]]
name = "node-{n}"
count = 8
kind = "virtual"
chips = 8
memory = "2 GiB"
switches = { leaf = ["left", "right"], spine = "top" }
device_variables = ["MY_DEVICES"]
"""


def read(tmp_path, text):
    path = tmp_path / "nodes.toml"
    path.write_text(text)
    return read_local_nodes(path)


def test_without_a_file_the_machine_is_one_node():
    one, = this_machine()
    assert one.node.chip_count == len(os.sched_getaffinity(0)) == len(one.cores)
    assert one.node.name
    assert one.node.memory_bytes > 0
    assert one.cores_of((0,)) == one.cores[:1]


def test_a_large_machine_is_one_node_of_as_many_chips_as_a_node_may_have(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(96)))
    one, = this_machine()
    assert (one.node.chip_count, one.node.cpu_milli, one.cores) == (64, 96_000, ())


def test_what_is_not_declared_is_the_machines(tmp_path):
    first, second = read(tmp_path, '[[node]]\nname = "n{n}"\ncount = 2\nchips = 2\n')
    assert first.node.cpu_milli == second.node.cpu_milli == 1000 * len(os.sched_getaffinity(0))
    assert first.node.memory_bytes == this_machine()[0].node.memory_bytes
    assert first.node.memory_bytes % 2**30 == 0
    assert first.cores == second.cores == ()


def test_eight_virtual_nodes_under_two_switches(tmp_path):
    nodes = read(tmp_path, GOOD)
    assert [one.node.name for one in nodes] == [f"node-{place}" for place in range(8)]
    assert [dict(one.node.switches) for one in nodes] == (
        [{"leaf": "left", "spine": "top"}] * 4 + [{"leaf": "right", "spine": "top"}] * 4)
    assert {(one.node.kind, one.node.chip_count, one.node.memory_bytes, one.node.device_variables, one.cores)
            for one in nodes} == {("virtual", 8, 2**31, ("MY_DEVICES",), ())}


def test_cores_are_dealt_out_where_there_are_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(10, 18)))
    text = '[[node]]\nname = "n{n}"\ncount = 2\nchips = 2\ncpu_cores = %d\n'
    first, second = read(tmp_path, text % 4)
    assert (first.cores, second.cores) == ((10, 11, 12, 13), (14, 15, 16, 17))
    assert second.cores_of((1,)) == (16, 17)
    assert second.cores_of((0, 1)) == (14, 15, 16, 17)
    assert [one.cores for one in read(tmp_path, text % 5)] == [(), ()]
    assert read(tmp_path, text % 1)[0].cores_of((1,)) == ()   # fewer cores than chips: any


@pytest.mark.parametrize(("change", "words"), [
    (("chips = 8", "chip = 8"), ("node[0].chip", "Did you mean chips")),
    (("chips = 8", ""), ("node[0].chips", "whole number")),
    (("chips = 8", "chips = 0"), ("node[0].chips = 0", "from 1 to")),
    (("chips = 8", "chips = true"), ("node[0].chips = True",)),
    (("chips = 8", "chips = 8\ncpu_cores = -1"), ("node[0].cpu_cores = -1",)),
    (("count = 8", "count = 9"), ("switches.leaf", "divides 9")),
    (("count = 8", "count = 1_000_000"), ("node[0].count",)),
    (('"node-{n}"', '"node"'), ("node[0].name = 'node'", "{n}")),
    (('"node-{n}"', '"../{n}"'), ("node[0].name", "letters")),
    (('"node-{n}"', "5"), ("node[0].name = 5",)),
    (('"2 GiB"', '"2 parsecs"'), ("node[0].memory",)),
    (('"2 GiB"', "-5"), ("node[0].memory = -5",)),
    (('["left", "right"]', "[]"), ("node[0].switches.leaf",)),
    (('["left", "right"]', "3"), ("node[0].switches.leaf = 3",)),
    (('["MY_DEVICES"]', '["A=B"]'), ("node[0].device_variables",)),
    (('"virtual"', '""'), ("node[0].kind = ''",)),
    (("[[node]]", "[[nodes]]"), ("nodes", "[[node]]")),
    (("[[node]]", "[node]"), ("node",)),
    (("[[node]]", "[[node"), ("TOML",)),
])
def test_what_is_wrong_is_named(tmp_path, change, words):
    with pytest.raises(BadInput) as refused:
        read(tmp_path, GOOD.replace(*change))
    assert "nodes.toml" in str(refused.value)
    for word in words:
        assert word in str(refused.value)


def test_nodes_must_fit_together(tmp_path):
    with pytest.raises(BadInput, match="name of its own"):
        read(tmp_path, GOOD + GOOD)
    with pytest.raises(BadInput, match="levels"):
        read(tmp_path, GOOD + '[[node]]\nname = "odd"\nchips = 1\n')
    with pytest.raises(BadInput, match="readable file"):
        read_local_nodes(tmp_path / "missing.toml")
    with pytest.raises(BadInput, match="node"):
        read(tmp_path, "")
