from dataclasses import replace

import numpy as np
import pytest

from serried.workload import (
    Attend,
    Training,
    forward_flop_per_token,
    model_flop,
    operator_flop,
    parameters,
    read_model,
)
from tests.workload.models import GPT, LLAMA, model


def test_the_formula_of_megatron_with_causal_attention_by_half() -> None:
    # 72 B s l h^2 (1 + s / (6 h) + V / (12 l h)) counts whole squares (Narayanan et al. 2021, without recompute)
    built = model(GPT)
    batch, sequence, layers, hidden, vocab = 7, 128, 3, 64, 512
    whole = 72 * batch * sequence * layers * hidden**2
    expected = whole * (1 + sequence / (12 * hidden) + vocab / (12 * layers * hidden))
    assert model_flop(Training(model=built, sequence_tokens=sequence, global_batch_sequences=batch)) == \
        pytest.approx(expected)


def test_a_large_latent_mixture_by_hand() -> None:
    built = read_model("deepseek-v3")
    count = parameters(built)
    sequence = 4096
    vectors = sum(block.count * (norms + 1536 + 512) for block, norms in zip(
        built.blocks, count.norms_B, strict=True)) + count.final_norm
    attention = 61 * 2 * 128 * (192 + 128) * sequence / 2
    expected = 2 * (count.active - count.embedding - vectors) + attention
    assert forward_flop_per_token(built, sequence) == pytest.approx(expected)
    assert forward_flop_per_token(built, sequence) == pytest.approx(2 * 36.6e9 + attention, rel=0.01)


def test_six_flops_a_parameter_and_token_when_attention_is_small() -> None:
    built = read_model("llama-3.1-70b")
    step = model_flop(Training(model=built, sequence_tokens=128, global_batch_sequences=2))
    weights = parameters(built).total - parameters(built).embedding
    assert step / 256 == pytest.approx(6 * weights, rel=0.003)


def test_frozen_weights_save_a_third() -> None:
    plain = model(LLAMA)
    job = Training(model=plain, sequence_tokens=64, global_batch_sequences=1)
    frozen = replace(job, model=replace(plain, adapter_rank=1))
    assert 0.65 < model_flop(frozen) / model_flop(job) < 0.75


def test_a_window_costs_less_than_the_whole() -> None:
    core = Attend(name="core", sequences=np.asarray(1.0), query_tokens=np.asarray(100.0),
                  context_tokens=np.asarray(100.0), heads=np.asarray(1.0), kv_heads=np.asarray(1.0), head_dim=8,
                  value_head_dim=8)
    assert operator_flop(core) == 2 * 5000 * 16
    assert operator_flop(replace(core, window_tokens=10)) == 2 * (10 * 10 / 2 + 90 * 10) * 16
    assert operator_flop(replace(core, causal=False)) == 2 * 10000 * 16
    assert operator_flop(replace(core, backward=True)) == 2 * operator_flop(core)
