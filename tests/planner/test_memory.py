from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from serried.planner import estimate_memory, explain_memory, layouts_of
from serried.planner.memory import in_flight_KL
from serried.software import STACK_FACTS, perfect_stack
from serried.workload import AttentionSpec, Block, MlpSpec, Model, Training, parameters
from tests.planner.cases import job, machine, model


def _on(fleet="h100:16", **facts):
    bare = {"reserved_bytes": 0.0, "fragmentation": 0.0}
    return machine(fleet, dataclasses.replace(perfect_stack(), facts={**STACK_FACTS, **bare, **facts}))


def _states(row, **facts):
    found = estimate_memory(job(), _on(**facts), layouts_of([row])).by_cause_bytes
    return [float(found[cause][0]) for cause in ("weights", "gradients", "optimizer_states")]


def test_sixteen_bytes_a_parameter_are_cut_one_after_another():
    """Rajbhandari et al. 2020, figure 1: 2 + 2 + 12 bytes; stages 1, 2, 3 cut 12, then 2, then 2 over the 16 ranks."""
    count = parameters(model()).total
    assert _states({"sharding": 0}, gradient_bytes=2.0) == pytest.approx([2 * count, 2 * count, 12 * count], rel=1e-3)
    assert _states({"sharding": 1}, gradient_bytes=2.0) == pytest.approx(
        [2 * count, 2 * count, 12 / 16 * count], rel=1e-3)
    assert _states({"sharding": 2}, gradient_bytes=2.0) == pytest.approx(
        [2 * count, 2 / 16 * count, 12 / 16 * count], rel=1e-3)
    assert _states({"sharding": 3}, gradient_bytes=2.0) == pytest.approx(
        [2 / 16 * count, 2 / 16 * count, 12 / 16 * count], rel=1e-3)


def test_tensor_and_pipeline_cut_the_weights():
    whole = _states({})[0]
    assert _states({"tp": 8})[0] == pytest.approx(whole / 8, rel=0.01)
    vocabulary = 2.0 * 32768 * 1024
    assert _states({"pp": 2})[0] == pytest.approx((whole - 2 * vocabulary) / 2 + vocabulary, rel=0.01)


def _flight(row, micro_batches=64):
    return in_flight_KL(layouts_of([row]), np.array([micro_batches]))[:, 0].tolist()


def test_first_stage_holds_pp_micro_batches_and_the_last_one():
    assert _flight({"pp": 8}) == [8, 7, 1]
    assert _flight({"pp": 8}, micro_batches=4) == [4, 4, 1]
    assert _flight({}) == [1, 1, 1]


def test_interleaving_holds_more_on_the_first_stage():
    """Korthikanti et al. 2022: 1 + (p - 1)/(p v) times the activations of 1F1B: 8 (1 + 7/16) = 11.5 with v = 2."""
    assert _flight({"pp": 8, "virtual_stages": 2})[0] == pytest.approx(8 * (1 + 7 / 16))


def test_causes_add_up_and_recompute_frees_activations():
    rows = [{"recompute": name, "tp": 2, "pp": 2, "micro_batch": 4} for name in
            ("none", "selective", "mlp", "attention", "full")]
    found = estimate_memory(job(), _on(), layouts_of(rows))
    assert sum(found.by_cause_bytes.values()) == pytest.approx(found.total_bytes)
    kept = found.by_cause_bytes["activations"]
    assert (np.diff(kept[[0, 1, 3, 4]]) <= 0).all()
    assert kept[4] < kept[2] < kept[0]


def test_activations_of_a_plain_block_as_published():
    """Korthikanti et al. 2022, equation 2: s b h (10 + 24/t + 5 a s / (h t)), without sequence parallelism."""
    attention = AttentionSpec(kind="full", heads=16, kv_heads=16, head_dim=64, value_head_dim=64)
    plain = Model(name="plain", hidden=1024, vocab=51200, tied_embeddings=True, norm_bias=True, learned_positions=2048,
                  blocks=(Block(count=8, attention=attention, mlp=MlpSpec(width=4096, gated=False, bias=True)),))
    work = Training(model=plain, sequence_tokens=2048, global_batch_sequences=64)
    found = estimate_memory(work, _on(fused_attention=False), layouts_of([{"tp": 4, "micro_batch": 2}]))
    per_block = 2048 * 2 * 1024 * (10 + 24 / 4 + 5 * 16 * 2048 / (1024 * 4))
    assert found.by_cause_bytes["activations"][0] == pytest.approx(8 * per_block, rel=0.02)


def test_what_does_not_fit_says_why():
    large = job(layers=48, hidden=8192, heads=64)
    found = estimate_memory(large, _on(), layouts_of([{}]))
    assert not found.fits[0]
    assert "optimizer states" in explain_memory(found)
    small = estimate_memory(job(), _on(), layouts_of([{"tp": 8}]))
    assert small.fits[0]
    assert explain_memory(small) == ""


def test_deferred_gradients_wait_whole():
    each, deferred = (_states({"sharding": 3}, reduce_each_micro_batch=flag)[1] for flag in (True, False))
    assert deferred - each == pytest.approx(2.0 * parameters(model()).total, rel=1e-3)
