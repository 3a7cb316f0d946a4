"""Memory of one chip in a deployment: weights, KV cache, activations.

Axes: D = deployment.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from serried.compiler.gemm import ELEMENT_BYTES
from serried.planner.spec import FORMATS, Machine
from serried.serving.spec import CACHE_FORMATS, Deployments
from serried.workload import parameters
from serried.workload.spec import Block, Floats, Model, Serving

__all__ = ["PREFILL_BUDGET_TOKENS", "USABLE_FRACTION", "activation_bytes", "cache_bytes", "cache_bytes_per_request",
           "largest_batch", "serving_memory",
           "weight_bytes", "wide_attention"]

#: Share of HBM that engines use by default; the rest is left to the runtime, graphs and fragmentation.
USABLE_FRACTION = 0.9
#: Tokens of prefill that an engine takes into one step by default.
PREFILL_BUDGET_TOKENS = 8192


def wide_attention(model: Model, weight_format: str) -> bool:
    """Whether the projections of attention keep two bytes an element under this format of weights.

    Checkpoints of four bits whose models route tokens to experts narrow the experts alone, for there the weights are:
    gpt-oss (MXFP4, its model card, section 2.1), DeepSeek-R1-FP4 and those that NVIDIA/Model-Optimizer makes alike.
    """
    return ELEMENT_BYTES[weight_format] < 1.0 and any(block.mlp is not None and block.mlp.experts
                                                      for block in model.blocks)


def weight_bytes(model: Model, rows: Deployments) -> Floats:
    """Bytes of weights on the fullest chip.

    The blocks are spread evenly over the stages, the vocabulary stands on the first and the last. Quantised weights
    are those of the matrices in the blocks; embedding, head, router and norms stay in two bytes, and so does the
    attention where `wide_attention` says so.
    """
    counted = parameters(model)
    element = np.array([ELEMENT_BYTES[name] for name in FORMATS])[rows.weight_format]
    attention = np.array([2.0 if wide_attention(model, name) else ELEMENT_BYTES[name]
                          for name in FORMATS])[rows.weight_format]
    in_blocks = np.zeros(len(rows))
    for index, block in enumerate(model.blocks):
        dense = (counted.mlp_B[index] + counted.shared_B[index]) / rows.tp
        experts = counted.experts_B[index] / (rows.ep * rows.expert_tensor)
        rest = counted.router_B[index] + counted.norms_B[index]
        in_blocks += block.count * ((dense + experts) * element + rest * 2.0
                                    + counted.attention_B[index] / rows.tp * attention)
    per_stage = np.ceil(model.layer_count / rows.pp) / model.layer_count
    vocabulary = np.where(rows.pp > 1, max(counted.embedding, counted.head), counted.embedding + counted.head)
    return np.asarray(in_blocks * per_stage + vocabulary / rows.tp * 2.0)


def cache_bytes_per_request(job: Serving, rows: Deployments) -> Floats:
    """Bytes that one request's cache takes on one chip of its group when its context is full."""
    return cache_bytes(job.model, rows, float(job.input_tokens + job.output_tokens))


def cache_bytes(model: Model, rows: Deployments, tokens: float) -> Floats:
    """Bytes on one chip of its group of the cache of one request with a context of so many tokens.

    Key-value heads are cut over tp until one is left; a latent (MLA) cache is held whole by every chip. A window bounds
    the context; a linear mixer holds a state instead.
    """
    element = np.array(list(CACHE_FORMATS.values()))[rows.cache_format]
    total = np.zeros(len(rows))
    for block in model.blocks:
        total += block.count * _block_cache_bytes(block, tokens, element, rows.tp.astype(np.float64))
    return np.asarray(total * np.ceil(model.layer_count / rows.pp) / model.layer_count)


def _block_cache_bytes(block: Block, tokens: float, element_bytes: Floats, tp: Floats) -> Floats:
    spec = block.attention
    if spec is None:
        return np.zeros_like(element_bytes)
    if spec.kind == "linear":
        state = spec.state_value_heads * spec.state_key_dim * spec.state_value_dim
        convolved = spec.conv_width * (2 * spec.state_key_heads * spec.state_key_dim
                                       + spec.state_value_heads * spec.state_value_dim)
        return np.asarray((4.0 * state + 2.0 * convolved) / tp)
    held = min(tokens, spec.window_tokens) if spec.window_tokens else tokens
    if spec.kind == "mla":
        return np.asarray(held * (spec.kv_rank + spec.rope_head_dim) * element_bytes)
    heads_here = np.ceil(spec.kv_heads / tp)
    return np.asarray(held * heads_here * (spec.head_dim + spec.value_head_dim) * element_bytes)


def activation_bytes(model: Model, rows: Deployments, budget_tokens: int = PREFILL_BUDGET_TOKENS,
                     sequences: int = 512) -> Floats:
    """Bytes of the largest working set: one prefill step of the token budget, and the logits of a decode batch."""
    widest = max([model.hidden] + [max(block.mlp.width, block.mlp.shared_width) for block in model.blocks if block.mlp])
    routed = max([block.mlp.experts_per_token for block in model.blocks if block.mlp] + [1])
    working = budget_tokens * (4.0 * model.hidden + 3.0 * max(1, routed) * widest / rows.tp) * 2.0
    logits = sequences * model.vocab / rows.tp * 4.0
    return np.asarray(working + logits)


def largest_batch(job: Serving, machine: Machine, rows: Deployments) -> Floats:
    """Requests that one replica can hold at once by memory and by its own limit; 0 when not even one fits."""
    free = machine.chip.need("hbm_capacity") * USABLE_FRACTION - weight_bytes(job.model, rows)
    free = free - activation_bytes(job.model, rows)
    per_group = np.floor(np.maximum(free, 0.0) / np.maximum(cache_bytes_per_request(job, rows), 1.0))
    held = per_group * rows.attention_dp
    return np.asarray(np.where(rows.max_batch > 0, np.minimum(held, rows.max_batch), held))


def serving_memory(job: Serving, machine: Machine, rows: Deployments, batch: Floats) -> Mapping[str, Floats]:
    """Bytes on the fullest chip by SERVING_MEMORY_CAUSES when `batch` requests run on each replica."""
    per_group = np.ceil(batch / rows.attention_dp)
    reserved = machine.chip.need("hbm_capacity") * (1.0 - USABLE_FRACTION)
    return {"weights": weight_bytes(job.model, rows),
            "kv_cache": per_group * cache_bytes_per_request(job, rows),
            "activations": activation_bytes(job.model, rows),
            "reserved": np.full(len(rows), reserved)}
