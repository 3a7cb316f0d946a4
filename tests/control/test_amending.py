"""The fleet changes while its ledger lives: who joins, who leaves, and what stays true of everything before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serried.control.amending import Numbering, followed
from serried.control.books import Books
from serried.control.charter import Charter, charter_from
from serried.control.history import check_history
from serried.control.reconciler import Cancel, Drain, Submit
from serried.control.records import CHARTER
from serried.control.retrace import retrace
from serried.control.views import job_view, node_view, usage_of
from serried.errors import BadInput
from serried.fleet import Event, EventKind, Tenant
from serried.runners import Node
from tests.control.test_reconciler import Bench, nodes, spec_of

BETWEEN = Node(name="m", kind="chip", chip_count=4, switches={"switch": "s0"})       # stands before n4, which is on s1
BEHIND = Node(name="z", kind="other", chip_count=4, switches={"switch": "s9"})


def test_numbers_follow_the_names():
    """Of n0 to n4 the last is on a second switch: a new node on the first takes number 4, and n4 becomes 5."""
    before = Charter(nodes=nodes(5))
    after = Charter(nodes=(*before.nodes, BETWEEN))
    assert after.fleet().node_names == ("n0", "n1", "n2", "n3", "m", "n4")
    moved = Numbering(before, after.fleet()).event(Event(time_ns=0, kind=EventKind.FAIL, nodes=(3, 4), cause="silent"))
    assert moved.nodes == (3, 5)


def test_kinds_keep_their_numbers():
    assert Charter(nodes=(*nodes(2), BEHIND, BETWEEN)).fleet().kinds == ("chip", "other")


def test_a_waiting_job_starts_where_a_node_joins_and_what_runs_runs_on():
    bench = Bench(nodes(5), later=[BETWEEN])
    bench.run(3, *(Submit(spec=spec_of(workers=4, life_s=500, name=f"job-{number}")) for number in range(6)))
    assert job_view(bench.one, 5).phase == "pending"
    on_n4 = next(number for number in range(5) if bench.nodes_of(number) == {"n4"})
    epoch = job_view(bench.one, on_n4).epoch
    bench.declare([*nodes(5), BETWEEN])
    bench.run(3)
    assert bench.nodes_of(5) == {"m"}
    assert (bench.nodes_of(on_n4), job_view(bench.one, on_n4).epoch) == ({"n4"}, epoch)
    assert job_view(bench.one, on_n4).phase == "running"
    assert check_history(bench.ledger.records) == 6
    assert retrace(bench.ledger.records) == 6 + len(bench.events("RESERVE"))


def test_a_drained_node_may_leave_and_come_back():
    bench = Bench(nodes(2))
    bench.run(2, Submit(spec=spec_of(workers=4, life_s=100)))
    [node] = bench.nodes_of(0)
    other = next(each for each in nodes(2) if each.name != node)
    with pytest.raises(BadInput, match=f"node {node}.*job 0 runs there.*drain {node}"):
        bench.declare([other])
    bench.run(10, Drain(node=node))
    bench.declare([other])
    bench.run(3, *(Submit(spec=spec_of(workers=4, life_s=5, name=f"job-{number}")) for number in range(3)))
    gone = bench.one.node_number[node]
    assert node_view(bench.one, gone).state == "undeclared"
    assert (usage_of(bench.one).chip_count, usage_of(bench.one).down_chips) == (4, 0)
    bench.run(200)
    assert [job_view(bench.one, number).phase for number in range(4)] == ["succeeded"] * 4
    bench.declare(nodes(2))
    assert node_view(bench.one, gone).state == "draining"     # people said so, and have not taken it back
    assert retrace(bench.ledger.records) > 3


def test_what_may_still_run_keeps_its_node():
    """A job was cancelled, and nobody has seen its ranks end."""
    bench = Bench(nodes(2))
    bench.run(2, Submit(spec=spec_of(workers=4, life_s=100)))
    [node] = bench.nodes_of(0)
    bench.world.machines[node].cut_until_ns = bench.world.now_ns + 10**12
    bench.run(0.5, Cancel(job=0))
    assert job_view(bench.one, 0).phase == "stopping"
    with pytest.raises(BadInput, match="what ran there may still run"):
        bench.declare([each for each in nodes(2) if each.name != node])


def test_nothing_is_written_for_the_same_fleet_in_another_order():
    bench = Bench(nodes(3))
    count = len(bench.ledger.records)
    bench.declare([*nodes(3)][::-1])
    assert len(bench.ledger.records) == count


def test_policy_and_tenants_change_and_tenants_never_go():
    a, b = Tenant(name="a"), Tenant(name="b")
    bench = Bench(nodes(2), tenants=(a,))
    bench.run(2, Submit(spec=spec_of(workers=4, tenant="a")))
    bench.declare(nodes(2), tenants=(replace(a, weight=3.0), b), policy="strict")
    bench.run(2, Submit(spec=spec_of(workers=4, tenant="b")))
    assert [job_view(bench.one, number).tenant for number in (0, 1)] == ["a", "b"]
    assert usage_of(bench.one).policy == "strict"
    assert retrace(bench.ledger.records) == 2
    for tenants in ((a,), (b, a)):
        with pytest.raises(BadInput, match="every tenant that this state knows"):
            bench.declare(nodes(2), tenants=tenants)


@pytest.mark.parametrize(("changed", "word"), [
    ({"chip_count": 8}, "chip_count"), ({"kind": "x"}, "kind"), ({"switches": {"switch": "s7"}}, "switches"),
    ({"cpu_milli": 900}, "cpu")])
def test_another_machine_needs_another_name(changed, word):
    kept = Charter(nodes=tuple(replace(node, cpu_milli=1000) for node in nodes(2)))
    now = replace(kept.nodes[1], **changed)
    with pytest.raises(BadInput, match=f"node n1: {word}.*another name"):
        followed(kept, [kept.nodes[0], now])


def test_a_node_counts_as_it_was_when_it_joined():
    """More memory than then is not promised to anybody; a little less is what an update of its system takes."""
    kept = Charter(nodes=tuple(replace(node, memory_bytes=1000) for node in nodes(2)))
    now = [replace(node, memory_bytes=size, address="10.0.0.9")
           for node, size in zip(nodes(2), (995, 2000), strict=True)]
    found, absent = followed(kept, now)
    assert [(node.memory_bytes, node.address) for node in found] == [(1000, "10.0.0.9")] * 2
    assert absent == ()


def test_a_fleet_of_strangers_is_another_state():
    with pytest.raises(BadInput, match="--state"):
        followed(Charter(nodes=nodes(2)), [BETWEEN, BEHIND])


def test_old_charters_are_read():
    """A ledger of before knew no absence."""
    bench = Bench(nodes(2))
    fields = bench.ledger.records[0].fields()
    del fields["absent"]
    assert charter_from(fields) == bench.charter
    assert Books.of(bench.ledger.records).charter.absent == ()
    assert bench.ledger.records[0].kind == CHARTER
