"""The closed loop against hand-worked numbers and laws that hold for every deployment."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.fabric import Pool, read_fabric
from serried.serving import (
    SERVING_TIME_CAUSES,
    deployment,
    deployment_space,
    estimate_static,
    serving_machine,
    static_tables,
)
from serried.serving.static import LaunchNote, closed_loop, estimate_noted
from serried.serving.tables import PhaseTimes, StaticTables, packed_requests
from serried.silicon import read_chip
from serried.workload import read_model
from serried.workload.spec import Serving

PERFECT = {"gemm_rate_ratio": 1.0, "attention_rate_ratio": 1.0, "unfused_fraction": 0.0, "host_s_per_operator": 0.0,
           "host_s_per_step": 0.0, "tensor_overlap": 0.0, "collective_rate_ratio": 1.0}


def phase(**seconds: float) -> PhaseTimes:
    return PhaseTimes(**{column.name: np.array([seconds.get(column.name, 0.0)]) for column in fields(PhaseTimes)})


def tables(batch: float, requests: float, prefill: PhaseTimes, decode: PhaseTimes) -> StaticTables:
    one = np.ones(1)
    return StaticTables(prefill=prefill, packed=prefill, packed_requests=one, decode=decode, batch=batch * one,
                        max_batch=batch * one, requests=requests * one, micro_batches=one)


def small(output: int, concurrency: int) -> Serving:
    return Serving(model=read_model("qwen3-0.6b"), input_tokens=100, output_tokens=output, concurrency=concurrency)


def test_closed_loop_by_hand():
    """4 requests, prefill 0.1 s, decode step 0.02 s, 11 tokens out: a cycle is 10 x 0.02 + 4 x 0.1 = 0.6 s."""
    loop = closed_loop(small(11, 4), deployment(), tables(4, 4, phase(gemm_s=0.1), phase(gemm_s=0.02)), PERFECT)
    assert loop.cycle_s == pytest.approx(0.6)
    assert loop.output_tokens_per_s == pytest.approx(4 * 11 / 0.6)
    assert loop.ttft_burst_s == pytest.approx(0.4)
    assert loop.ttft_s + 10 * loop.tpot_s == pytest.approx(loop.request_s)


def test_one_request_waits_for_nobody():
    loop = closed_loop(small(11, 1), deployment(), tables(1, 1, phase(gemm_s=0.1), phase(gemm_s=0.02)), PERFECT)
    assert loop.ttft_s == pytest.approx(0.1)
    assert loop.tpot_s == pytest.approx(0.02)


def test_what_does_not_fit_the_batch_waits_by_littles_law():
    loop = closed_loop(small(11, 8), deployment(), tables(4, 8, phase(gemm_s=0.1), phase(gemm_s=0.02)), PERFECT)
    in_flight = loop.output_tokens_per_s / 11 * loop.request_s
    assert in_flight == pytest.approx(8.0)


def test_the_host_is_beside_the_device_until_it_is_slower():
    """100 kernels at 10 us are 1 ms: hidden beside 2 ms of device time, but 0.5 ms of device time wait for them."""
    stack = PERFECT | {"host_s_per_operator": 1e-5, "host_s_per_step": 1e-4}
    eager = deployment(captured=False)
    for device_s, step_s in ((2e-3, 2.1e-3), (5e-4, 1.1e-3)):
        decode = phase(gemm_s=device_s, kernels=100.0)
        loop = closed_loop(small(11, 1), eager, tables(1, 1, phase(gemm_s=0.1), decode), stack)
        assert loop.decode_step_s == pytest.approx(step_s)
    captured = closed_loop(small(11, 1), deployment(), tables(1, 1, phase(), phase(gemm_s=5e-4, kernels=100.0)), stack)
    assert captured.decode_step_s == pytest.approx(6e-4)


def test_causes_add_up_to_the_cycle(job, machine):
    pool = machine("h100", 8)
    rows = deployment_space(job, pool)
    found = estimate_static(job, pool, rows)
    assert set(found.time_by_cause_s) == set(SERVING_TIME_CAUSES)
    assert sum(found.time_by_cause_s.values()) == pytest.approx(found.cycle_s)
    assert sum(found.memory_by_cause_bytes.values()) == pytest.approx(found.memory_bytes)
    assert len(rows) >= 8


def test_a_table_of_many_is_many_tables_of_one(job, machine):
    pool = machine("h100", 8)
    rows = deployment_space(job, pool)
    together = estimate_static(job, pool, rows)
    for index in range(len(rows)):
        alone = estimate_static(job, pool, rows.take(np.array([index])))
        assert alone.output_tokens_per_s[0] == pytest.approx(together.output_tokens_per_s[index])


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 100.0), st.integers(1, 64), st.integers(2, 300))
def test_measured_in_another_second_everything_scales(second, batch, output):
    """Times scale as a second, rates as its inverse."""
    base = tables(batch, batch, phase(gemm_s=0.1, kernels=9.0), phase(attention_s=0.02, kernels=50.0))
    scaled = tables(batch, batch, phase(gemm_s=0.1 * second, kernels=9.0),
                    phase(attention_s=0.02 * second, kernels=50.0))
    stack = PERFECT | {"host_s_per_operator": 1e-5, "host_s_per_step": 1e-3}
    other = stack | {"host_s_per_operator": 1e-5 * second, "host_s_per_step": 1e-3 * second}
    job = small(output, batch)
    one, two = closed_loop(job, deployment(), base, stack), closed_loop(job, deployment(), scaled, other)
    assert two.output_tokens_per_s == pytest.approx(one.output_tokens_per_s / second)
    for name in ("ttft_s", "tpot_s", "cycle_s", "decode_step_s", "prefill_s", "request_s", "ttft_burst_s"):
        assert getattr(two, name) == pytest.approx(getattr(one, name) * second), name


def test_more_requests_mean_more_tokens_and_longer_steps(job, machine):
    pool = machine("h100", 8)
    one = deployment(tp=8)
    found = [estimate_static(replace(job, concurrency=count), pool, one) for count in (1, 8, 64, 512)]
    rates = [float(estimate.output_tokens_per_s[0]) for estimate in found]
    steps = [float(estimate.tpot_s[0]) for estimate in found]
    assert rates == sorted(rates)
    assert steps == sorted(steps)


def test_eager_launches_bind_a_small_model(job, machine):
    few = replace(job, model=read_model("qwen3-0.6b"), concurrency=1)
    eager, captured = (estimate_static(few, machine("h100", 8), deployment(tp=8, captured=choice))
                       for choice in (False, True))
    assert eager.tpot_s[0] > captured.tpot_s[0]


def test_eight_bits_save_memory_and_time_when_the_chip_has_them(machine):
    job = Serving(model=read_model("qwen3-32b"), input_tokens=512, output_tokens=128, concurrency=8)
    pool = machine("h100", 8)
    wide, narrow = (estimate_static(job, pool, deployment(tp=8, weight_format=name)) for name in ("bf16", "fp8"))
    assert narrow.memory_by_cause_bytes["weights"][0] < 0.6 * wide.memory_by_cause_bytes["weights"][0]
    assert narrow.decode_step_s[0] < wide.decode_step_s[0]


def test_a_format_without_an_engine_is_stored_narrow_and_computed_wide(job, machine):
    """A100 has no fp8 engine: weights are read in one byte, but no product is faster than the 16-bit engine."""
    pool = machine("a100", 8)
    few = replace(job, concurrency=1)
    wide, narrow = (static_tables(few, pool, deployment(tp=8, weight_format=name)) for name in ("bf16", "fp8"))
    assert narrow.decode.gemm_s[0] < wide.decode.gemm_s[0]
    assert narrow.decode.quantise_s[0] == 0.0
    assert narrow.prefill.gemm_s[0] >= 0.5 * wide.prefill.gemm_s[0]


def test_a_note_on_launches_replaces_the_models_own_counts(machine):
    job = Serving(model=read_model("qwen3-0.6b"), input_tokens=64, output_tokens=8, concurrency=1)
    pool = machine("h100", 1)
    per_kernel_s = pool.stack["host_s_per_operator"]
    eager = estimate_noted(job, pool, deployment(captured=False), LaunchNote(kernels=10_000, eager=True, fused=False))
    assert eager.decode_step_s[0] == pytest.approx(10_000 * per_kernel_s + pool.stack["host_s_per_step"], rel=0.01)
    plain = estimate_static(job, pool, deployment())
    assert estimate_noted(job, pool, deployment(), None).tpot_s[0] == plain.tpot_s[0]


def test_prompts_that_wait_share_a_pass():
    """64 running, 16 tokens out: four end with each step, so four prompts of 100 tokens begin together."""
    assert packed_requests(small(16, 64), deployment(), np.array([64.0])) == pytest.approx(4)
    assert packed_requests(small(128, 64), deployment(), np.array([64.0])) == pytest.approx(1)


def test_an_offline_queue_runs_in_equal_waves():
    """100 requests of which 40 may run: three waves of 34, each with every prompt packed into the token budget."""
    job = replace(small(11, 100), queued=True)
    machine = serving_machine(Pool(chip=read_chip("h100"), fabric=read_fabric("hgx-h100"), chip_count=1))
    found = static_tables(job, machine, deployment(max_batch=40))
    assert found.batch == pytest.approx(34)
    assert found.packed_requests == pytest.approx(34)
