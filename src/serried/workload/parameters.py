"""How many parameters a model has, exactly, by part; all of them, and those that one token passes through."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serried.workload.spec import AttentionSpec, Block, Floats, MlpSpec, Model

__all__ = ["ChipParameters", "Parameters", "chip_parameters", "parameters"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Counts; `_B`: of ONE block of each run in `model.blocks`, 0 where the part is absent.

    total: without adapters and without prediction blocks, which stand apart. active: the total without the experts
    that a token does not visit; some publishers leave out the embedding table as well.
    embedding: token and position tables. head: 0 when tied. experts_B: all routed experts together.
    """

    total: int
    active: int
    embedding: int
    head: int
    final_norm: int
    prediction: int
    adapter: int
    attention_B: tuple[int, ...]
    mlp_B: tuple[int, ...]
    experts_B: tuple[int, ...]
    shared_B: tuple[int, ...]
    router_B: tuple[int, ...]
    norms_B: tuple[int, ...]

    @property
    def block_B(self) -> tuple[int, ...]:
        """All of one block of each run."""
        return tuple(map(sum, zip(self.attention_B, self.mlp_B, self.experts_B, self.shared_B, self.router_B,
                                  self.norms_B, strict=True)))


def parameters(model: Model) -> Parameters:
    """Counts of `model`."""
    hidden = model.hidden
    norm = hidden * (2 if model.norm_bias else 1)
    embedding = model.vocab * hidden + model.learned_positions * hidden
    head = 0 if model.tied_embeddings else model.vocab * hidden
    parts = [_block_parts(model, block) for block in model.blocks]
    total, active = embedding + head + norm, embedding + head + norm
    for block, part in zip(model.blocks, parts, strict=True):
        whole = sum(part)
        idle = 0
        if block.mlp is not None and block.mlp.experts:
            idle = part[2] // block.mlp.experts * (block.mlp.experts - block.mlp.experts_per_token)
        total += block.count * whole
        active += block.count * (whole - idle)
    last = sum(parts[-1]) if parts else 0
    prediction = model.prediction_blocks * (last + 2 * hidden * hidden + 3 * norm)
    columns = list(zip(*parts, strict=True)) if parts else [()] * 6
    return Parameters(total=total, active=active, embedding=embedding, head=head, final_norm=norm,
                      prediction=prediction, adapter=sum(
                          block.count * _adapter(model, block) for block in model.blocks),
                      attention_B=columns[0], mlp_B=columns[1], experts_B=columns[2], shared_B=columns[3],
                      router_B=columns[4], norms_B=columns[5])


def _block_parts(model: Model, block: Block) -> tuple[int, int, int, int, int, int]:
    """attention, dense MLP, experts, shared experts, router, norms of one block."""
    attention = _attention(model.hidden, block.attention) if block.attention else 0
    norms = block.norms * model.hidden * (2 if model.norm_bias else 1)
    mlp = block.mlp
    if mlp is None:
        return attention, 0, 0, 0, 0, norms
    if not mlp.experts:
        return attention, _mlp(model.hidden, mlp.width, mlp), 0, 0, 0, norms
    inner = mlp.latent_width or model.hidden
    router = model.hidden * mlp.experts + (mlp.experts if mlp.router_bias else 0)
    router += model.hidden if mlp.shared_gate else 0
    latent = 2 * model.hidden * mlp.latent_width
    shared = _mlp(model.hidden, mlp.shared_width, mlp) if mlp.shared_width else 0
    return attention, 0, mlp.experts * _mlp(inner, mlp.width, mlp), shared + latent, router, norms


def _mlp(hidden: int, width: int, mlp: MlpSpec) -> int:
    up_count = 2 if mlp.gated else 1
    return (up_count + 1) * hidden * width + ((up_count * width + hidden) if mlp.bias else 0)


def _attention(hidden: int, spec: AttentionSpec) -> int:
    if spec.kind == "linear":
        return _mixer(hidden, spec)
    if spec.kind == "mla":
        query = hidden * spec.query_rank + spec.query_rank + spec.query_rank * spec.heads * spec.head_dim \
            if spec.query_rank else hidden * spec.heads * spec.head_dim
        down = hidden * (spec.kv_rank + spec.rope_head_dim) + spec.kv_rank
        up = spec.kv_rank * spec.heads * (spec.head_dim - spec.rope_head_dim + spec.value_head_dim)
        return query + down + up + spec.heads * spec.value_head_dim * hidden + (hidden if spec.output_bias else 0)
    query = spec.heads * spec.head_dim * (2 if spec.output_gate else 1)
    columns = query + spec.kv_heads * (spec.head_dim + spec.value_head_dim)
    return (hidden * columns + spec.heads * spec.value_head_dim * hidden + (columns if spec.qkv_bias else 0)
            + (hidden if spec.output_bias else 0) + (2 * spec.head_dim if spec.qk_norm else 0)
            + (spec.heads if spec.sinks else 0))


def _mixer(hidden: int, spec: AttentionSpec) -> int:
    """Gated delta rule: q, k, v, output gate and two scalars a value head; or Mamba-2: x, gate, B, C, one scalar."""
    keys = spec.state_key_heads * spec.state_key_dim
    values = spec.state_value_heads * spec.state_value_dim
    scalars = spec.state_value_heads * (1 if spec.state_space else 2)
    mixed = 2 * keys + values
    per_head = spec.state_value_heads * (3 if spec.state_space else 2)
    norm = values if spec.state_space else spec.state_value_dim
    conv = mixed * spec.conv_width + (mixed if spec.state_space else 0)
    return hidden * (mixed + values + scalars) + conv + per_head + norm + values * hidden


def _adapter(model: Model, block: Block) -> int:
    """Low-rank adapters on the projections of attention and of the dense MLP of one block."""
    if not model.adapter_rank:
        return 0
    hidden, spec, ends = model.hidden, block.attention, 0
    if spec is not None and spec.kind == "full":
        ends += hidden + spec.heads * spec.head_dim + spec.kv_heads * (spec.head_dim + spec.value_head_dim)
        ends += spec.heads * spec.value_head_dim + hidden
    if model.adapter_mlp and block.mlp is not None and not block.mlp.experts:
        ends += hidden + block.mlp.width * (2 if block.mlp.gated else 1) + block.mlp.width + hidden
    return model.adapter_rank * ends


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipParameters:
    """Parameters of one block on one chip over S: `dense` are reduced over data and context ranks, `expert` over the
    ranks that hold the same experts."""

    dense: Floats
    expert: Floats


def chip_parameters(model: Model, block: Block, *, tensor: Floats, expert: Floats,
                    expert_tensor: Floats | None = None) -> ChipParameters:
    """What one chip holds of one block: matrices are cut over `tensor` (experts over `expert` x `expert_tensor`).

    Norms, router and latent down-projections are not cut; key-value heads are repeated when fewer than the ranks.
    """
    attention, mlp, experts, shared, router, norms = _block_parts(model, block)
    whole = np.zeros(np.broadcast(tensor, expert).shape)
    spec = block.attention
    held = whole + attention / tensor
    if spec is not None and spec.kind == "mla":
        down = model.hidden * (spec.query_rank + spec.kv_rank + spec.rope_head_dim) + spec.query_rank + spec.kv_rank
        held = whole + (attention - down) / tensor + down
    elif spec is not None and spec.kind == "full":
        kv = model.hidden * spec.kv_heads * (spec.head_dim + spec.value_head_dim)
        held = whole + (attention - kv) / tensor + kv * np.maximum(1.0 / tensor, 1.0 / spec.kv_heads)
    latent = 2 * model.hidden * block.mlp.latent_width if block.mlp is not None and block.mlp.experts else 0
    cut = tensor if expert_tensor is None else expert_tensor
    return ChipParameters(dense=held + (mlp + shared - latent) / tensor + latent + router + norms,
                          expert=whole + experts / (expert * cut))
