"""Which key of which architecture means what: a table, so that a new architecture is a row.

Each row says how the `config.json` of one `model_type` names our words (STANDARD where it says nothing), what its
software takes for a key that is left out, and what it always has. Nothing here names a model, only families of code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["ARCHITECTURES", "STANDARD", "Architecture"]

#: Our word to the key most architectures use for it.
STANDARD: Mapping[str, str] = {
    "layers": "num_hidden_layers", "hidden": "hidden_size", "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads", "head_dim": "head_dim", "width": "intermediate_size", "vocab": "vocab_size",
    "positions": "max_position_embeddings", "tied": "tie_word_embeddings", "window": "sliding_window",
    "attention_bias": "attention_bias", "mlp_bias": "mlp_bias",
    "route_groups": "n_group", "groups_per_token": "topk_group",
    "experts": "num_experts", "experts_per_token": "num_experts_per_tok", "expert_width": "moe_intermediate_size",
    "shared_experts": "n_shared_experts", "shared_width": "shared_expert_intermediate_size",
    "dense_layers": "first_k_dense_replace", "expert_step": "decoder_sparse_step", "dense_list": "mlp_only_layers",
    "period": "full_attention_interval", "prediction": "num_nextn_predict_layers",
    "query_rank": "q_lora_rank", "kv_rank": "kv_lora_rank", "rope_head_dim": "qk_rope_head_dim",
    "plain_head_dim": "qk_nope_head_dim", "value_head_dim": "v_head_dim",
    "state_key_heads": "linear_num_key_heads", "state_value_heads": "linear_num_value_heads",
    "state_key_dim": "linear_key_head_dim", "state_value_dim": "linear_value_head_dim",
    "conv_width": "linear_conv_kernel_dim",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How the config of one `model_type` is read.

    nested: sub-table that holds the language model, "" = the config itself.
    keys: our word to its key where it is not STANDARD; a dotted key reaches into a sub-table.
    defaults: value of a key that is absent, by our word; a word without a default is needed.
    mlp: "dense", "moe" (all or some layers, see expert_step, dense_layers, dense_list), by the family.
    period_of: what the layers are that are not every `period`-th: "window", "chunk", "linear" ("" = all alike).
    bias: which matrices always have one: any of "qkv", "output", "mlp", "router"; `attention_bias`, `mlp_bias` as keys
    add to it when the family reads them.
    positions: learned positions have `positions` + `position_offset` rows; "switched": learned unless linear biases,
    rotary positions or their absence are switched on in `attn_config`.
    windowed: "always" where `window` is given, "switched" only with `use_sliding_window`.
    letters: what each letter of the layer pattern `hybrid_override_pattern` stands for, (attention, mlp).
    """

    nested: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, int | bool] = field(default_factory=dict)
    attention: Literal["full", "mla"] = "full"
    mlp: Literal["dense", "moe"] = "dense"
    gated: bool = True
    bias: tuple[str, ...] = ()
    bias_keys: tuple[str, ...] = ()
    qk_norm: bool = False
    sinks: bool = False
    output_gate: bool = False
    shared_gate: bool = False
    norms: int = 2
    norm_bias: bool = False
    positions: Literal["rotary", "learned", "none", "switched"] = "rotary"
    position_offset: int = 0
    period_of: Literal["", "window", "chunk", "linear"] = ""
    windowed: Literal["", "always", "switched"] = ""
    letters: Mapping[str, tuple[str, str]] = field(default_factory=dict)


_LLAMA = Architecture(bias_keys=("attention_bias", "mlp_bias"), defaults={"tied": False})
_MISTRAL = Architecture(windowed="always", defaults={"tied": False})
_QWEN2_MOE = {"tied": False, "expert_step": 1, "shared_width": 0}
_HYBRID = Architecture(
    mlp="moe", qk_norm=True, output_gate=True, shared_gate=True, period_of="linear", bias_keys=("attention_bias",),
    defaults={"tied": False, "expert_step": 1, "period": 4, "shared_width": 0, "conv_width": 4})
_DEEPSEEK = Architecture(
    attention="mla", mlp="moe", bias_keys=("attention_bias",),
    keys={"experts": "n_routed_experts", "expert_step": "moe_layer_freq"},
    defaults={"tied": False, "query_rank": 0, "shared_experts": 0, "dense_layers": 0, "expert_step": 1,
              "prediction": 0})
_GPT2_KEYS = {"layers": "n_layer", "hidden": "n_embd", "heads": "n_head", "kv_heads": "num_key_value_heads",
              "width": "n_inner", "positions": "n_positions"}
_BIASED = ("qkv", "output", "mlp")
_GEMMA3 = Architecture(
    norms=4, qk_norm=True, period_of="window", keys={"period": "sliding_window_pattern"},
    defaults={"tied": True, "heads": 8, "kv_heads": 4, "head_dim": 256, "vocab": 262_208, "window": 4096, "period": 6})
_LLAMA4 = Architecture(
    mlp="moe", period_of="chunk", bias_keys=("attention_bias",),
    keys={"experts": "num_local_experts", "expert_step": "interleave_moe_layer_step", "window": "attention_chunk_size",
          "period": "no_rope_layer_interval", "expert_width": "intermediate_size", "width": "intermediate_size_mlp",
          "expert_list": "moe_layers"},
    defaults={"tied": False, "expert_step": 1, "period": 4, "window": 8192, "shared_experts": 1})

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": _LLAMA,
    "granite": _LLAMA,
    "seed_oss": Architecture(bias=("qkv",), defaults={"tied": False}),
    "mistral": _MISTRAL,
    "mixtral": Architecture(mlp="moe", windowed="always", defaults={"tied": False},
                            keys={"experts": "num_local_experts", "expert_width": "intermediate_size"}),
    "mistral3": Architecture(nested="text_config", windowed="always", defaults={"tied": False}),
    "qwen2": Architecture(bias=("qkv",), windowed="switched", defaults={"tied": False}),
    "qwen2_moe": Architecture(mlp="moe", bias=("qkv",), shared_gate=True, windowed="switched", defaults=_QWEN2_MOE),
    "qwen3": Architecture(qk_norm=True, windowed="switched", bias_keys=("attention_bias",), defaults={"tied": False}),
    "qwen3_moe": Architecture(mlp="moe", qk_norm=True, windowed="switched", bias_keys=("attention_bias",),
                              defaults={"tied": False, "expert_step": 1}),
    "qwen3_vl_moe": Architecture(nested="text_config", mlp="moe", qk_norm=True, bias_keys=("attention_bias",),
                                 defaults={"tied": False, "expert_step": 1}),
    "qwen3_next": _HYBRID,
    "qwen3_5_moe": Architecture(
        nested="text_config", mlp="moe", qk_norm=True, output_gate=True, shared_gate=True, period_of="linear",
        bias_keys=("attention_bias",),
        defaults={"tied": False, "expert_step": 1, "period": 4, "shared_width": 0, "conv_width": 4}),
    "qwen3_5": Architecture(
        nested="text_config", qk_norm=True, output_gate=True, period_of="linear", bias_keys=("attention_bias",),
        defaults={"tied": False, "period": 4, "conv_width": 4}),
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "kimi_k2": _DEEPSEEK,
    "glm4_moe_lite": _DEEPSEEK,
    "gpt_oss": Architecture(
        mlp="moe", bias=("qkv", "output", "mlp", "router"), sinks=True, period_of="window",
        keys={"experts": "num_local_experts", "expert_width": "intermediate_size"},
        defaults={"tied": False, "period": 2}),
    "gemma": Architecture(defaults={"tied": True}),
    "gemma2": Architecture(norms=4, period_of="window", defaults={"tied": True, "period": 2}),
    "gemma3_text": _GEMMA3,
    "gemma3": Architecture(nested="text_config", norms=4, qk_norm=True, period_of="window", keys=_GEMMA3.keys,
                           defaults=_GEMMA3.defaults),
    "llama4_text": _LLAMA4,
    "llama4": Architecture(nested="text_config", mlp="moe", period_of="chunk", bias_keys=("attention_bias",),
                           keys=_LLAMA4.keys, defaults=_LLAMA4.defaults),
    "mpt": Architecture(
        gated=False, positions="switched", defaults={"tied": True, "expansion": 4},
        keys={"layers": "n_layers", "hidden": "d_model", "heads": "n_heads", "kv_heads": "attn_config.kv_n_heads",
              "positions": "max_seq_len", "width": "ffn_hidden_size", "expansion": "expansion_ratio"}),
    "gpt2": Architecture(gated=False, bias=_BIASED, norm_bias=True, positions="learned", keys=_GPT2_KEYS,
                         defaults={"tied": True, "expansion": 4}),
    "gpt_neox": Architecture(gated=False, bias=_BIASED, norm_bias=True, defaults={"tied": False}),
    "opt": Architecture(gated=False, bias=_BIASED, norm_bias=True, positions="learned", position_offset=2,
                        keys={"width": "ffn_dim"}, defaults={"tied": True}),
    "bloom": Architecture(gated=False, bias=_BIASED, norm_bias=True, positions="none",
                          keys={"layers": "n_layer", "heads": "n_head", "positions": "seq_length"},
                          defaults={"tied": True, "expansion": 4}),
    "starcoder2": Architecture(gated=False, bias=_BIASED, norm_bias=True, windowed="always", defaults={"tied": True}),
    "nemotron": Architecture(gated=False, norm_bias=True, bias_keys=("attention_bias", "mlp_bias"),
                             defaults={"tied": False}),
    "nemotron_h": Architecture(
        mlp="moe", gated=False, positions="none", norms=1, bias_keys=("attention_bias", "mlp_bias"),
        letters={"M": ("linear", ""), "*": ("full", ""), "-": ("", "dense"), "E": ("", "moe")},
        keys={"experts": "n_routed_experts", "shared_width": "moe_shared_expert_intermediate_size",
              "state_key_heads": "n_groups", "state_value_heads": "mamba_num_heads", "state_key_dim": "ssm_state_size",
              "state_value_dim": "mamba_head_dim", "conv_width": "conv_kernel", "latent_width": "moe_latent_size",
              "shared_experts": "n_shared_experts_of_expert_width"},
        defaults={"tied": False, "shared_width": 0, "latent_width": 0, "conv_width": 4}),
    "phi3": Architecture(windowed="always", defaults={"tied": False}),
    "glm4_moe": Architecture(
        mlp="moe", bias_keys=("attention_bias",),
        keys={"experts": "n_routed_experts", "qk_norm": "use_qk_norm"},
        defaults={"tied": False, "shared_experts": 0, "dense_layers": 0, "qk_norm": False, "expert_step": 1,
                  "prediction": 0}),
    "minimax_m2": Architecture(
        mlp="moe", qk_norm=True, keys={"experts": "num_local_experts", "expert_width": "intermediate_size"},
        defaults={"tied": False}),
    "olmo": Architecture(norms=0, bias_keys=("attention_bias",), defaults={"tied": False}),
    "olmo2": Architecture(qk_norm=True, bias_keys=("attention_bias",), defaults={"tied": False}),
    "olmoe": Architecture(mlp="moe", qk_norm=True, keys={"expert_width": "intermediate_size"},
                          defaults={"tied": False}),
    "smollm3": Architecture(bias_keys=("attention_bias", "mlp_bias"), defaults={"tied": True}),
    "dots1": Architecture(
        mlp="moe", qk_norm=True, bias_keys=("attention_bias",), keys={"experts": "n_routed_experts"},
        defaults={"tied": False, "shared_experts": 0, "dense_layers": 0}),
    "ernie4_5": Architecture(defaults={"tied": True}),
    "ernie4_5_moe": Architecture(
        mlp="moe", keys={"experts": "moe_num_experts", "experts_per_token": "moe_k",
                         "shared_experts": "moe_num_shared_experts", "dense_layers": "moe_layer_start_index",
                         "expert_step": "moe_layer_interval"},
        defaults={"tied": True, "shared_experts": 0, "dense_layers": 0, "expert_step": 1}),
    "granitemoe": Architecture(
        mlp="moe", keys={"experts": "num_local_experts", "expert_width": "intermediate_size"},
        bias_keys=("attention_bias",), defaults={"tied": False}),
}
