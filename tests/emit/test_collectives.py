"""Plans in other people's forms: written, read back, proven again; broken ones refused with their place."""

import numpy as np
import pytest

from serried.emit.goal import read_goal, write_goal
from serried.emit.msccl_xml import read_msccl_xml, write_msccl_xml
from serried.emit.nccl_tuner import read_nccl_tuner, write_nccl_tuner
from serried.errors import BadInput
from serried.weave import ALGORITHMS, check, faults, stock_schedule, synthesise
from tests.weave.test_synthesis import star

TIERED = ("hierarchical", "rail_aligned", "two_level")


@pytest.mark.parametrize(("operation", "algorithm"), [(operation, algorithm) for operation, known in ALGORITHMS.items()
                                                      for algorithm in known if algorithm != "in_switch"])
def test_msccl_xml_is_proven_after_reading(operation, algorithm, tmp_path):
    schedule = stock_schedule(operation, algorithm, 8, chunks=2, tiers=(4, 2) if algorithm in TIERED else ())
    path = tmp_path / "plan.xml"
    path.write_text(write_msccl_xml(schedule), encoding="utf-8")
    assert faults(read_msccl_xml(path)) == []


_ALGO = ('<algo name="pair" proto="Simple" nchannels="1" nchunksperloop="1" ngpus="2" coll="allreduce" inplace="1" '
         'outofplace="0" minBytes="0" maxBytes="100">{}</algo>')
_GPU = '<gpu id="{}" i_chunks="1" o_chunks="0" s_chunks="1"><tb id="0" send="{}" recv="{}" chan="0">{}</tb></gpu>'


def _step(order, kind, source, target, wait="-1"):
    return (f'<step s="{order}" type="{kind}" srcbuf="{source}" srcoff="0" dstbuf="{target}" dstoff="0" cnt="1" '
            f'depid="{wait}" deps="0" hasdep="0"/>')


def _pair(first, second):
    return _ALGO.format(_GPU.format(0, 1, 1, first) + _GPU.format(1, 0, 0, second))


def test_fused_steps_are_the_receive_and_the_send_that_they_are(tmp_path):
    """Rank 1 adds and sends back in one step: rrcs; rank 0 sends and takes the sum."""
    path = tmp_path / "pair.xml"
    path.write_text(_pair(_step(0, "s", "i", "i") + _step(1, "r", "i", "i"), _step(0, "rrcs", "i", "i")),
                    encoding="utf-8")
    assert faults(read_msccl_xml(path)) == []


def test_unequal_chunks_are_told_as_equal_ones(tmp_path):
    made = synthesise("all_reduce", star(5, slow=0.37), 1e6, grain=3).schedule
    path = tmp_path / "plan.xml"
    path.write_text(write_msccl_xml(made), encoding="utf-8")
    assert len(np.unique(made.chunk_weight_C)) > 1
    assert faults(read_msccl_xml(path)) == []


@pytest.mark.parametrize(("first", "second", "reason"), [
    (_step(0, "r", "i", "s") + _step(1, "s", "i", "i"), _step(0, "r", "i", "s") + _step(1, "s", "i", "i"), "deadlock"),
    (_step(0, "s", "i", "i") + _step(1, "r", "i", "i"), _step(0, "r", "i", "i") + _step(1, "s", "i", "i"),
     "contributions"),
    (_step(0, "s", "i", "i"), _step(0, "rrc", "i", "i"), "contributions"),
    (_step(0, "s", "i", "i"), "", "nobody receives")])
def test_a_plan_that_deadlocks_or_drops_data_is_refused(first, second, reason, tmp_path):
    path = tmp_path / "bad.xml"
    path.write_text(_pair(first, second), encoding="utf-8")
    with pytest.raises(BadInput, match=reason):
        check(read_msccl_xml(path), file=str(path))


@pytest.mark.parametrize(("change", "field"), [
    (('minBytes="0"', ""), "algo, minBytes"), (('coll="allreduce"', 'coll="x"'), "algo, coll"),
    (('ngpus="2"', 'ngpus="3"'), "gpu"), (('cnt="1"', 'cnt="x"'), "cnt"), (('type="s"', 'type="z"'), "type"),
    (("<algo", "<!DOCTYPE a [<!ENTITY b 'c'>]><algo"), "document type"), (("</algo>", ""), "line 1"),
    (('nchunksperloop="1"', 'nchunksperloop="99999999"'), "nchunksperloop")])
def test_a_bad_xml_is_refused_with_its_place(change, field, tmp_path):
    path = tmp_path / "bad.xml"
    text = _pair(_step(0, "s", "i", "i") + _step(1, "r", "i", "i"), _step(0, "rrcs", "i", "i"))
    path.write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        read_msccl_xml(path)
    assert field in caught.value.field


def test_too_many_steps_for_a_block_are_refused():
    with pytest.raises(BadInput, match="256 steps"):
        write_msccl_xml(stock_schedule("all_reduce", "double_tree", 8, chunks=300))


def test_tuner_rows_come_back(tmp_path):
    path = tmp_path / "tuner.csv"
    row = {"collective_type": "allreduce", "min_bytes": 0, "max_bytes": 65536, "algorithm": "tree", "protocol": "ll",
           "channels": 2, "nNodes": 2, "nRanks": 16}
    path.write_text(write_nccl_tuner([row]), encoding="utf-8")
    assert read_nccl_tuner(path) == [{name: str(value) for name, value in row.items()} | {"numPipeOps": "-1",
                                                                                         "regBuff": "-1"}]
    with pytest.raises(BadInput, match="row 1, algorithm"):
        write_nccl_tuner([row | {"algorithm": "star"}])
    path.write_text("allreduce,9,1,tree,ll,1,1,1\n", encoding="utf-8")
    with pytest.raises(BadInput, match="line 1, max_bytes"):
        read_nccl_tuner(path)


@pytest.mark.parametrize("algorithm", ["ring", "double_tree", "hierarchical"])
def test_goal_says_the_same_traffic_and_order(algorithm):
    """Every rank sends 2 (n-1)/n of the buffer on a ring; every wait and lane is a `requires`."""
    schedule = stock_schedule("all_reduce", algorithm, 8, tiers=(4, 2) if algorithm in TIERED else ())
    tasks = read_goal(write_goal(schedule, 8000.0))
    assert len(tasks) == len(schedule.steps)
    if algorithm == "ring":
        assert sum(task.payload_bytes for task in tasks if task.kind == "send" and task.rank == 3) == 14_000
    assert sum(len(task.requires) for task in tasks) >= len(schedule.steps.after_D)


def test_a_goal_that_waits_in_a_circle_is_refused():
    """Both receive first and send only then."""
    text = "num_ranks 2\n" + "".join(f"rank {rank} {{\nl0: recv 8b from {1 - rank} tag 0\nl1: send 8b to {1 - rank} "
                                     "tag 0\nl1 requires l0\n}\n" for rank in range(2))
    with pytest.raises(BadInput, match="rank 0, task 0") as caught:
        read_goal(text)
    assert "deadlock" in str(caught.value)
    assert len(read_goal(text.replace("l1 requires l0\n", "", 1))) == 4


def test_a_goal_whose_messages_do_not_meet_is_refused():
    text = write_goal(stock_schedule("all_reduce", "ring", 4), 4000.0)
    with pytest.raises(BadInput, match="tag 0"):
        read_goal(text.replace("send 1000b", "send 999b", 1))
    with pytest.raises(BadInput, match="line 3"):
        read_goal(text.replace("l0: ", "l0 ", 1))
