"""Nouns of the workload: model, operators, jobs.

Axes: S = shape point, one entry per distinct sharding and batch shape (not per layout: layouts gather from it).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Attend", "AttentionKind", "AttentionSpec", "Block", "Elementwise", "Exchange", "Floats", "Gemm", "GroupedGemm",
    "MlpSpec", "Model", "Operator", "Phase", "Serving", "Shards", "Training",
]

Floats: TypeAlias = NDArray[np.float64]
AttentionKind = Literal["full", "mla", "linear"]
Phase = Literal["forward", "backward_data", "backward_weight"]


# --- the model -------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionSpec:
    """Attention of one block.

    kind: "full" covers MHA, GQA and MQA by `kv_heads`; "mla" is multi-head latent attention; "linear" is a gated
    delta-rule or state-space mixer whose state does not grow with the context.
    head_dim: of queries and keys; in MLA the part without and the part with rotary positions together.
    window_tokens: 0 = the whole context, else a sliding window; `chunked`: blocks of that many tokens instead.
    query_rank, kv_rank, rope_head_dim: MLA only (0 query_rank = no query compression).
    qk_norm, output_gate, qkv_bias, output_bias, sinks: parameters and memory-bound work they add; `rotary`: positions
    are rotated into queries and keys (False: learned table, linear bias or none).
    state_*, conv_width: linear only; `state_space`: a Mamba-2 mixer, else a gated delta rule.
    """

    kind: AttentionKind
    heads: int
    kv_heads: int
    head_dim: int
    value_head_dim: int
    window_tokens: int = 0
    query_rank: int = 0
    kv_rank: int = 0
    rope_head_dim: int = 0
    qk_norm: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    output_gate: bool = False
    sinks: bool = False
    rotary: bool = True
    chunked: bool = False
    state_space: bool = False
    state_key_heads: int = 0
    state_value_heads: int = 0
    state_key_dim: int = 0
    state_value_dim: int = 0
    conv_width: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpSpec:
    """Feed-forward part of one block: dense (`experts` = 0) or a mixture of experts.

    width: inner width of the dense MLP, or of one routed expert.
    gated: three matrices (gate, up, down) instead of two.
    shared_width: inner width of the shared expert(s) together, 0 = none.
    shared_gate: the shared expert's output is weighed by a gate of its own.
    latent_width: width the experts work in when it is not the hidden width (0 = hidden).
    route_groups, groups_per_token: experts stand in groups, and a token takes its experts from so many of them (1 = no
    groups).
    """

    width: int
    gated: bool
    bias: bool = False
    experts: int = 0
    experts_per_token: int = 0
    shared_width: int = 0
    shared_gate: bool = False
    router_bias: bool = False
    latent_width: int = 0
    route_groups: int = 1
    groups_per_token: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One kind of transformer block and how many of it there are, in the order of the model.

    Either part may be absent (hybrids have blocks of a mixer alone or an MLP alone). `norms`: normalisations a block.
    """

    count: int
    attention: AttentionSpec | None
    mlp: MlpSpec | None
    norms: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """An architecture. `blocks` lists runs of equal blocks; interleaved kinds are listed as runs of their counts.

    learned_positions: rows of a learned position table, 0 with rotary or ALiBi.
    prediction_blocks: multi-token-prediction blocks beyond the main ones (counted apart from `layer_count`).
    adapter_rank: 0 = all weights are trained; else low-rank adapters of that rank on frozen weights, on the projections
    of attention and (adapter_mlp) of the dense MLP.
    """

    name: str
    hidden: int
    vocab: int
    blocks: tuple[Block, ...]
    tied_embeddings: bool = False
    learned_positions: int = 0
    norm_bias: bool = False
    max_positions: int = 0
    prediction_blocks: int = 0
    adapter_rank: int = 0
    adapter_mlp: bool = True
    source: str = ""

    @property
    def layer_count(self) -> int:
        """Transformer blocks in the main stack."""
        return sum(block.count for block in self.blocks)


# --- operators: what one block, or the head, asks of one chip ----

@dataclass(frozen=True, slots=True, kw_only=True)
class Shards:
    """How one copy of the model is cut, and the tokens one chip sees, as columns over S (broadcast against each other).

    sequences: sequences in the micro-batch of one chip (before the context axis cuts them).
    query_tokens, context_tokens: new tokens and total keys per sequence; equal in training and prefill.
    tensor, context, expert: degrees. tokens on a chip between blocks = sequences * query_tokens / context
    (and / tensor with sequence parallelism, for elementwise work outside the tensor-parallel region).
    expert_tensor: degree by which the matrices of one expert are cut; None = `tensor`.
    """

    sequences: Floats
    query_tokens: Floats
    context_tokens: Floats
    tensor: Floats
    context: Floats
    expert: Floats
    sequence_parallel: NDArray[np.bool_]
    expert_tensor: Floats | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """C[m, n] = A[m, k] B[k, n], `batch` times; arrays over S.

    phase: the two products of backward are told apart, so that a schedule can postpone the weight gradients.
    """

    name: str
    m: Floats
    n: Floats
    k: Floats
    batch: Floats | float = 1.0
    high_precision: bool = False  # stays in bf16 when the recipe lowers the format (router, head, attention products)
    weight: bool = True           # B is a parameter (so that a quantised weight is read in its format)
    phase: Phase = "forward"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedGemm:
    """One gemm per local expert: `rows` in all (tokens x experts per token on this chip), cut over `groups`.

    Forward and data gradient: [rows, k] x [k, n] per group. Weight gradient: n x k is the matrix of one expert and
    `rows` is contracted. The work is 2 rows n k in each.
    """

    name: str
    groups: Floats
    rows: Floats
    n: Floats
    k: Floats
    phase: Phase = "forward"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attend:
    """Scaled dot-product attention of one chip; arrays over S.

    query_tokens, context_tokens per sequence; heads and kv_heads on this chip; causal halves the work when
    query_tokens = context_tokens. decode: one (or a few) new tokens against a cache.
    latent: MLA with the weight-absorbed product (decode): one shared latent head of kv_rank + rope dims is read.
    """

    name: str
    sequences: Floats
    query_tokens: Floats
    context_tokens: Floats
    heads: Floats
    kv_heads: Floats
    head_dim: int
    value_head_dim: int
    causal: bool = True
    window_tokens: int = 0
    decode: bool = False
    latent: bool = False
    backward: bool = False
    linear: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Elementwise:
    """Memory-bound work: bytes moved to and from HBM, unfused; arrays over S.

    fusible: a compiler or a hand-fused kernel can remove most of the traffic (bias, activation, residual, rope, cast);
    False where a pass over memory is needed anyway (embedding gather, optimizer, loss, permutation).
    kernels: how many eager launches it stands for.
    """

    name: str
    read_bytes: Floats
    write_bytes: Floats
    fusible: bool = True
    kernels: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A collective that the operator stream waits for, on the axis it crosses; arrays over S. bytes: see fabric.

    payload_bytes: the full message of the collective as `fabric.collective_time_s` counts it; 0 where the degree is 1.
    beside: name of the operator that usual implementations run at the same time, "" = the stream waits.
    """

    name: str
    operation: Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send"]
    axis: Literal["tensor", "context", "expert", "pipeline", "data"]
    payload_bytes: Floats
    beside: str = ""


Operator: TypeAlias = Gemm | GroupedGemm | Attend | Elementwise | Exchange


# --- jobs ------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One training job: `sequence_tokens` x `global_batch_sequences` per optimizer step."""

    model: Model
    sequence_tokens: int
    global_batch_sequences: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A steady load on one deployment: `input_tokens` in, `output_tokens` out, `concurrency` requests in flight.

    queued: all `concurrency` requests are given at once and none follows (an offline batch), instead of a loop.
    """

    model: Model
    input_tokens: int
    output_tokens: int
    concurrency: int
    cached_tokens: int = 0
    queued: bool = False
    notes: str = field(default="", repr=False)
