"""What a job is worth on each kind of chip comes from the planner, and the scheduler takes it in that order."""

from __future__ import annotations

import pytest

from serried.errors import NoAnswer
from serried.fabric import read_fleet
from serried.fleet import Shape
from serried.fleet.placer import by_worth
from serried.fleet.weighing import alternatives_of
from serried.planner import machine_of, search_training
from serried.workload import Serving, Training, read_model


def pool(text: str):
    (found,) = read_fleet(text).pools
    return found


def test_training_is_weighed_by_tokens_per_dollar():
    job = Training(model=read_model("llama-3.2-1b"), sequence_tokens=2048, global_batch_sequences=64)
    ways = alternatives_of(job, [(3, pool("h100:8")), (5, pool("a100:16"))])
    assert [(one.kinds, one.worker_count, one.chips_per_worker) for one in ways] == [((3,), 1, 8), ((5,), 2, 8)]
    best = search_training(job, machine_of(pool("h100:8")), top=1, bounded=True, number_format=["bf16"],
                           overlap_data=[True], overlap_tensor=[False])
    assert ways[0].throughput_per_s == pytest.approx(64 * 2048 / float(best.estimate.time_s[0]))
    worth = [one.throughput_per_s / one.price_usd_per_s for one in ways]
    assert by_worth(Shape(alternatives=ways)) == ((0, 1) if worth[0] >= worth[1] else (1, 0))


def test_serving_is_weighed_too_and_what_does_not_fit_is_no_alternative():
    job = Serving(model=read_model("meta-llama/Llama-3.1-70B"), input_tokens=512, output_tokens=64, concurrency=4)
    ways = alternatives_of(job, [(0, pool("h100:1")), (1, pool("h100:8"))])
    assert [one.kinds for one in ways] == [(1,)]
    with pytest.raises(NoAnswer, match="none of these"):
        alternatives_of(job, [(0, pool("h100:1"))])
