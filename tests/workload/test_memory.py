from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serried.workload import RECOMPUTED, activation_bytes, cache_bytes, kept_tensors, kv_bytes_per_token
from tests.workload.models import EVERY, GPT, HYBRID, LATENT, LLAMA, MIXTURE, SINKS, model, shards

HIDDEN, HEADS, SEQUENCE, BATCH = 64, 4, 64, 2
SBH = SEQUENCE * BATCH * HIDDEN


def kept(config: dict[str, Any], cut: dict[str, Any] | None = None, block: int = 0, **how: Any) -> float:
    built = model(config)
    return float(activation_bytes(built, built.blocks[block], shards(**(cut or {})), **how))


@pytest.mark.parametrize("tensor", [1, 2, 4])
def test_a_plain_block_is_what_korthikanti_counts(tensor: int) -> None:
    """Table 2 of Korthikanti et al. 2022: s b h (10 + 24/t + 5 a s / (h t)), all over t with sequence parallelism."""
    scores = 5 * HEADS * SEQUENCE / HIDDEN
    alone = kept(GPT, {"tensor": tensor}, fused_attention=False)
    assert alone == pytest.approx(SBH * (10 + 24 / tensor + scores / tensor))
    together = kept(GPT, {"tensor": tensor, "sequence_parallel": True}, fused_attention=False)
    assert together == pytest.approx(SBH / tensor * (34 + scores))
    selective = kept(GPT, {"tensor": tensor, "sequence_parallel": True}, fused_attention=False, recompute="selective")
    assert selective == pytest.approx(SBH / tensor * 34)
    assert kept(GPT, {"tensor": tensor}, fused_attention=False, recompute="full") == 2 * SBH


def test_fused_attention_keeps_a_number_a_row() -> None:
    assert kept(GPT) == pytest.approx(32 * SBH + 4 * BATCH * SEQUENCE * HEADS)      # and no dropout
    assert kept(GPT, recompute="selective") == pytest.approx(32 * SBH)


def test_a_gated_block_with_grouped_heads_by_hand() -> None:
    tokens, hidden, query, kv, width = 128, 128, 128, 2 * 16, 384
    elements = 2 * hidden + (query + 2 * kv) + query + 2 * hidden + 3 * width
    assert kept(LLAMA) == pytest.approx(tokens * (2 * elements + 4 * 8))
    assert kept(LLAMA, fused_activation=False) - kept(LLAMA) == pytest.approx(tokens * width * 2)


def test_experts_keep_a_row_a_choice() -> None:
    tokens, hidden, query, kv, width, experts, chosen = 128, 128, 256, 4 * 32, 64, 16, 4
    attention = 2 * hidden + (query + 2 * kv) + (query + kv) + query            # queries and keys before their norm too
    elements = attention + 2 * hidden + chosen * (hidden + 3 * width)
    assert kept(MIXTURE) == pytest.approx(tokens * (2 * elements + 4 * 8 + 8 * experts))


def test_a_latent_block_keeps_its_latents() -> None:
    built = model(LATENT)
    found = {tensor.name: float(tensor.kept_bytes) for tensor in kept_tensors(built, built.blocks[0], shards())}
    assert found["attention.latents"] == 128 * 2 * (2 * 48 + 16 + 2 * 96)
    assert found["attention.query_key_value"] == 128 * 2 * 8 * (48 + 48 + 32)


def test_a_quantised_product_keeps_a_byte() -> None:
    tokens, hidden, width, query = 128, 128, 384, 128
    saved = tokens * (2 * hidden + width)               # inputs of qkv, up and down shrink from two bytes to one
    added = tokens * query                              # the core's output is kept as it is, and as a copy
    assert kept(LLAMA) - kept(LLAMA, number_format="fp8") == pytest.approx(saved - added)


@pytest.mark.parametrize("name", EVERY)
def test_recompute_never_keeps_more(name: str) -> None:
    for block in range(len(model(EVERY[name]).blocks)):
        everything = kept(EVERY[name], block=block)
        by_kind = {recompute: kept(EVERY[name], block=block, recompute=recompute) for recompute in RECOMPUTED}
        assert by_kind["none"] == everything
        assert all(by_kind["full"] <= bytes_kept <= everything for bytes_kept in by_kind.values())
        assert by_kind["full"] == 128 * model(EVERY[name]).hidden * 2
        whole = model(EVERY[name]).blocks[block]
        parts = (whole.attention is not None) + (whole.mlp is not None)
        halves = everything - by_kind["mlp"] + everything - by_kind["attention"]
        assert everything - halves == pytest.approx(parts * by_kind["full"])       # the inputs of the parts


def test_recompute_by_operator_by_hand() -> None:
    tokens, hidden, query, kv, width = 128, 128, 128, 2 * 16, 384
    elements = hidden + query + (query + kv) + width + hidden      # input, attention, query and value, gate, down
    assert kept(LLAMA, recompute="operators") == pytest.approx(tokens * (2 * elements + 4 * 8))
    for name in EVERY:
        for block in range(len(model(EVERY[name]).blocks)):
            assert kept(EVERY[name], block=block, recompute="operators") <= kept(EVERY[name], block=block)


@given(factor=st.integers(1, 8))
def test_activations_grow_with_the_micro_batch(factor: int) -> None:
    assert kept(LATENT, {"sequences": 2.0 * factor}, block=1) == pytest.approx(factor * kept(LATENT, block=1))


def test_context_ranks_share_the_activations() -> None:
    assert kept(LLAMA, {"context": 4.0}) * 4 == pytest.approx(kept(LLAMA))


def test_cache_by_kind() -> None:
    assert kv_bytes_per_token(model(LLAMA)) == (2 * (16 + 16) * 2,)
    assert kv_bytes_per_token(model(LATENT)) == ((48 + 16) * 2,) * 2
    assert kv_bytes_per_token(model(HYBRID))[0] == 0
    assert kv_bytes_per_token(model(LLAMA), 1.0) == (2 * (16 + 16),)


def test_windows_bound_the_cache_and_mixers_hold_a_state() -> None:
    per_token = 2 * (32 + 32) * 2
    held = cache_bytes(model(SINKS), np.array([8.0, 1000.0]))
    assert held.tolist() == [4 * 8 * per_token, 2 * 16 * per_token + 2 * 1000 * per_token]
    hybrid = cache_bytes(model(HYBRID), np.array([0.0, 100.0]))
    state = 8 * 32 * 32 * 4 + 4 * (2 * 4 * 32 + 8 * 32) * 2
    assert hybrid[0] == 6 * state
    assert hybrid[1] - hybrid[0] == 2 * 100 * 2 * (64 + 64) * 2
