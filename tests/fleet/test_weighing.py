"""What a job is worth on each kind of chip comes from the planner, and the scheduler takes it in that order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serried.errors import NoAnswer
from serried.fabric import read_fleet
from serried.fleet import Shape
from serried.fleet.placer import by_worth
from serried.fleet.weighing import Way, Weigher
from serried.planner import machine_of, search_training
from serried.workload import Serving, Training, read_model


def pool(text: str):
    (found,) = read_fleet(text).pools
    return found


def way(kind: int, text: str, **known: object) -> Way:
    return Way(kind=kind, pool=pool(text), node_chips=8, **known)


def test_training_is_weighed_by_tokens_per_dollar():
    job = Training(model=read_model("llama-3.2-1b"), sequence_tokens=2048, global_batch_sequences=64)
    ways = Weigher().alternatives(job, [way(3, "h100:8"), way(5, "a100:16")])
    assert [(one.kinds, one.worker_count, one.chips_per_worker) for one in ways] == [((3,), 1, 8), ((5,), 2, 8)]
    best = search_training(job, machine_of(pool("h100:8")), top=1, bounded=True, number_format=["bf16"],
                           overlap_data=[True], overlap_tensor=[False])
    assert ways[0].throughput_per_s == pytest.approx(64 * 2048 / float(best.estimate.time_s[0]))
    worth = [one.throughput_per_s / one.price_usd_per_s for one in ways]
    assert by_worth(Shape(alternatives=ways)) == ((0, 1) if worth[0] >= worth[1] else (1, 0))


def test_serving_is_weighed_too_and_what_does_not_fit_is_no_alternative():
    job = Serving(model=read_model("meta-llama/Llama-3.1-70B"), input_tokens=512, output_tokens=64, concurrency=4)
    weigher = Weigher()
    ways = weigher.alternatives(job, [way(0, "h100:1"), way(1, "h100:8")])
    assert [one.kinds for one in ways] == [(1,)]
    with pytest.raises(NoAnswer, match="none of these"):
        weigher.alternatives(job, [way(0, "h100:1")])
    assert weigher.planned == 2


def test_each_distinct_gang_is_planned_once_and_users_may_know_better():
    job = Serving(model=read_model("llama-3.2-1b"), input_tokens=512, output_tokens=64, concurrency=4)
    weigher = Weigher()
    (plain,) = weigher.alternatives(job, [way(0, "h100:8")])
    (better,) = weigher.alternatives(job, [way(0, "h100:8", ratio=1.5, price_usd=1e4)])
    assert weigher.planned == 1
    assert better.throughput_per_s == pytest.approx(1.5 * plain.throughput_per_s)
    assert better.price_usd_per_s != plain.price_usd_per_s
    weigher.alternatives(job, [way(0, "h100:4")])
    assert weigher.planned == 2
    (small,) = Weigher().alternatives(job, [Way(kind=2, pool=pool("h100:8"), node_chips=4)])
    assert (small.kinds, small.worker_count, small.chips_per_worker) == ((2,), 2, 4)


def test_without_all_prices_throughput_alone_decides():
    job = Serving(model=read_model("llama-3.2-1b"), input_tokens=512, output_tokens=64, concurrency=4)
    unpriced = replace(pool("h100:8"), chip=replace(pool("h100:8").chip, figures={
        name: figure for name, figure in pool("h100:8").chip.figures.items() if name not in ("price", "rent")}))
    ways = Weigher().alternatives(job, [way(0, "a100:8"), Way(kind=1, pool=unpriced, node_chips=8)])
    assert [one.price_usd_per_s for one in ways] == [0.0, 0.0]
