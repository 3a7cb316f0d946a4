"""The verifier proves every algorithm and refuses every mutation that can do harm."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.errors import BadInput
from serried.weave import ALGORITHMS, check, faults, schedule_of_json, schedule_to_json, stock_schedule
from serried.weave.spec import KINDS
from tests.weave.play import play

TIERED = ("hierarchical", "rail_aligned", "two_level")
EVERY = [(operation, algorithm) for operation, known in ALGORITHMS.items() for algorithm in known]


def made(operation, algorithm, tiers, chunks=2, root=1):
    ranks = int(np.prod(tiers))
    return stock_schedule(operation, algorithm, ranks, chunks=chunks, root=root,
                          tiers=tiers if algorithm in TIERED else ())


@pytest.mark.parametrize(("operation", "algorithm", "tiers"), [
    (*each, tiers) for each in EVERY for tiers in [(2,), (4, 2), (2, 2, 2), (4, 4)]
    if len(tiers) <= 2 or each[1] not in ("rail_aligned", "two_level")])   # these know two levels
def test_every_algorithm_is_proven(operation, algorithm, tiers):
    assert faults(made(operation, algorithm, tiers)) == []


@pytest.mark.parametrize(("operation", "algorithm"), [each for each in EVERY if each[1] != "halving_doubling"])
@pytest.mark.parametrize("tiers", [(3,), (3, 2), (5,)])
def test_counts_that_are_no_power_of_two(operation, algorithm, tiers):
    assert faults(made(operation, algorithm, tiers, root=0)) == []


@pytest.mark.parametrize(("operation", "algorithm"), EVERY)
def test_the_rival_agrees_that_they_are_right(operation, algorithm):
    schedule = made(operation, algorithm, (2, 2))
    assert [play(schedule, seed, buffered=buffered) for seed in range(3) for buffered in (False, True)] == [None] * 6


@pytest.mark.parametrize(("operation", "algorithm"), EVERY)
def test_a_file_says_the_same_schedule(operation, algorithm):
    schedule = made(operation, algorithm, (2, 2))
    again = schedule_of_json(schedule_to_json(schedule))
    for field in dataclasses.fields(schedule.steps):
        assert (getattr(schedule.steps, field.name) == getattr(again.steps, field.name)).all(), field.name
    assert schedule_to_json(again) == schedule_to_json(schedule)


def changed(schedule, **columns):
    return dataclasses.replace(schedule, steps=dataclasses.replace(schedule.steps, **columns))


def without(schedule, step):
    """The schedule less one step; who waited for it waits no more."""
    steps, keep = schedule.steps, np.arange(len(schedule.steps)) != step
    waiting = np.repeat(np.arange(len(steps)), np.diff(steps.after_first_K))
    stays = keep[waiting] & (steps.after_D != step)
    renamed = np.cumsum(keep) - 1
    counts = np.bincount(renamed[waiting[stays]], minlength=int(keep.sum()))
    columns = {field.name: getattr(steps, field.name)[keep] for field in dataclasses.fields(steps)
               if not field.name.startswith("after")}
    return changed(schedule, **columns, after_first_K=np.concatenate([[0], np.cumsum(counts)]),
                   after_D=renamed[steps.after_D[stays]])


@st.composite
def mutations(draw):
    operation, algorithm = draw(st.sampled_from(EVERY))
    schedule = made(operation, algorithm, draw(st.sampled_from([(2, 2), (4,), (2, 1)])), chunks=draw(st.integers(1, 2)),
                    root=0)
    steps = schedule.steps
    step = draw(st.integers(0, len(steps) - 1))
    kind = draw(st.sampled_from(["drop", "kind", "peer", "source_chunk", "target_chunk", "channel", "count", "swap",
                                 "wait", "source_buffer", "target_buffer"]))
    if kind == "drop":
        return schedule, without(schedule, step)
    if kind == "swap":
        other = draw(st.integers(0, len(steps) - 1))
        columns = {}
        for name in ("kind_K", "peer_K", "channel_K", "source_buffer_K", "source_chunk_K", "target_buffer_K",
                     "target_chunk_K", "count_K"):
            columns[name] = getattr(steps, name).copy()
            columns[name][[step, other]] = columns[name][[other, step]]
        return schedule, changed(schedule, **columns)
    if kind == "wait":
        waits = np.diff(steps.after_first_K)
        if not waits.any():
            return schedule, without(schedule, step)
        lost = draw(st.integers(0, len(steps.after_D) - 1))
        owner = int(np.searchsorted(steps.after_first_K, lost, side="right")) - 1
        return schedule, changed(schedule, after_D=np.delete(steps.after_D, lost),
                                 after_first_K=steps.after_first_K - (np.arange(len(steps) + 1) > owner))
    column = getattr(steps, f"{kind}_K").copy()
    column[step] = draw(st.integers(0, len(KINDS) - 1)) if kind == "kind" else column[step] + draw(
        st.sampled_from([-1, 1, 2]))
    return schedule, changed(schedule, **{f"{kind}_K": column})


@settings(max_examples=600, deadline=None)
@given(mutations(), st.integers(0, 1000))
def test_every_harmful_mutation_is_caught(pair, seed):
    """Harmful: some order of lanes ends wrong or never. What the verifier passes ends right in all that are tried."""
    _, mutant = pair
    if faults(mutant):
        return
    for attempt in range(4):
        for buffered in (False, True):
            assert play(mutant, seed + attempt, buffered=buffered) is None


@pytest.mark.parametrize("algorithm", ["ring", "hierarchical", "double_tree"])
def test_no_step_can_go(algorithm):
    schedule = made("all_reduce", algorithm, (4, 2), chunks=1)
    assert all(faults(without(schedule, step)) for step in range(len(schedule.steps)))


def test_a_lost_wait_is_a_race():
    """A ring with one wait less still has every message, and may send a sum before it is made."""
    schedule = made("all_reduce", "ring", (4,), chunks=1)
    steps = schedule.steps
    sends = np.flatnonzero((steps.kind_K == 0) & (np.diff(steps.after_first_K) > 0))
    lost = int(steps.after_first_K[sends[0]])
    mutant = changed(schedule, after_D=np.delete(steps.after_D, lost),
                     after_first_K=steps.after_first_K - (np.arange(len(steps) + 1) > sends[0]))
    assert "race" in faults(mutant)[0].reason


def test_two_lanes_that_wait_for_each_other_deadlock():
    """Two ranks that both send before they receive: fine when buffered, refused since a rendezvous never ends."""
    told = {"schema": "serried/schedule/1", "name": "cross", "operation": "all_gather", "rank_count": 2,
            "chunk_weights": [1, 1], "ranks": [
                {"rank": rank, "lanes": [[{"do": "send", "peer": 1 - rank, "from": ["output", rank]},
                                          {"do": "receive", "peer": 1 - rank, "to": ["output", 1 - rank]}]]}
                for rank in range(2)]}
    found = faults(schedule_of_json(told))
    assert "deadlock" in found[0].reason
    assert found[0].place.startswith("rank 0, lane 0, step 0")
    with pytest.raises(BadInput, match="deadlock"):
        check(schedule_of_json(told))


def test_a_contribution_twice_is_refused():
    told = {"schema": "serried/schedule/1", "name": "twice", "operation": "all_reduce", "rank_count": 2,
            "chunk_weights": [1], "ranks": [
                {"rank": 0, "lanes": [[{"do": "send", "peer": 1, "from": ["input", 0]}] * 2]},
                {"rank": 1, "lanes": [[{"do": "receive_reduce", "peer": 0, "from": ["input", 0],
                                        "to": ["input", 0]}] * 2]}]}
    assert "twice" in next(fault.reason for fault in faults(schedule_of_json(told)) if "rank 1" in fault.place)


@pytest.mark.parametrize(("change", "field"), [
    ({"schema": "x"}, "schema"), ({"operation": "reduce"}, "operation"), ({"rank_count": 10**9}, "rank_count"),
    ({"rank_count": True}, "rank_count"), ({"chunk_weights": [0]}, "chunk_weights"), ({"ranks": []}, "ranks"),
    ({"ranks": [{"rank": 0, "lanes": [[{"do": "fly"}]]}, {"rank": 1, "lanes": []}]}, "rank 0, lane 0, step 0, do"),
    ({"ranks": [{"rank": 0, "lanes": [[{"do": "send", "peer": 1}]]}, {"rank": 1, "lanes": []}]}, "step 0, from"),
    ({"ranks": [{"rank": 0, "lanes": [[{"do": "copy", "from": ["input", 0], "to": ["output", 0], "after": [[3, 0]]}]]},
                {"rank": 1, "lanes": []}]}, "after"),
    ({"ranks": [{"rank": 0, "lanes": [[{"do": "copy", "from": [[], 0], "to": ["output", 0]}]]},
                {"rank": 1, "lanes": []}]}, "from")])
def test_a_bad_file_is_refused_with_its_place(change, field):
    told = schedule_to_json(made("all_reduce", "ring", (2,))) | change
    with pytest.raises(BadInput) as caught:
        schedule_of_json(told, file="plan.json")
    assert field in caught.value.field
    assert caught.value.file == "plan.json"


def test_a_switch_has_no_share_of_the_whole():
    """A rank beyond the endpoints that reads its input: its slots begin at 0, whatever the operation."""
    told = {"schema": "serried/schedule/1", "name": "switch", "operation": "all_gather", "rank_count": 2,
            "switch_count": 1, "chunk_weights": [1, 1], "ranks": [
                {"rank": 0, "lanes": []}, {"rank": 1, "lanes": []},
                {"rank": 2, "lanes": [[{"do": "copy", "from": ["input", 1], "to": ["output", 0]}]]}]}
    assert faults(schedule_of_json(told))
