"""MSCCL++ plans: written, read back as messages and proven; puts that come early, and plans that hang, are refused."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.emit.mscclpp_json import write_mscclpp_json
from serried.emit.mscclpp_plan import schedule_of_mscclpp
from serried.errors import BadInput
from serried.weave import ALGORITHMS, check, faults, stock_schedule, synthesise
from tests.weave.test_synthesis import islands

TIERED = ("hierarchical", "rail_aligned", "two_level")


@pytest.mark.parametrize(("operation", "algorithm"), [(operation, algorithm) for operation, known in ALGORITHMS.items()
                                                      for algorithm in known if algorithm != "in_switch"])
@pytest.mark.parametrize("channel_type", ["memory", "port"])
def test_plans_are_proven_after_reading(operation, algorithm, channel_type):
    schedule = stock_schedule(operation, algorithm, 8, chunks=2, tiers=(4, 2) if algorithm in TIERED else ())
    plan = json.loads(write_mscclpp_json(schedule, channel_type=channel_type))
    assert faults(schedule_of_mscclpp(plan)) == []
    for gpu in plan["gpus"]:
        for block in gpu["threadblocks"]:
            assert len(block["ops"]) <= 64
            assert {use["name"] for use in block["ops"]} <= {"put", "signal", "wait", "flush", "re", "copy", "nop",
                                                             "sem_acquire", "sem_release"}


def test_a_fitted_schedule_is_proven_after_reading():
    made = synthesise("all_reduce", islands(3), 1e6, grain=2)
    assert faults(schedule_of_mscclpp(json.loads(write_mscclpp_json(made.schedule)))) == []


def pair(first, second, *, semaphores=0, **head):
    """Two chips with 2 chunks each, one block and one memory channel; both reach i and s of the other."""
    gpus = [{"id": rank, "input_chunks": 2, "output_chunks": 2, "scratch_chunks": 2,
             "threadblocks": [{"id": number, "ops": list(ops),
                               "channels": [{"channel_type": "memory", "channel_ids": [0]}],
                               "remote_buffer_refs": [{"access_channel_type": "memory", "remote_buffer_ids": [0, 1]}]}
                              for number, ops in enumerate(blocks)],
             "channels": [{"channel_type": "memory", "connected_to": [1 - rank]}],
             "remote_buffers": [{"rank": 1 - rank, "type": letter, "access_channel_types": ["memory"]}
                                for letter in "is"],
             "semaphores": [{"init_value": 0}] * semaphores} for rank, blocks in enumerate((first, second))]
    return {"name": "pair", "collective": "allreduce", "protocol": "Simple", "inplace": True, "gpus": gpus} | head


SIGNAL, WAIT = ({"name": name, "channel_ids": [0], "channel_type": "memory"} for name in ("signal", "wait"))


def own(letter, index, size=1):
    return {"type": letter, "index": index, "size": size}


def there(buffer, index, size=1):
    return {"buffer_id": buffer, "index": index, "size": size}


def does(name, sources, targets):
    return {"name": name, "src_buff": sources, "dst_buff": targets, "channel_ids": [0], "channel_type": "memory"}


MEET = [SIGNAL, WAIT]
#: Each chip adds what it reads from the other to its own half, writes the sum over there, and both meet around it.
READ_ADD_SEND = pair(*([[*MEET, does("rres", [own("i", rank), there(0, rank)], [own("i", rank), there(0, rank)]),
                         *MEET]] for rank in range(2)))
#: Each puts its other half into scratch over there; the owner adds and puts the sum back.
PUT_ADD_PUT = pair(*([[*MEET, does("put", [own("i", 1 - rank)], [there(1, 1 - rank)]), *MEET,
                       does("res", [own("i", rank), own("s", rank)], [own("i", rank), there(0, rank)]), *MEET]]
                     for rank in range(2)))


@pytest.mark.parametrize("plan", [READ_ADD_SEND, PUT_ADD_PUT], ids=["read", "put"])
def test_plans_of_the_library_s_operations_are_proven(plan):
    assert faults(schedule_of_mscclpp(plan)) == []


@pytest.mark.parametrize(("plan", "dropped", "reason"), [
    (PUT_ADD_PUT, slice(3, 5), "race"),               # adds what may not have come yet
    (READ_ADD_SEND, slice(3, 4), "waits for a message that nobody sends"),
    (PUT_ADD_PUT, slice(5, 6), "contributions")])
def test_what_is_left_out_is_found(plan, dropped, reason):
    broken = copy.deepcopy(plan)
    for gpu in broken["gpus"]:
        del gpu["threadblocks"][0]["ops"][dropped]
    with pytest.raises(BadInput, match=reason):
        check(schedule_of_mscclpp(broken))


def test_an_early_put_is_a_race():
    """Without the first meeting, the other chip may still be reading the scratch of the last run, or writing it."""
    early = copy.deepcopy(PUT_ADD_PUT)
    for gpu in early["gpus"]:
        ops = gpu["threadblocks"][0]["ops"]
        ops[0:0] = [{"name": "copy", "src_buff": [own("i", gpu["id"])], "dst_buff": [own("s", gpu["id"])]}]
    assert faults(schedule_of_mscclpp(early)) == []
    for gpu in early["gpus"]:
        del gpu["threadblocks"][0]["ops"][1:3]
    assert any("race" in fault.reason for fault in faults(schedule_of_mscclpp(early)))


def test_semaphores_and_barriers_keep_blocks_in_order():
    """Chip 0 adds in one block and sends in another; chip 1 takes. Without the semaphore that is a race."""
    for names in ([{"name": "sem_release", "semaphore_ids": [0]}], [{"name": "sem_acquire", "semaphore_ids": [0]}]), \
            ([{"name": "barrier", "barrier_id": 0, "num_threadblocks": 2}],) * 2, ([], []):
        fetch = [does("rre", [own("i", 0, 2), there(0, 0, 2)], [own("i", 0, 2)])]
        plan = pair([[WAIT, *fetch, *names[0]], [*names[1], does("put", [own("i", 0, 2)], [there(0, 0, 2)]), SIGNAL]],
                    [[SIGNAL, WAIT]], semaphores=1)
        found = faults(schedule_of_mscclpp(plan))
        assert bool(found) == (not names[0])
        assert all("race" in fault.reason for fault in found)


def ops(plan):
    return plan["gpus"][0]["threadblocks"][0]["ops"]


@pytest.mark.parametrize(("change", "field"), [
    (lambda plan: plan.pop("inplace"), "inplace"), (lambda plan: plan.pop("gpus"), "gpus"),
    (lambda plan: plan.update(collective="shuffle"), "collective"),
    (lambda plan: plan.update(protocol="LL"), "protocol"),
    (lambda plan: plan["gpus"].pop(), "connected_to"), (lambda plan: plan["gpus"][1].update(id=4), "gpus, id"),
    (lambda plan: plan["gpus"][0].pop("input_chunks"), "gpu 0, input_chunks"),
    (lambda plan: plan["gpus"][1]["threadblocks"][0].pop("ops"), "gpu 1, threadblock 0, ops"),
    (lambda plan: ops(plan)[2].pop("src_buff"), "operation 2, src_buff"),
    (lambda plan: ops(plan)[0].update(channel_ids=[3]), "operation 0, channel_ids"),
    (lambda plan: ops(plan)[2]["dst_buff"][0].update(index="x"), "operation 2, dst_buff"),
    (lambda plan: ops(plan)[2].update(name="glres"), "operation 2"),
    (lambda plan: ops(plan).append({"name": "sem_acquire", "semaphore_ids": [0]}),
     "semaphore_ids")])
def test_a_bad_plan_is_refused_with_its_place(change, field):
    plan = copy.deepcopy(PUT_ADD_PUT)
    change(plan)
    with pytest.raises(BadInput) as caught:
        schedule_of_mscclpp(plan)
    assert field in caught.value.field


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_plan_that_lost_an_operation_is_never_taken_for_right(data):
    """Whatever does something is needed; only what lets threads of one block meet is not seen from outside."""
    plan = json.loads(write_mscclpp_json(stock_schedule("all_reduce", data.draw(st.sampled_from(
        ["ring", "double_tree", "halving_doubling"])), 4)))
    blocks = [block for gpu in plan["gpus"] for block in gpu["threadblocks"]]
    ops = data.draw(st.sampled_from(blocks))["ops"]
    lost = data.draw(st.sampled_from([at for at, use in enumerate(ops) if use["name"] not in ("nop", "sem_release")]))
    name = ops.pop(lost)["name"]
    try:
        found = faults(schedule_of_mscclpp(plan))
    except BadInput:
        return
    assert found or name == "sem_acquire", name    # a wait between blocks may be needless: another chain keeps order


def test_what_the_loader_cannot_take_is_refused():
    with pytest.raises(BadInput, match="thread blocks"):
        write_mscclpp_json(stock_schedule("all_reduce", "double_tree", 8, chunks=400))
    with pytest.raises(BadInput, match="root 0"):
        write_mscclpp_json(stock_schedule("broadcast", "binomial", 8, root=1))
