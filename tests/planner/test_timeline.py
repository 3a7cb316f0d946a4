from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.fabric import read_fleet
from serried.planner import estimate_training, layouts_of, machine_of
from serried.planner.timeline import order_of_turns, play, timeline
from serried.workload import Training, read_model


def _end_s(spans):
    return max(span.start_s + span.duration_s for span in spans)


@pytest.mark.parametrize(("stages", "micro_batches"), [(1, 1), (1, 5), (2, 3), (4, 8), (8, 8), (4, 2)])
def test_equal_stages_take_the_textbook_time(stages, micro_batches):
    """(m + p - 1)(f + b), Narayanan et al. 2021."""
    spans = play([1.0] * stages, [2.0] * stages, [0.0] * stages, send_s=0.0, micro_batches=micro_batches, chunks=1)
    assert _end_s(spans) == pytest.approx((micro_batches + stages - 1) * 3.0)


@pytest.mark.parametrize(("stages", "chunks", "micro_batches"), [(2, 2, 4), (4, 2, 8), (4, 5, 8), (8, 3, 16)])
def test_interleaving_divides_the_bubble(stages, chunks, micro_batches):
    """m (f + b) + (p - 1)(f + b) / v for whole groups of micro-batches."""
    spans = play([1.0] * stages, [2.0] * stages, [0.0] * stages, send_s=0.0, micro_batches=micro_batches, chunks=chunks)
    assert _end_s(spans) == pytest.approx(3.0 * (micro_batches + (stages - 1) / chunks))


def test_deferred_weight_gradients_fill_the_bubble():
    """Qi et al. 2023: the bubble shrinks from (p - 1)(f + b + w) to at most (p - 1)(f + b - w) with w of its own."""
    plain = play([1.0] * 4, [2.0] * 4, [0.0] * 4, send_s=0.0, micro_batches=8, chunks=1)
    deferred = play([1.0] * 4, [2.0] * 4, [1.0] * 4, send_s=0.0, micro_batches=8, chunks=1)
    assert 8 * 3.0 <= _end_s(deferred) <= _end_s(plain) - 3 * 2.0 + 1e-9


@settings(max_examples=40)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.lists(st.floats(0.1, 3.0), min_size=10, max_size=10),
       st.floats(0.0, 0.5), st.booleans())
def test_no_work_is_lost_and_no_stage_does_two_things_at_once(stages, chunks, groups, times, send_s, deferred):
    micro_batches = groups * stages
    forward, backward = times[:stages], [2.0 * each for each in times[5:5 + stages]]
    weight = [0.4 * each if deferred else 0.0 for each in backward]
    spans = play(forward, backward, weight, send_s=send_s, micro_batches=micro_batches, chunks=chunks)
    for stage in range(stages):
        own = sorted((span.start_s, span.duration_s) for span in spans
                     if span.stage == stage and span.stream == "compute")
        assert sum(length for _, length in own) == pytest.approx(micro_batches * (forward[stage] + backward[stage]))
        assert all(start + length <= later + 1e-9 for (start, length), (later, _) in pairwise(own))


def test_every_turn_comes_once_and_backward_after_forward():
    turns = order_of_turns(1, stages=4, micro_batches=8, chunks=2)
    assert len(turns) == len(set(turns)) == 2 * 8 * 2
    for turn in turns:
        if not turn.forward:
            twin = next(each for each in turns
                        if each.forward and (each.micro_batch, each.chunk) == (turn.micro_batch, turn.chunk))
            assert turns.index(twin) < turns.index(turn)


@pytest.mark.parametrize(("schedule", "virtual_stages"), [("1f1b", 1), ("interleaved", 5), ("zero-bubble", 1)])
def test_the_played_step_is_as_long_as_the_predicted_one(schedule, virtual_stages):
    """The closed forms of the planner and the schedule played turn by turn agree."""
    machine = machine_of(read_fleet("h100:256").pools[0])
    job = Training(model=read_model("Llama-3.1-70B"), sequence_tokens=8192, global_batch_sequences=256)
    layouts = layouts_of([{"tp": 8, "pp": 4, "virtual_stages": virtual_stages, "schedule": schedule,
                           "recompute": "full"}])
    estimate = estimate_training(job, machine, layouts)
    spans = timeline(estimate, layouts, 0)
    turns = [span for span in spans if span.cause in ("forward", "backward", "weight gradient")]
    tail_s = sum(float(estimate.time_by_cause_s[cause][0]) for cause in ("data_exposed", "optimizer", "jitter"))
    assert _end_s(turns) + tail_s == pytest.approx(float(estimate.time_s[0]), rel=0.06)
    assert {span.stage for span in spans} == {0, 1, 2, 3}
