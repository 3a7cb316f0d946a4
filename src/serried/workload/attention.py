"""What the attention part of one block asks of one chip: projections, the core, and what is exchanged for them."""

from __future__ import annotations

import numpy as np

from serried.workload.linear import Region, exchange, floats, linear
from serried.workload.spec import Attend, AttentionSpec, Elementwise, Floats, Gemm, Model, Operator, Phase

__all__ = ["attention_operators", "causal_pairs", "rank_heads"]


def causal_pairs(query_tokens: Floats, context_tokens: Floats, window_tokens: int = 0) -> Floats:
    """Query-key pairs of one head of one sequence when the queries are the last of the context.

    Without a window q c - q^2 / 2 (half the square when q = c); with one, no query sees more than the window.
    """
    past = context_tokens - query_tokens
    if not window_tokens:
        return query_tokens * (context_tokens - query_tokens / 2)
    growing = np.clip(window_tokens - past, 0.0, query_tokens)      # queries that do not yet fill the window
    return growing * (past + growing / 2) + (query_tokens - growing) * np.minimum(window_tokens, context_tokens)


def rank_heads(spec: AttentionSpec, tensor: Floats) -> tuple[Floats, Floats]:
    """Query heads and key-value heads of one rank; key-value heads are repeated when there are fewer than ranks."""
    return floats(spec.heads / tensor), floats(np.maximum(spec.kv_heads / tensor, 1.0))


def attention_operators(model: Model, spec: AttentionSpec, region: Region, *, decode: bool, serving: bool,
                        fused_attention: bool) -> list[Operator]:
    """Operators from the norm before attention to the residual sum after it (norms and sums are the block's)."""
    if spec.kind == "linear":
        return _mixer(model, spec, region, decode)
    if spec.kind == "mla":
        return _latent(model, spec, region, decode, serving)
    return _full(model, spec, region, decode, serving, fused_attention)


def tensor_exchange(part: str, model: Model, region: Region, *, entry: str) -> list[Operator]:
    """What a tensor-parallel region exchanges: its sum at the end, or a gather at the start and a scattered sum.

    Backward mirrors it; with sequence parallelism the input is gathered once more for the weight gradient, beside the
    data gradient of the region's first product `entry` (Korthikanti et al. 2022, section 4.2).
    """
    shards = region.shards
    payload = region.inner_tokens * model.hidden * region.element_bytes
    scattered, tensor = shards.sequence_parallel, shards.tensor
    summed = exchange(f"{part}.all_reduce", "all_reduce", "tensor", np.where(scattered, 0.0, payload), tensor,
                      beside=entry if region.backward else "") if not np.all(scattered) else []
    if not np.any(scattered):
        return summed
    full = np.where(scattered, payload, 0.0)
    found = summed + exchange(f"{part}.gather", "all_gather", "tensor", full, tensor)
    found += exchange(f"{part}.scatter", "reduce_scatter", "tensor", full, tensor,
                      beside=entry if region.backward else "")
    if region.backward and not region.adapter_rank:
        found += exchange(f"{part}.gather_again", "all_gather", "tensor", full, tensor, beside=entry)
    return found


def _full(model: Model, spec: AttentionSpec, region: Region, decode: bool, serving: bool,
          fused_attention: bool) -> list[Operator]:
    shards, rows, width = region.shards, region.inner_tokens, region.element_bytes
    heads, kv_heads = rank_heads(spec, shards.tensor)
    query = heads * spec.head_dim
    kv = kv_heads * (spec.head_dim + spec.value_head_dim)
    columns = query * (2 if spec.output_gate else 1) + kv
    out = heads * spec.value_head_dim
    found = linear("attention.qkv", rows, columns, model.hidden, region, adapted=True)
    rotated = rows * (heads + kv_heads) * spec.head_dim * width
    passes = 2.0 if region.backward else 1.0   # the gradient of a norm reads the input beside the gradient
    if spec.qk_norm:
        found.append(Elementwise(name="attention.qk_norm", read_bytes=passes * rotated, write_bytes=rotated, kernels=2))
    if spec.rotary:
        found.append(Elementwise(name="attention.rope", read_bytes=rotated, write_bytes=rotated, kernels=2))
    if serving:
        found.append(_cache_write(rows * kv * width))
    found += _core(spec, region, heads, kv_heads, decode, fused_attention)
    if not decode:
        found += _context_exchange(shards.sequences * shards.context_tokens * kv * width, region)
    if spec.output_gate:
        gated = rows * out * width
        found.append(Elementwise(name="attention.output_gate", read_bytes=(3 if region.backward else 2) * gated,
                                 write_bytes=(2 if region.backward else 1) * gated, kernels=2))
    found += linear("attention.out", rows, model.hidden, out, region, adapted=True)
    return found + tensor_exchange("attention", model, region, entry="attention.qkv")


def _cache_write(bytes_written: Floats) -> Elementwise:
    return Elementwise(name="attention.cache_write", read_bytes=bytes_written, write_bytes=bytes_written, kernels=1)


def _context_exchange(payload_bytes: Floats, region: Region) -> list[Operator]:
    """Keys and values of all context ranks pass every one of them, beside the core; backward sums their gradients."""
    degree = region.shards.context
    found = exchange("attention.context_gather", "all_gather", "context", payload_bytes, degree,
                     beside="attention.core")
    if region.backward:
        found += exchange("attention.context_scatter", "reduce_scatter", "context", payload_bytes, degree,
                          beside="attention.core")
    return found


def _spans(spec: AttentionSpec, region: Region, decode: bool) -> tuple[Floats, Floats, Floats]:
    """sequences, query tokens and context tokens of the core of one chip.

    Chunked attention is as many short sequences. With a context axis of degree c a chip owns the c-th part of the
    queries, balanced over the causal triangle, and meets the keys in c turns: its work is that of c causal squares of
    side s / c (c (s / c)^2 / 2 = s^2 / (2 c)), and every turn reads queries and keys anew as ring attention does.
    """
    shards = region.shards
    sequences, query, context = shards.sequences, shards.query_tokens, shards.context_tokens
    if decode:
        local = context / shards.context
        return sequences, query, np.minimum(local, spec.window_tokens) if spec.window_tokens else local
    if spec.chunked:
        chunk = np.minimum(query, spec.window_tokens)
        return sequences * query / chunk / shards.context, chunk, np.minimum(context, chunk)
    if np.all(shards.context <= 1):
        return sequences, query, context
    cut_query, cut_context = query / shards.context, context / shards.context
    owned = causal_pairs(query, context, spec.window_tokens) / shards.context
    return sequences * owned / causal_pairs(cut_query, cut_context, spec.window_tokens), cut_query, cut_context


def _core(spec: AttentionSpec, region: Region, heads: Floats, kv_heads: Floats, decode: bool,
          fused_attention: bool) -> list[Operator]:
    sequences, query, context = _spans(spec, region, decode)
    if fused_attention or decode:
        return [Attend(name="attention.core", sequences=floats(sequences), query_tokens=floats(query),
                       context_tokens=floats(context), heads=heads, kv_heads=kv_heads, head_dim=spec.head_dim,
                       value_head_dim=spec.value_head_dim, window_tokens=0 if spec.chunked else spec.window_tokens,
                       decode=decode, backward=region.backward)]
    return _unfused_core(spec, region, floats(sequences * heads), floats(query), floats(context))


def _unfused_core(spec: AttentionSpec, region: Region, batch: Floats, query: Floats, context: Floats) -> list[Operator]:
    """Attention through a score matrix in memory: two batched products (four in backward), one kernel for scale, mask
    and softmax, one for dropout with a mask of a byte a score (Korthikanti et al. 2022, section 4.1)."""
    key, value = floats(spec.head_dim), floats(spec.value_head_dim)
    scores = batch * query * context
    half = scores * region.element_bytes

    def product(name: str, m: Floats, n: Floats, k: Floats, phase: Phase) -> Gemm:
        return Gemm(name=f"attention.core_{name}", m=m, n=n, k=k, batch=batch, high_precision=True, weight=False,
                    phase=phase)

    if not region.backward:
        return [product("scores", query, context, key, "forward"),
                Elementwise(name="attention.core_softmax", read_bytes=half, write_bytes=half, fusible=False),
                Elementwise(name="attention.core_dropout", read_bytes=half, write_bytes=half + scores, fusible=False),
                product("values", query, value, context, "forward")]
    return [product("values", query, context, value, "backward_data"),
            product("values", context, value, query, "backward_data"),
            Elementwise(name="attention.core_dropout", read_bytes=half + scores, write_bytes=half, fusible=False),
            Elementwise(name="attention.core_softmax", read_bytes=2 * half, write_bytes=half, fusible=False),
            product("scores", query, key, context, "backward_data"),
            product("scores", context, key, query, "backward_data")]


def _latent(model: Model, spec: AttentionSpec, region: Region, decode: bool, serving: bool) -> list[Operator]:
    """Multi-head latent attention (DeepSeek-V2, section 2.1): the down-projections are repeated on every tensor rank
    (cut over its tokens with sequence parallelism), the up-projections are cut over heads."""
    shards, rows, width = region.shards, region.inner_tokens, region.element_bytes
    resting = region.resting_tokens
    heads = floats(spec.heads / shards.tensor)
    plain = spec.head_dim - spec.rope_head_dim
    latent = spec.kv_rank + spec.rope_head_dim
    found: list[Operator] = []
    joint = serving and spec.query_rank > 0     # engines put both down-projections side by side in one product
    if joint:
        found += linear("attention.down", resting, spec.query_rank + latent, model.hidden, region)
    elif spec.query_rank:
        found += linear("attention.query_down", resting, spec.query_rank, model.hidden, region)
    if spec.query_rank:
        found.append(_norm("attention.query_norm", resting * spec.query_rank, region))
    found += linear("attention.query", rows, heads * spec.head_dim, spec.query_rank or model.hidden, region)
    if not joint:
        found += linear("attention.kv_down", resting, latent, model.hidden, region)
    found.append(_norm("attention.kv_norm", resting * spec.kv_rank, region))
    rotated = rows * (heads + 1) * spec.rope_head_dim * width
    found.append(Elementwise(name="attention.rope", read_bytes=rotated, write_bytes=rotated, kernels=2))
    if serving:
        found.append(_cache_write(rows * latent * width))
    if decode:
        found += _absorbed(spec, region, heads, plain, latent)
    else:
        fresh = rows if np.all(shards.query_tokens == shards.context_tokens) else \
            floats(shards.sequences * shards.context_tokens / shards.context)
        found += linear("attention.kv_up", fresh, heads * (plain + spec.value_head_dim), spec.kv_rank, region)
        joined = fresh * heads * spec.head_dim * width
        found.append(Elementwise(name="attention.join", read_bytes=joined, write_bytes=joined, kernels=2))
        found += _core(spec, region, heads, heads, decode, True)
        found += _context_exchange(
            floats(shards.sequences * shards.context_tokens * heads * (spec.head_dim + spec.value_head_dim) * width),
            region)
    found += linear("attention.out", rows, model.hidden, heads * spec.value_head_dim, region)
    return found + _latent_exchange(model, spec, region)


def _absorbed(spec: AttentionSpec, region: Region, heads: Floats, plain: int, latent: int) -> list[Operator]:
    """Decode on the latent cache: the key up-projection goes into the query, the value one behind the core."""
    sequences, query, context = _spans(spec, region, True)
    rows = region.inner_tokens
    found = linear("attention.query_absorb", rows, spec.kv_rank, plain, region, batch=heads)
    found.append(Attend(name="attention.core", sequences=floats(sequences), query_tokens=floats(query),
                        context_tokens=floats(context), heads=heads, kv_heads=np.ones_like(heads), head_dim=latent,
                        value_head_dim=spec.kv_rank, decode=True, latent=True, backward=region.backward))
    return found + linear("attention.value_up", rows, spec.value_head_dim, spec.kv_rank, region, batch=heads)


def _latent_exchange(model: Model, spec: AttentionSpec, region: Region) -> list[Operator]:
    """With sequence parallelism the narrow latents are gathered instead of the hidden state; sums as ever."""
    shards = region.shards
    payload = region.inner_tokens * model.hidden * region.element_bytes
    narrow = region.inner_tokens * (spec.query_rank or model.hidden) + region.inner_tokens * (
        spec.kv_rank + spec.rope_head_dim)
    scattered = shards.sequence_parallel
    latents = np.where(scattered, narrow * region.element_bytes, 0.0)
    wide = np.where(scattered, payload, 0.0)
    found: list[Operator] = []
    if not np.all(scattered):
        found += exchange("attention.all_reduce", "all_reduce", "tensor",
                          np.where(scattered, 0.0, payload if not region.backward else narrow * region.element_bytes),
                          shards.tensor, beside="attention.query" if region.backward else "")
    if np.any(scattered):
        into, outof = ("scatter", "gather") if region.backward else ("gather", "scatter")
        found += exchange(f"attention.{into}", "reduce_scatter" if region.backward else "all_gather", "tensor",
                          latents, shards.tensor, beside="attention.query" if region.backward else "")
        found += exchange(f"attention.{outof}", "all_gather" if region.backward else "reduce_scatter", "tensor",
                          wide, shards.tensor)
        if region.backward and not region.adapter_rank:
            found += exchange("attention.gather_again", "all_gather", "tensor", latents, shards.tensor,
                              beside="attention.query")
    return found


def _norm(name: str, elements: Floats, region: Region) -> Elementwise:
    once = elements * region.element_bytes
    return Elementwise(name=name, read_bytes=(2 if region.backward else 1) * once, write_bytes=once,
                       kernels=2 if region.backward else 1)


def _mixer(model: Model, spec: AttentionSpec, region: Region, decode: bool) -> list[Operator]:
    """A gated delta rule (Qwen3-Next) or Mamba-2: projections, a short convolution, the state, a gated norm."""
    shards, rows, width = region.shards, region.inner_tokens, region.element_bytes
    keys = spec.state_key_heads * spec.state_key_dim / shards.tensor
    values = spec.state_value_heads * spec.state_value_dim / shards.tensor
    scalars = spec.state_value_heads * (1 if spec.state_space else 2) / shards.tensor
    mixed = 2 * keys + values
    turns = 2.0 if region.backward else 1.0
    convolved = rows * mixed * width
    gated = rows * values * width
    found = linear("attention.mixer_in", rows, mixed + values + scalars, model.hidden, region)
    found.append(Elementwise(name="attention.mixer_conv", read_bytes=turns * convolved, write_bytes=convolved,
                             fusible=False, kernels=2))
    found.append(Attend(
        name="attention.core", sequences=floats(shards.sequences), linear=True, decode=decode,
        query_tokens=floats(shards.query_tokens if decode else shards.query_tokens / shards.context),
        context_tokens=floats(shards.context_tokens if decode else shards.context_tokens / shards.context),
        heads=floats(spec.state_value_heads / shards.tensor),
        kv_heads=floats(np.maximum(spec.state_key_heads / shards.tensor, 1.0)), head_dim=spec.state_key_dim,
        value_head_dim=spec.state_value_dim, backward=region.backward))
    if not decode:     # every context rank starts from the states of those before it
        state_bytes = shards.sequences * spec.state_value_heads * spec.state_key_dim * spec.state_value_dim * 4.0
        found += exchange("attention.state_gather", "all_gather", "context",
                          shards.context * state_bytes / shards.tensor, shards.context)
    found.append(Elementwise(name="attention.mixer_norm", read_bytes=(turns + 1) * gated, write_bytes=turns * gated,
                             kernels=2))
    found += linear("attention.out", rows, model.hidden, values, region)
    return found + tensor_exchange("attention", model, region, entry="attention.mixer_in")
