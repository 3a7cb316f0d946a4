"""Small configs that the tests of the workload share; each is a plain config.json as published software writes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from serried.workload import Model, Shards, model_of_config

GPT: dict[str, Any] = {"model_type": "gpt2", "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128,
                       "vocab_size": 512}
LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 2, "intermediate_size": 384, "vocab_size": 1024, "tie_word_embeddings": False,
    "max_position_embeddings": 4096}
MIXTURE: dict[str, Any] = {
    "model_type": "qwen3_moe", "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 32, "num_experts": 16, "num_experts_per_tok": 4,
    "moe_intermediate_size": 64, "vocab_size": 1024}
LATENT: dict[str, Any] = {
    "model_type": "deepseek_v3", "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8,
    "num_key_value_heads": 8, "intermediate_size": 512, "moe_intermediate_size": 64, "n_routed_experts": 16,
    "num_experts_per_tok": 4, "n_shared_experts": 1, "first_k_dense_replace": 2, "q_lora_rank": 96,
    "kv_lora_rank": 48, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32, "vocab_size": 1024,
    "num_nextn_predict_layers": 1}
HYBRID: dict[str, Any] = {
    "model_type": "qwen3_next", "hidden_size": 128, "num_hidden_layers": 8, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "num_experts": 16, "num_experts_per_tok": 4,
    "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64, "linear_num_key_heads": 4,
    "linear_num_value_heads": 8, "linear_key_head_dim": 32, "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4, "vocab_size": 1024}
SINKS: dict[str, Any] = {
    "model_type": "gpt_oss", "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 96, "num_local_experts": 8,
    "num_experts_per_tok": 2, "sliding_window": 16, "vocab_size": 1024}
LETTERS: dict[str, Any] = {
    "model_type": "nemotron_h", "hidden_size": 128, "num_hidden_layers": 6, "hybrid_override_pattern": "M-M*ME",
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 256,
    "mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 32, "n_groups": 2, "conv_kernel": 4,
    "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
    "moe_shared_expert_intermediate_size": 96, "moe_latent_size": 64, "vocab_size": 1024}
EVERY = {"letters": LETTERS, "gpt": GPT, "llama": LLAMA, "mixture": MIXTURE, "latent": LATENT, "hybrid": HYBRID,
         "sinks": SINKS}


def model(config: dict[str, Any], **changes: Any) -> Model:
    return model_of_config(config | changes, name="test", file="config.json")


def shards(*, sequences: float = 2.0, tokens: float = 64.0, context_tokens: float | None = None, tensor: Any = 1.0,
           context: Any = 1.0, expert: Any = 1.0, sequence_parallel: Any = False,
           expert_tensor: Any = None) -> Shards:
    def column(value: Any) -> Any:
        return np.asarray(value, dtype=np.float64)
    return Shards(sequences=column(sequences), query_tokens=column(tokens),
                  context_tokens=column(tokens if context_tokens is None else context_tokens), tensor=column(tensor),
                  context=column(context), expert=column(expert),
                  sequence_parallel=np.asarray(sequence_parallel, dtype=bool),
                  expert_tensor=None if expert_tensor is None else column(expert_tensor))
