"""Nothing that the simulator does beats a bound, whatever the layout, the engine and the traffic."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serried.engine import Cluster, EngineModel, EnginePool, EngineSettings, StepTime, simulate
from serried.serving.bound import _envelope, _tangent, least_times
from serried.serving.candidates import Space, candidates_of, cluster_at, engines_of, plans_at
from serried.serving.demand import demand_of
from serried.serving.objectives import parse_objectives
from serried.serving.prune import bounds_of
from serried.serving.report import report_of, request_times_s
from tests.serving.search_cases import hashed, load, question

_ROUND = 1.0 + 1e-9


@pytest.mark.parametrize(("model", "fleet", "engine"), [
    ("Qwen3-8B", "h100:4", "vllm"), ("Qwen3-8B", "h20:4", "sglang"), ("Qwen3-30B-A3B", "h100:4", "vllm")])
@pytest.mark.parametrize("shared", [False, True])
def test_no_simulated_candidate_beats_its_bound(model, fleet, engine, shared):
    requests = load(12.0, 80)
    requests = hashed(requests, 3) if shared else requests
    ask = question(fleet, "ttft=300ms,tpot=15ms", model=model, engine=engine, requests=requests,
                   space=Space(max_sequences=(0, 4), token_budgets=(0, 512), acceptances=((), (0.7, 0.5))))
    engines = engines_of(ask.model, ask.machines, ask.profile, ask.space)
    rows = candidates_of(engines, [machine.chip_count for machine in ask.machines], ask.space)
    bounds = bounds_of(engines, rows, demand_of(requests), ask.objectives)
    chosen = np.unique(np.concatenate([np.random.default_rng(0).choice(len(rows), 40), np.argsort(bounds.load)[:4]]))
    for row in chosen.tolist():
        log = simulate(requests, cluster_at(ask.model, engines, rows, row))
        report = report_of(requests, log, plans_at(engines, rows, row), ask.objectives)
        assert report.attainment <= bounds.attainment[row] * _ROUND
        assert report.goodput_tokens_per_s_per_chip <= bounds.goodput_per_chip[row] * _ROUND
        assert report.overall.times_s["ttft"].p50 >= bounds.ttft_s[row] / _ROUND
        assert report.overall.times_s["tpot"].p50 >= bounds.tpot_s[row] / _ROUND
        assert 0 <= bounds.load[row] < np.inf


def _engine(draw_s, groups, stages, seats, budget, drafts):
    """An engine whose tables are any numbers, rising or not."""
    grid = np.array([1.0, 4.0, 32.0, 256.0, 4096.0])
    return EngineModel(
        settings=EngineSettings(max_sequences=seats, token_budget=budget, acceptance=(0.6,) * drafts,
                                capture_sizes=(1, 8)),
        step_time=StepTime(tokens_T=grid, dense_s_T=draw_s[0:5], expert_s_T=draw_s[5:10], sequences_B=grid,
                           head_s_B=draw_s[10:15], draft_s_B=draw_s[15:20] * bool(drafts),
                           context_C=np.array([16.0, 512.0, 8192.0]),
                           decode_attention_s_BC=draw_s[20:35].reshape(5, 3), query_Q=grid,
                           prefill_attention_s_QC=draw_s[35:50].reshape(5, 3), stages=stages),
        kv_blocks=4096, groups=groups)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), groups=st.sampled_from([1, 2]), stages=st.sampled_from([1, 2, 3]),
       seats=st.sampled_from([1, 5, 64]), budget=st.sampled_from([64, 700, 4000]), drafts=st.sampled_from([0, 2]),
       rate_per_s=st.sampled_from([0.5, 20.0]), longest=st.sampled_from([2000, 8000]))
# a bend of the experts between two knots
@example(seed=2590, groups=2, stages=1, seats=1, budget=4000, drafts=0, rate_per_s=20.0, longest=2000)
def test_bounds_hold_for_any_tables(seed, groups, stages, seats, budget, drafts, rate_per_s, longest):
    draw_s = np.random.default_rng(seed).uniform(1e-4, 1e-2, 50)
    engine = _engine(draw_s, groups, stages, seats, budget, drafts)
    requests = load(rate_per_s, 30, seed, longest=longest)
    log = simulate(requests, Cluster(serve=EnginePool(engine=engine, count=2)), seed=seed)
    least, times_s = least_times(engine, demand_of(requests)), request_times_s(requests, log)
    served = log.reason_R == 0
    assert (served == ~least.refused_R).all()
    assert (times_s["ttft"][served] >= least.ttft_s_R[served] / _ROUND).all()
    later = served & (requests.output_tokens_R > 1)
    assert (times_s["tpot"][later] >= least.tpot_s_R[later] / _ROUND).all()
    work_s = float((least.prefill_s_R + least.decode_s_R)[served].sum())
    assert log.busy_ns_E.sum() * 1e-9 >= work_s / _ROUND
    assert work_s > 0


def test_a_bound_is_near_what_a_busy_engine_does():
    """An engine that always has work wastes little: the bound is no empty promise."""
    requests = replace(load(1e6, 200, longest=1000))
    ask = question("h100:1", "", requests=requests)
    engines = engines_of(ask.model, ask.machines, ask.profile, Space(max_sequences=(0,), token_budgets=(0,)))
    log = simulate(requests, Cluster(serve=EnginePool(engine=engines.models[0], count=1)))
    least = least_times(engines.models[0], demand_of(requests))
    assert float((least.prefill_s_R + least.decode_s_R).sum()) > 0.5 * log.busy_ns_E.sum() * 1e-9


def test_the_envelope_and_its_tangent_by_hand():
    x, y = _envelope(np.array([1.0, 2.0, 4.0, 8.0]), np.array([3.0, 5.0, 5.0, 9.0]))
    assert x.tolist() == [1.0, 4.0, 8.0]
    assert y.tolist() == [3.0, 5.0, 9.0]
    per_pass_s, token_s = _tangent(x, y, 2.0)
    assert (per_pass_s, token_s) == pytest.approx((7.0 / 3.0, 2.0 / 3.0))
    assert _tangent(x, y, 100.0) == pytest.approx((0.0, 9.0 / 8.0))


def test_what_several_prompts_share_is_asked_once():
    requests = hashed(load(4.0, 20), 5)
    demand, plain = demand_of(requests), demand_of(load(4.0, 20))
    assert (demand.new_R >= 1).all()
    assert (demand.new_R + demand.known_R == requests.input_tokens_R).all()
    assert demand.known_R.sum() > 0
    assert plain.known_R.sum() == 0
    hashes, counts = np.unique(requests.block_hash_H, return_counts=True)
    assert demand.shared_tokens <= 128 * (counts > 1).sum()
    assert len(hashes) < len(requests.block_hash_H)


def test_objectives_that_none_can_keep_bound_attainment_to_nothing():
    ask = question(slo="tpot=1us")
    engines = engines_of(ask.model, ask.machines, ask.profile, ask.space)
    rows = candidates_of(engines, [4], Space(disaggregated=False))
    later = float((ask.requests.output_tokens_R > 1).mean())
    assert any(engine is not None and engine.step_time.stages > 1 for engine in engines.models)
    bounds = bounds_of(engines, rows, demand_of(ask.requests), parse_objectives("tpot=1us"))
    assert bounds.attainment == pytest.approx(1.0 - later)
