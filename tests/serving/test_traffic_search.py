"""Bounds are bounds, objectives are kept, the front is a front, and the answer does not depend on who worked."""

import concurrent.futures
import json

import numpy as np
import pytest

from serried.emit.arguments import check_arguments
from serried.emit.engines import kubernetes_manifest, launch_script, sglang_arguments, vllm_arguments
from serried.engine import Cluster, EnginePool, simulate
from serried.errors import BadInput, NoAnswer
from serried.fabric import read_fleet
from serried.serving import serving_machine
from serried.serving.cluster import PoolPlan, engine_models
from serried.serving.objectives import Objectives, parse_objectives
from serried.serving.profile import read_engine
from serried.serving.report import report_of, request_times_s
from serried.serving.spec import deployment
from serried.serving.traffic_search import bounds_of, search_traffic
from serried.traffic import open_loop, poisson, stream
from serried.workload import read_model

MODEL, PROFILE = read_model("Qwen/Qwen3-8B"), read_engine("vllm")


def load(rate, count=200, inputs=800, outputs=120):
    random = stream(4, 0)
    return open_loop(poisson(rate, count, random), random.integers(inputs // 2, inputs, count),
                     random.integers(outputs // 2, outputs, count))


@pytest.fixture(scope="module")
def found():
    return search_traffic(MODEL, read_fleet("h100:8").pools, load(20.0), parse_objectives("ttft=500ms,tpot=20ms"),
                          PROFILE, top=5)


def test_the_best_keep_the_objectives_and_come_first(found):
    assert found.plans[0].keeps
    goodput = [plan.report.goodput_tokens_per_s_per_chip for plan in found.plans if plan.keeps]
    assert goodput == sorted(goodput, reverse=True)
    assert all(plan.report.chip_count <= 8 for plan in found.plans)


def test_no_deployment_beats_its_bound(found):
    for plan in found.plans:
        assert plan.report.output_tokens_per_s_per_chip <= plan.bound * 1.0001


@pytest.mark.parametrize("tp", [1, 2, 4])
def test_bounds_hold_for_any_load(tp):
    machine = serving_machine(read_fleet("h100:8").pools[0])
    engine = engine_models(MODEL, machine, deployment(tp=tp), PROFILE)[0]
    requests = load(500.0, 400)   # far more than it can do
    prompt_s, answer_s, ttft_s, tpot_s = bounds_of(engine, requests)
    log = simulate(requests, Cluster(serve=EnginePool(engine=engine, count=1)))
    assert len(requests) / (log.end_ns * 1e-9) <= 1.0 / (prompt_s + answer_s)
    alone = simulate(load(0.01, 20), Cluster(serve=EnginePool(engine=engine, count=1)))
    times_s = request_times_s(load(0.01, 20), alone)
    assert np.median(times_s["ttft"]) >= ttft_s * 0.999
    assert times_s["tpot"].min() >= tpot_s * 0.999


def test_the_front_holds_nothing_that_is_beaten(found):
    figures = [(-plan.report.goodput_tokens_per_s_per_chip, plan.report.overall.times_s["ttft"].p99,
                plan.report.overall.times_s["tpot"].p50) for plan in found.plans]
    for plan, own in zip(found.plans, figures, strict=True):
        beaten = any(all(a <= b for a, b in zip(other, own, strict=True)) and other != own for other in figures)
        assert not (plan.on_front and beaten)
    assert any(plan.on_front for plan in found.plans)


def test_other_workers_find_the_same(found):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        again = search_traffic(MODEL, read_fleet("h100:8").pools, load(20.0),
                               parse_objectives("ttft=500ms,tpot=20ms"), PROFILE, top=5,
                               mapper=lambda function, tasks: list(pool.map(function, tasks)))
    assert repr([plan.report for plan in again.plans]) == repr([plan.report for plan in found.plans])


@pytest.mark.parametrize(("fleet", "rate", "slo", "binding"), [
    ("h100:2", 5.0, "tpot=1us", "tpot"), ("h100:1", 500.0, "ttft=1s,tpot=50ms", "capacity")])
def test_what_cannot_be_says_what_binds(fleet, rate, slo, binding):
    with pytest.raises(NoAnswer) as refused:
        search_traffic(MODEL, read_fleet(fleet).pools, load(rate), parse_objectives(slo), PROFILE)
    assert refused.value.binding == binding


def test_a_model_that_nothing_holds_binds_memory():
    with pytest.raises(NoAnswer) as refused:
        search_traffic(read_model("deepseek-ai/DeepSeek-V3"), read_fleet("h100:2").pools, load(1.0),
                       parse_objectives("ttft=1s"), PROFILE)
    assert refused.value.binding == "memory"


def test_objectives_by_class():
    objectives = parse_objectives("chat:ttft=1s,tpot=40ms;batch:e2e=60s")
    times_s = {"ttft": np.array([0.5, 2.0, 9.0, np.nan]), "tpot": np.array([0.03, 0.03, 1.0, 0.01]),
               "e2e": np.array([5.0, 5.0, 59.0, 1.0]), "queue": np.zeros(4)}
    met = objectives.met(times_s, np.array([0, 0, 1, 0]), ("chat", "batch"))
    assert met.tolist() == [True, False, True, False]
    assert not Objectives()
    for bad in ("tpt=1s", "ttft", "ttft=fast", "ttft=-1s", "ttft=3 GB"):
        with pytest.raises(BadInput):
            parse_objectives(bad)


def test_money_and_tokens_add_up():
    machine = serving_machine(read_fleet("h100:8").pools[0])
    plan = PoolPlan(machine=machine, row=deployment(tp=2, replicas=2), profile=PROFILE)
    engine = engine_models(MODEL, machine, plan.row, PROFILE)[0]
    requests = load(10.0)
    log = simulate(requests, Cluster(serve=EnginePool(engine=engine, count=2)))
    report = report_of(requests, log, [plan], parse_objectives("ttft=10s"))
    inputs, outputs = int(requests.input_tokens_R.sum()), int(requests.output_tokens_R.sum())
    paid = (report.price.input_usd_per_million * inputs + report.price.output_usd_per_million * outputs) / 1e6
    assert paid == pytest.approx(report.price.total_usd, rel=1e-9)
    assert report.output_tokens_per_s == pytest.approx(outputs / report.duration_s)
    assert report.goodput_tokens_per_s == report.output_tokens_per_s
    times_s = request_times_s(requests, log)
    assert report.overall.times_s["tpot"].p99 == pytest.approx(np.percentile(times_s["tpot"], 99))


def plans(**degrees):
    machine = serving_machine(read_fleet("h200:16").pools[0])
    return PoolPlan(machine=machine, row=deployment(**degrees), profile=PROFILE)


def test_commands_are_documented_and_carry_the_plan():
    plan = plans(tp=4, pp=2, replicas=2, weight_format="fp8", cache_format="fp8")
    words = vllm_arguments(plan)
    check_arguments(words, "vllm")
    assert words[words.index("--tensor-parallel-size") + 1] == "4"
    assert words[words.index("--kv-cache-dtype") + 1] == "fp8"
    grouped = sglang_arguments(plans(tp=2, attention_dp=4, ep=8), "m")
    check_arguments(grouped, "sglang")
    assert grouped[grouped.index("--tp-size") + 1] == "8"
    assert grouped[grouped.index("--dp-size") + 1] == "4"


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_prefill_and_decode_are_launched_apart(engine):
    script = launch_script(engine, MODEL, [plans(tp=2, replicas=2), plans(tp=4)])
    assert script.count("--port") == 3
    assert "prefill" in script
    assert "decode" in script


def test_a_manifest_has_a_pod_per_replica_and_groups_across_nodes():
    small = json.loads(kubernetes_manifest("vllm", MODEL, [plans(tp=4, replicas=3)]))
    workload = small["items"][0]
    assert (workload["kind"], workload["spec"]["replicas"]) == ("Deployment", 3)
    limits = workload["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert list(limits.values()) == ["4"]
    large = json.loads(kubernetes_manifest("vllm", MODEL, [plans(tp=8, pp=2)]))["items"][0]
    assert (large["kind"], large["spec"]["leaderWorkerTemplate"]["size"]) == ("LeaderWorkerSet", 2)


def test_a_format_that_a_tool_lacks_is_refused():
    with pytest.raises(BadInput, match="SGLang"):
        sglang_arguments(plans(tp=2, cache_format="int8"), "m")
