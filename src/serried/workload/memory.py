"""What stays in memory: the activations that backward needs, and the cache that decode reads.

Activations are a list of tensors, named after the operators that need them, so that RECOMPUTED says of both which
operators run again and which tensors need not be kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serried.workload.attention import rank_heads
from serried.workload.linear import Region, floats, region_of
from serried.workload.mlp import expert_rows, expert_tensor
from serried.workload.operators import RECOMPUTED
from serried.workload.spec import AttentionSpec, Block, Floats, MlpSpec, Model, Shards

__all__ = ["KeptTensor", "activation_bytes", "cache_bytes", "kept_tensors", "kv_bytes_per_token"]

#: Bytes of an element kept only as the input of a quantised product: the number and its share of the scales.
PRODUCT_INPUT_BYTES = {"fp8": 1.0, "fp8-block": 1.0 + 4.0 / 128, "mxfp8": 1.0 + 1.0 / 32, "nvfp4": 0.5 + 1.0 / 16,
                       "int8": 1.0}
#: Tokens between two states that a chunked linear mixer keeps.
_CHUNK_TOKENS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTensor:
    """One tensor kept from forward to backward; bytes over S."""

    name: str
    kept_bytes: Floats


def activation_bytes(model: Model, block: Block, shards: Shards, *, recompute: str = "none",
                     element_bytes: float = 2.0, number_format: str = "bf16", fused_attention: bool = True,
                     fused_activation: bool = True, dropout: bool | None = None) -> Floats:
    """Bytes that ONE block keeps for the backward of ONE micro-batch on one chip. See `kept_tensors`."""
    kept = kept_tensors(model, block, shards, recompute=recompute, element_bytes=element_bytes,
                        number_format=number_format, fused_attention=fused_attention,
                        fused_activation=fused_activation, dropout=dropout)
    return floats(sum(tensor.kept_bytes for tensor in kept))


def kept_tensors(model: Model, block: Block, shards: Shards, *, recompute: str = "none", element_bytes: float = 2.0,
                 number_format: str = "bf16", fused_attention: bool = True, fused_activation: bool = True,
                 dropout: bool | None = None) -> tuple[KeptTensor, ...]:
    """The tensors, after Korthikanti et al. 2022, section 4, extended to what came since.

    A plain block with unfused attention and dropout keeps s b h (10 + 24/t + 5 a s / (h t)) bytes in half precision.
    fused_attention keeps one number a query and head instead of the score matrix; `dropout` follows its absence unless
    said. fused_activation=False keeps what each single kernel of a gated MLP needs. A quantised `number_format` keeps
    in its own format what only a quantised product reads again.
    recompute keeps the input of what is computed again (a key of RECOMPUTED, or "operators").
    """
    region = region_of(shards, phase="forward", element_bytes=element_bytes, adapter_rank=model.adapter_rank,
                       decode=False)
    kept = _Kept(region=region, product_bytes=PRODUCT_INPUT_BYTES.get(number_format, element_bytes),
                 masks=(not fused_attention) if dropout is None else dropout)
    parts = (block.attention is not None) + (block.mlp is not None)
    hidden_S = region.resting_tokens * model.hidden
    after = max(block.norms - parts, 0) / max(parts, 1)
    found: list[KeptTensor] = []
    if block.attention is not None:
        found += [kept.element("input.attention", hidden_S), kept.product("norm.attention_output", hidden_S),
                  *_attention(model, block.attention, kept, fused_attention=fused_attention),
                  kept.element("norm.attention_after", hidden_S * after),
                  kept.mask("attention.dropout_mask", hidden_S)]
    if block.mlp is not None:
        routed = kept.element if block.mlp.experts else kept.product     # a router reads the unquantised input
        found += [kept.element("input.mlp", hidden_S), routed("norm.mlp_output", hidden_S),
                  *_mlp(model, block.mlp, kept, fused_activation=fused_activation),
                  kept.element("norm.mlp_after", hidden_S * after),
                  kept.mask("mlp.dropout_mask", hidden_S)]
    if recompute == "full":
        return tuple(found[:1])
    if recompute == "operators":
        return tuple(_alternate(model, block, kept, found))
    again = RECOMPUTED[recompute]
    return tuple(tensor for tensor in found if not (again and tensor.name.startswith(again)))


def _alternate(model: Model, block: Block, kept: _Kept, found: list[KeptTensor]) -> list[KeptTensor]:
    """What is kept when attention and every second product are not run again: see `recomputed_operators`."""
    region, spec, mlp = kept.region, block.attention, block.mlp
    core = ("attention.core", "attention.output", "attention.gate")
    left = found[:1] + [tensor for tensor in found if tensor.name.startswith(core)]
    if spec is not None and spec.kind != "linear":
        heads, kv_heads = rank_heads(spec, region.shards.tensor)
        left.append(kept.element("attention.query_value", region.inner_tokens * (
            heads * spec.head_dim + kv_heads * spec.value_head_dim)))
    width = 0 if mlp is None else mlp.shared_width if mlp.experts else mlp.width
    if width:
        left.append(kept.element("mlp.up_output", region.inner_tokens * width / region.shards.tensor))
        if mlp is not None and mlp.gated:
            left.append(kept.element("mlp.output", region.resting_tokens * model.hidden))
    return left


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """Makes tensors of the region's widths."""

    region: Region
    product_bytes: float
    masks: bool

    def element(self, name: str, elements: Floats) -> KeptTensor:
        """A tensor in the format of activations."""
        return KeptTensor(name=name, kept_bytes=floats(elements * self.region.element_bytes))

    def product(self, name: str, elements: Floats) -> KeptTensor:
        """A tensor that only a product reads again."""
        return KeptTensor(name=name, kept_bytes=floats(elements * self.product_bytes))

    def copy(self, name: str, elements: Floats) -> KeptTensor:
        """The quantised copy, when there is one, of a tensor that is kept anyway."""
        quantised = self.product_bytes < self.region.element_bytes
        return KeptTensor(name=name, kept_bytes=floats(elements * (self.product_bytes if quantised else 0.0)))

    def mask(self, name: str, elements: Floats) -> KeptTensor:
        """A dropout mask, one byte an element."""
        return KeptTensor(name=name, kept_bytes=floats(elements * (1.0 if self.masks else 0.0)))


def _attention(model: Model, spec: AttentionSpec, kept: _Kept, *, fused_attention: bool) -> list[KeptTensor]:
    region = kept.region
    rows, resting, shards = region.inner_tokens, region.resting_tokens, region.shards
    heads, kv_heads = rank_heads(spec, shards.tensor)
    if spec.kind == "linear":
        return _mixer(spec, kept)
    if spec.kind == "mla":
        heads = kv_heads = floats(spec.heads / shards.tensor)
    found: list[KeptTensor] = []
    if spec.kind == "mla":
        latents = resting * (2.0 * spec.kv_rank + spec.rope_head_dim + 2.0 * spec.query_rank)
        found.append(kept.element("attention.latents", latents))
    query_key = rows * (heads + kv_heads) * spec.head_dim
    out = rows * heads * spec.value_head_dim
    found.append(kept.element("attention.query_key_value", query_key + rows * kv_heads * spec.value_head_dim))
    if spec.qk_norm:
        found.append(kept.element("attention.qk_norm_input", query_key))
    if fused_attention:
        found.append(KeptTensor(name="attention.core_sums", kept_bytes=floats(rows * heads * 4.0)))
    else:
        scores = rows * heads * shards.context_tokens
        found.append(kept.element("attention.core_scores", scores * (2.0 if kept.masks else 1.0)))
        found.append(kept.mask("attention.core_mask", scores))
    found.append(kept.element("attention.output", out))
    found.append(kept.copy("attention.output_copy", out))
    if spec.output_gate:
        found.append(kept.element("attention.gate", 2.0 * out))
    return found


def _mixer(spec: AttentionSpec, kept: _Kept) -> list[KeptTensor]:
    """Inputs and outputs of the convolution, the gate, the core's output before and after its norm, chunk states."""
    rows, tensor = kept.region.inner_tokens, kept.region.shards.tensor
    values = rows * spec.state_value_heads * spec.state_value_dim / tensor
    mixed = 2.0 * rows * spec.state_key_heads * spec.state_key_dim / tensor + values
    states = rows / _CHUNK_TOKENS * spec.state_value_heads * spec.state_key_dim * spec.state_value_dim / tensor
    return [kept.element("attention.mixed", 2.0 * mixed), kept.element("attention.gate", values),
            kept.element("attention.core_states", states), kept.element("attention.output", values),
            kept.product("attention.normed_output", values)]


def _mlp(model: Model, spec: MlpSpec, kept: _Kept, *, fused_activation: bool) -> list[KeptTensor]:
    region = kept.region
    rows, tensor = region.inner_tokens, region.shards.tensor
    if not spec.experts:
        return _inner("mlp", rows * spec.width / tensor, spec, kept, fused_activation)
    resting = region.resting_tokens
    routed_rows = expert_rows(spec, region)
    found = [KeptTensor(name="moe.scores", kept_bytes=floats(resting * spec.experts * 8.0)),
             kept.product("moe.rows", routed_rows * (spec.latent_width or model.hidden)),
             *_inner("moe", routed_rows * spec.width / expert_tensor(region), spec, kept, fused_activation)]
    if spec.latent_width:
        found.append(kept.element("moe.latent", 2.0 * resting * spec.latent_width))
    if spec.shared_width:
        found.append(kept.copy("moe.shared_input", resting * model.hidden))
        found += _inner("moe.shared", rows * spec.shared_width / tensor, spec, kept, fused_activation)
    return found


def _inner(part: str, elements: Floats, spec: MlpSpec, kept: _Kept, fused_activation: bool) -> list[KeptTensor]:
    """What stands between the two products: the input of the nonlinearity and its output."""
    ways = (2.0 if fused_activation else 3.0) if spec.gated else 1.0
    return [kept.element(f"{part}.up_output", ways * elements), kept.product(f"{part}.activated", elements)]


def kv_bytes_per_token(model: Model, element_bytes: float = 2.0) -> tuple[float, ...]:
    """Bytes by which one more token lengthens the cache of ONE block of each run, on all chips together without
    repetition: 0 for linear mixers. A window bounds how many tokens are held, see `cache_bytes`."""
    return tuple(0.0 if block.attention is None else _token_bytes(block.attention, element_bytes)
                 for block in model.blocks)


def _token_bytes(spec: AttentionSpec, element_bytes: float) -> float:
    if spec.kind == "linear":
        return 0.0
    if spec.kind == "mla":
        return (spec.kv_rank + spec.rope_head_dim) * element_bytes
    return spec.kv_heads * (spec.head_dim + spec.value_head_dim) * element_bytes


def cache_bytes(model: Model, context_tokens: Floats, *, element_bytes: float = 2.0,
                state_bytes: float = 4.0) -> Floats:
    """Cache of one sequence of `context_tokens` over all blocks: windows bound it, linear mixers hold one state."""
    total = np.zeros_like(floats(context_tokens))
    for block, per_token in zip(model.blocks, kv_bytes_per_token(model, element_bytes), strict=True):
        spec = block.attention
        if spec is None:
            continue
        held = np.minimum(context_tokens, spec.window_tokens) if spec.window_tokens else context_tokens
        total = total + block.count * held * per_token
        if spec.kind == "linear":
            state = spec.state_value_heads * spec.state_key_dim * spec.state_value_dim * state_bytes
            convolved = 2 * spec.state_key_heads * spec.state_key_dim + spec.state_value_heads * spec.state_value_dim
            total = total + block.count * (state + spec.conv_width * convolved * element_bytes)
    return floats(total)
