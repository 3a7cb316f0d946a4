"""A layout as the command line of Megatron-LM's `pretrain_gpt.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serried.emit.documented import check_words
from serried.errors import BadInput
from serried.workload import AttentionSpec, MlpSpec, Model, Training

__all__ = ["megatron_arguments"]

_FSDP = ["--use-distributed-optimizer", "--use-megatron-fsdp", "--data-parallel-sharding-strategy"]
_SHARDING = {0: [], 1: ["--use-distributed-optimizer"], 2: [*_FSDP, "optim_grads"], 3: [*_FSDP, "optim_grads_params"]}
_RECOMPUTE = {"none": [], "selective": ["--recompute-granularity", "selective", "--recompute-modules", "core_attn"],
              "attention": ["--recompute-granularity", "selective", "--recompute-modules", "core_attn"],
              "mlp": ["--recompute-granularity", "selective", "--recompute-modules", "mlp"],
              "full": ["--recompute-granularity", "full", "--recompute-method", "uniform",
                       "--recompute-num-layers", "1"]}
_FORMAT = {"bf16": ["--bf16"], "fp16": ["--fp16"],
           "fp8": ["--bf16", "--fp8-format", "hybrid", "--fp8-recipe", "tensorwise"],
           "fp8-block": ["--bf16", "--fp8-format", "e4m3", "--fp8-recipe", "blockwise"],
           "mxfp8": ["--bf16", "--fp8-format", "e4m3", "--fp8-recipe", "mxfp8"],
           "nvfp4": ["--bf16", "--fp4-format", "e2m1", "--fp4-recipe", "nvfp4"]}


def megatron_arguments(job: Training, layout: Mapping[str, Any]) -> list[str]:
    """The words after `pretrain_gpt.py` for one layout (a row of `Layouts.row`).

    Raises BadInput when Megatron-LM has no word for what the model or the layout asks.
    """
    words = [*_model_words(job.model), *_layout_words(job.model, layout),
             "--seq-length", str(job.sequence_tokens),
             "--max-position-embeddings", str(max(job.sequence_tokens, job.model.learned_positions)),
             "--micro-batch-size", str(layout["micro_batch"]), "--global-batch-size", str(job.global_batch_sequences),
             "--transformer-impl", "transformer_engine", "--cross-entropy-loss-fusion",
             "--tokenizer-type", "NullTokenizer", "--vocab-size", str(job.model.vocab - 1), "--mock-data",
             "--train-iters", "50", "--lr", "1e-4", "--log-interval", "1", "--log-throughput"]
    check_words(words, "megatron")
    return words


def _model_words(model: Model) -> list[str]:
    attention, mlp = _main_attention(model), _main_mlp(model)
    words = ["--num-layers", str(model.layer_count), "--hidden-size", str(model.hidden),
             "--num-attention-heads", str(attention.heads),
             "--normalization", "LayerNorm" if model.norm_bias else "RMSNorm",
             "--position-embedding-type", "learned_absolute" if model.learned_positions else "rope"]
    dense = [block.mlp for block in model.blocks if block.mlp is not None and not block.mlp.experts]
    words += ["--ffn-hidden-size", str((dense or [mlp])[0].width)]
    words += _attention_words(attention)
    words += ["--swiglu"] if mlp.gated else []
    words += [] if mlp.bias else ["--disable-bias-linear"]
    words += ["--add-qkv-bias"] if attention.qkv_bias and not mlp.bias else []
    words += [] if model.tied_embeddings else ["--untie-embeddings-and-output-weights"]
    words += ["--mtp-num-layers", str(model.prediction_blocks)] if model.prediction_blocks else []
    return words + (_expert_words(model, mlp) if mlp.experts else [])


def _attention_words(attention: AttentionSpec) -> list[str]:
    if attention.kind == "mla":
        words = ["--multi-latent-attention", "--kv-lora-rank", str(attention.kv_rank),
                 "--qk-head-dim", str(attention.head_dim - attention.rope_head_dim),
                 "--qk-pos-emb-head-dim", str(attention.rope_head_dim), "--v-head-dim", str(attention.value_head_dim)]
        return words + (["--q-lora-rank", str(attention.query_rank)] if attention.query_rank else [])
    words = ["--kv-channels", str(attention.head_dim)]
    if attention.kv_heads != attention.heads:
        words += ["--group-query-attention", "--num-query-groups", str(attention.kv_heads)]
    words += ["--qk-layernorm"] if attention.qk_norm else []
    return words + (["--window-size", f"{attention.window_tokens},0"] if attention.window_tokens else [])


def _expert_words(model: Model, mlp: MlpSpec) -> list[str]:
    pattern = "+".join(f"[{int(bool(block.mlp and block.mlp.experts))}]*{block.count}" for block in model.blocks)
    words = ["--num-experts", str(mlp.experts), "--moe-router-topk", str(mlp.experts_per_token),
             "--moe-ffn-hidden-size", str(mlp.width), "--moe-layer-freq", f"({pattern})", "--moe-grouped-gemm",
             "--moe-token-dispatcher-type", "alltoall"]
    return words + (["--moe-shared-expert-intermediate-size", str(mlp.shared_width)] if mlp.shared_width else [])


def _layout_words(model: Model, layout: Mapping[str, Any]) -> list[str]:
    if layout["number_format"] not in _FORMAT:
        raise BadInput(field="number_format", value=layout["number_format"], expected=f"one of {', '.join(_FORMAT)}",
                       remedy="Megatron-LM trains in these formats only; pin another one.")
    if layout["schedule"] == "zero-bubble":
        raise BadInput(field="schedule", value="zero-bubble", expected="1f1b or interleaved",
                       remedy="Megatron-LM has no zero-bubble schedule; pin schedule=1f1b|interleaved.")
    words = ["--tensor-model-parallel-size", str(layout["tp"]), "--pipeline-model-parallel-size", str(layout["pp"]),
             "--context-parallel-size", str(layout["cp"])]
    words += ["--num-virtual-stages-per-pipeline-rank", str(layout["virtual_stages"])] * (layout["virtual_stages"] > 1)
    words += ["--sequence-parallel"] if layout["sequence_parallel"] else []
    if any(block.mlp and block.mlp.experts for block in model.blocks):
        words += ["--expert-model-parallel-size", str(layout["ep"]),
                  "--expert-tensor-parallel-size", str(layout["expert_tp"])]
    sharded = layout["sharding"] > 0
    words += _SHARDING[layout["sharding"]] + _RECOMPUTE[layout["recompute"]] + _FORMAT[layout["number_format"]]
    words += ["--overlap-grad-reduce"] if layout["overlap_data"] else []
    words += ["--overlap-param-gather"] if layout["overlap_data"] and sharded else []
    return words + (["--tp-comm-overlap"] if layout["overlap_tensor"] and layout["sequence_parallel"] else [])


def _main_attention(model: Model) -> AttentionSpec:
    kinds = [block.attention for block in model.blocks if block.attention is not None]
    if not kinds or any(kind.kind == "linear" for kind in kinds):
        raise BadInput(field="model", value=model.name, expected="full or latent attention in every block",
                       remedy="pretrain_gpt.py has no linear-attention hybrid; emit trace only.")
    return kinds[-1]


def _main_mlp(model: Model) -> MlpSpec:
    found = [block.mlp for block in model.blocks if block.mlp is not None]
    experts = [mlp for mlp in found if mlp.experts]
    return (experts or found)[0]
