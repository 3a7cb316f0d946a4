"""What is told of a run, worked by hand: percentiles, objectives, goodput, gaps between tokens, money and joules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from serried.economics import chip_usd_per_s, energy_j
from serried.engine import SimulationLog
from serried.errors import BadInput
from serried.fabric import read_fleet
from serried.serving import deployment, serving_machine
from serried.serving.cluster import PoolPlan
from serried.serving.objectives import Objectives, parse_objectives
from serried.serving.profile import read_engine
from serried.serving.report import report_of, request_times_s, spread_of
from serried.traffic import Requests

MS = 1_000_000


def ints(*values):
    return np.array(values, dtype=np.int64)


@pytest.fixture(scope="module")
def plan():
    profile = replace(read_engine("vllm"), request_s=0.0)
    return PoolPlan(machine=serving_machine(read_fleet("h100:4").pools[0], None),
                    row=deployment(tp=2, replicas=2), profile=profile)


REQUESTS = Requests(arrival_ns_R=ints(0, 100, 200, 300) * MS, input_tokens_R=ints(10, 20, 30, 40),
                    output_tokens_R=ints(11, 1, 21, 5), class_R=ints(0, 1, 0, 1), class_names=("chat", "batch"))
#: The last request is refused. First tokens after 50, 60, 70 ms; ends after 150, 60, 470 ms: tpot 10, none, 20 ms.
LOG = SimulationLog(
    arrival_ns_R=REQUESTS.arrival_ns_R, scheduled_ns_R=ints(10, 110, 230, -1) * MS,
    first_token_ns_R=ints(50, 160, 270, -1) * MS, last_token_ns_R=ints(150, 160, 670, -1) * MS,
    cached_tokens_R=ints(0, 0, 15, 0), preemptions_R=ints(0, 2, 0, 0), engine_R=ints(0, 1, 0, -1),
    reason_R=ints(0, 0, 0, 1), busy_ns_E=ints(500, 60) * MS, steps_E=ints(1, 1), tokens_E=ints(1, 1),
    peak_blocks_E=ints(5, 3), evicted_blocks_E=ints(0, 0), prefill_ns_E=ints(100, 60) * MS,
    brought_ns_E=ints(20, 0) * MS, end_ns=670 * MS)


def report(plan, slo="", log=LOG, **more):
    return report_of(REQUESTS, log, [plan], parse_objectives(slo), **more)


def test_times_of_each_request():
    times_s = request_times_s(REQUESTS, LOG, outside_s=0.001)
    assert times_s["ttft"] == pytest.approx([0.051, 0.061, 0.071, np.nan], nan_ok=True)
    assert times_s["tpot"] == pytest.approx([0.01, np.nan, 0.02, np.nan], nan_ok=True)
    assert times_s["e2e"] == pytest.approx([0.151, 0.061, 0.471, np.nan], nan_ok=True)
    assert times_s["queue"] == pytest.approx([0.01, 0.01, 0.03, np.nan], nan_ok=True)


def test_percentiles_by_class(plan):
    found = report(plan)
    everyone, chat, batch = found.classes
    assert [group.name for group in found.classes] == ["all", "chat", "batch"]
    assert [(group.requests, group.served) for group in found.classes] == [(4, 3), (2, 2), (2, 1)]
    assert everyone.times_s["ttft"].p50 == pytest.approx(0.06)
    assert everyone.times_s["ttft"].p90 == pytest.approx(0.068)   # between the second and the third of three
    assert chat.times_s["tpot"].mean == pytest.approx(0.015)
    assert np.isnan(batch.times_s["tpot"].p50)                    # an answer of one token has none
    assert (found.served, found.refused, found.preemptions, found.peak_blocks) == (3, 1, 2, 5)


def test_rates_and_goodput(plan):
    found = report(plan, "ttft=65ms,tpot=30ms")
    assert found.duration_s == pytest.approx(0.67)
    assert found.output_tokens_per_s == pytest.approx(33 / 0.67)
    assert found.output_tokens_per_s_per_chip == pytest.approx(33 / 0.67 / 4)
    assert found.input_tokens_per_s == pytest.approx(60 / 0.67)
    assert found.goodput_requests_per_s == pytest.approx(2 / 0.67)   # the third is late, the fourth was refused
    assert found.goodput_tokens_per_s == pytest.approx(12 / 0.67)
    assert found.attainment == pytest.approx(2 / 4)
    assert report(plan).goodput_tokens_per_s == report(plan).output_tokens_per_s


def test_objectives_by_class(plan):
    assert [group.attainment for group in report(plan, "chat:tpot=15ms;batch:e2e=50ms").classes] == [0.25, 0.5, 0.0]
    assert [group.attainment for group in report(plan, "chat:tpot=15ms;e2e=1s").classes] == [0.5, 0.5, 0.5]


def test_a_warm_up_is_not_counted(plan):
    found = report(plan, "ttft=65ms", warm_up_s=0.15)
    assert found.overall.requests == 2
    assert found.overall.times_s["ttft"].p99 == pytest.approx(0.07)
    assert found.measured_s == pytest.approx(0.52)
    assert found.output_tokens_per_s == pytest.approx(21 / 0.52)
    assert found.attainment == 0.0
    assert found.price == report(plan).price   # paid for all the same
    nobody = report(plan, warm_up_s=9.0)
    assert np.isnan(nobody.attainment)
    assert nobody.output_tokens_per_s == 0.0


def test_what_was_interrupted_is_not_counted(plan):
    cut = replace(LOG, last_token_ns_R=ints(150, 160, -1, -1) * MS, end_ns=160 * MS)
    found = report(plan, log=cut)
    assert found.overall.requests == 3
    assert found.overall.served == 2
    assert found.duration_s == pytest.approx(0.16)


def test_money_adds_up_to_the_bill(plan):
    found = report(plan)
    price, chip = found.price, plan.machine.chip
    bill = sum(2 * 0.67 * float(chip_usd_per_s(busy_s / 0.67, chip=chip)) for busy_s in (0.5, 0.06))
    assert price.total_usd == pytest.approx(bill)
    parts = (price.input_usd_per_million * 45 + price.cached_usd_per_million * 15 + price.output_usd_per_million * 33)
    assert parts / 1e6 == pytest.approx(bill)
    first = 2 * 0.67 * float(chip_usd_per_s(0.5 / 0.67, chip=chip))
    assert price.cached_usd_per_million * 15 / 1e6 == pytest.approx(first * 20 / 500)
    joules = sum(float(energy_j(0.67, busy_s / 0.67, chip=chip, chip_count=2.0)) for busy_s in (0.5, 0.06))
    assert found.j_per_output_token == pytest.approx(joules / 33)


def test_gaps_between_tokens(plan):
    """Four steps of 10 ms for two sequences, one of 100 ms with a prompt in it, on the other engine 8 x 20 ms."""
    spans = ((0, 0, 40 * MS, 0, 2, 4), (0, 40 * MS, 140 * MS, 500, 1, 1), (1, 0, 160 * MS, 0, 1, 8),
             (1, 160 * MS, 300 * MS, 700, 0, 1))
    gaps = report(plan, log=replace(LOG, spans=spans)).inter_token_s
    assert gaps.mean == pytest.approx((8 * 0.01 + 0.1 + 8 * 0.02) / 17)
    assert (gaps.p50, gaps.p90, gaps.p99) == pytest.approx((0.02, 0.02, 0.1))
    assert np.isnan(report(plan).inter_token_s.mean)


def test_decodes_that_wait_for_prompts_see_a_longer_gap(plan):
    settings = replace(plan.profile.settings, mixed_steps=False)
    waiting = replace(plan, profile=replace(plan.profile, settings=settings))
    spans = ((0, 0, 10 * MS, 0, 1, 1), (0, 10 * MS, 60 * MS, 500, 1, 1), (0, 60 * MS, 80 * MS, 0, 1, 2),
             (1, 0, 30 * MS, 0, 1, 3))
    gaps = report(waiting, log=replace(LOG, spans=spans)).inter_token_s
    assert gaps.mean == pytest.approx((0.01 + 0.06 + 0.01 + 3 * 0.01) / 6)
    assert gaps.p99 == pytest.approx(0.06)


def test_weighted_percentiles_are_those_of_the_times_spelt_out():
    random = np.random.default_rng(3)
    time_s, weight = random.random(200), random.integers(0, 9, 200)
    found, spelt = spread_of(time_s, weight), np.repeat(time_s, weight)
    assert found.mean == pytest.approx(spelt.mean())
    assert [found.p50, found.p90, found.p99] == np.percentile(spelt, (50, 90, 99), method="inverted_cdf").tolist()


@pytest.mark.parametrize(("text", "told"), [
    ("ttfb=1s", "ttfb"), ("ttft", "ttft"), ("ttft=", ""), ("ttft=fast", "fast"), ("ttft=-1s", "-1s"),
    ("ttft=1 GB", "GB"), ("ttft=0s", "0s"), ("chat:", ""), ("ttft=1s,ttft=2s", "ttft"), ("ttft=1s,,", "")])
def test_an_objective_that_is_not_known_is_refused(text, told):
    with pytest.raises(BadInput) as error:
        parse_objectives(text)
    assert error.value.field == "--slo"
    assert told in str(error.value)


def test_objectives_are_read_as_written():
    found = parse_objectives("chat:ttft=1s,tpot=40ms; batch:e2e=60s; queue=2s")
    assert found.of("chat") == {"ttft": 1.0, "tpot": 0.04}
    assert found.of("batch") == {"e2e": 60.0}
    assert found.of("other") == {"queue": 2.0}
    assert found
    assert not Objectives()
    found.refuse_unknown(("chat", "batch"))
    with pytest.raises(BadInput, match="chat"):
        found.refuse_unknown(("chatty", "batch"))
