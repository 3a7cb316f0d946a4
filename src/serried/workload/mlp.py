"""What the feed-forward part of one block asks of one chip: a dense MLP, or routed and shared experts."""

from __future__ import annotations

import numpy as np

from serried.workload.attention import tensor_exchange
from serried.workload.linear import Region, exchange, floats, linear
from serried.workload.spec import Elementwise, Floats, GroupedGemm, MlpSpec, Model, Operator

__all__ = ["expert_rows", "expert_tensor", "mlp_operators"]


def mlp_operators(model: Model, spec: MlpSpec, region: Region, *, fused_experts: bool = True) -> list[Operator]:
    """Operators from the norm before the MLP to the residual sum after it (norms and sums are the block's).

    fused_experts=False: what a mixture with biases does beside the products and the activation runs op by op.
    """
    if spec.experts:
        return _mixture(model, spec, region, by_operator=spec.bias and not fused_experts)
    rows = region.inner_tokens
    return _dense("mlp", model, spec, spec.width, rows, region) + tensor_exchange("mlp", model, region, entry="mlp.up")


def _dense(part: str, model: Model, spec: MlpSpec, width: int, rows: Floats, region: Region) -> list[Operator]:
    inner = width / region.shards.tensor
    adapted = part == "mlp" and model.adapter_mlp
    found = linear(f"{part}.up", rows, inner * (2 if spec.gated else 1), model.hidden, region, adapted=adapted)
    found.append(activation(f"{part}.activation", rows * inner, spec, region))
    return found + linear(f"{part}.down", rows, model.hidden, inner, region, adapted=adapted)


def activation(name: str, elements: Floats, spec: MlpSpec, region: Region) -> Elementwise:
    """The nonlinearity between the products, unfused.

    Gated forward: the nonlinearity on the gate, then a product (reads 1 + 2, writes 1 + 1). Backward: two products with
    the gradient and the nonlinearity's own (reads 6, writes 3). Plain: one kernel each way.
    """
    once = elements * region.element_bytes
    if not spec.gated:
        return Elementwise(name=name, read_bytes=(2 if region.backward else 1) * once, write_bytes=once)
    reads, writes = (6, 3) if region.backward else (3, 2)
    return Elementwise(name=name, read_bytes=reads * once, write_bytes=writes * once,
                       kernels=3 if region.backward else 2)


def expert_tensor(region: Region) -> Floats:
    """Degree by which the matrices of one expert are cut."""
    cut = region.shards.expert_tensor
    return floats(region.shards.tensor if cut is None else cut)


def expert_rows(spec: MlpSpec, region: Region) -> Floats:
    """Rows (token, expert) that one chip computes with evenly loaded experts: the tokens of its tensor group, shared
    by the ranks of that group that hold different experts."""
    return region.inner_tokens * spec.experts_per_token * expert_tensor(region) / region.shards.tensor


def _mixture(model: Model, spec: MlpSpec, region: Region, *, by_operator: bool) -> list[Operator]:
    shards = region.shards
    cut = expert_tensor(region)
    inner_width = spec.latent_width or model.hidden
    # Without sequence parallelism the ranks of a tensor group hold the same tokens and send each what it needs.
    alike = region.inner_tokens * cut / shards.tensor
    tokens = floats(np.where(shards.sequence_parallel, region.resting_tokens, alike))
    sent_rows = tokens * spec.experts_per_token
    rows = expert_rows(spec, region)
    found = _routing(model, spec, region.resting_tokens, region)
    if spec.latent_width:
        found += linear("moe.latent_down", region.resting_tokens, spec.latent_width, model.hidden, region)
    found.append(_permute("moe.permute", tokens, sent_rows, inner_width, region, gathers=False))
    found += _dispatch("dispatch", sent_rows, rows, inner_width, cut, region, forward=True)
    groups = floats(spec.experts / shards.expert)
    found += grouped("moe.expert_up", groups, rows, spec.width * (2 if spec.gated else 1) / cut, inner_width, region)
    if by_operator and spec.gated:
        found.append(_limits(rows * spec.width / cut, region))
    found.append(activation("moe.activation", rows * spec.width / cut, spec, region))
    found += grouped("moe.expert_down", groups, rows, floats(inner_width), spec.width / cut, region)
    if by_operator:
        found.append(_late_bias(rows * inner_width, region))
    found += _dispatch("combine", sent_rows, rows, inner_width, cut, region, forward=False)
    found.append(_permute("moe.unpermute", tokens, sent_rows, inner_width, region, gathers=True))
    if spec.latent_width:
        found += linear("moe.latent_up", region.resting_tokens, model.hidden, spec.latent_width, region)
    whole = region.inner_tokens * model.hidden * region.element_bytes
    if not np.all(shards.sequence_parallel):
        found += exchange("moe.all_reduce", "all_reduce", "tensor", np.where(shards.sequence_parallel, 0.0, whole),
                          shards.tensor)
    if spec.shared_width:
        found += _shared(model, spec, region)
    return found


def _limits(elements: Floats, region: Region) -> Elementwise:
    """Gate and value of a gated activation are limited one by one and joined again, before the activation.

    Forward: two limits (read 1, write 1 each), one join (reads 2, writes 2). Backward: two limits read the gradient and
    their input, and the two gradients are joined.
    """
    once = elements * region.element_bytes
    reads, writes = (6, 4) if region.backward else (4, 4)
    return Elementwise(name="moe.activation_limits", read_bytes=reads * once, write_bytes=writes * once, fusible=False,
                       kernels=3)


def _late_bias(elements: Floats, region: Region) -> Elementwise:
    """The bias behind the last product, weighed like the rows it joins, expert by expert, in the weights' 32 bits.

    Forward: bias times weight (writes 4), sum (reads 2 + 4, writes 4), join of the experts (4, 4), cast (4, 2).
    Backward: cast (2, 4), gradient of the rows (4, 2) and its join (2, 2), gradients of weight and bias, each a product
    (4, 4) that is summed up (4). Bytes an element.
    """
    reads, writes = (24.0, 16.0) if region.backward else (14.0, 14.0)
    return Elementwise(name="moe.expert_bias", read_bytes=floats(elements * reads),
                       write_bytes=floats(elements * writes), fusible=False, kernels=8 if region.backward else 4)


def _routing(model: Model, spec: MlpSpec, tokens: Floats, region: Region) -> list[Operator]:
    """Scores of every expert in high precision, then softmax or sigmoid, top-k and the order of the permutation."""
    found = linear("moe.router", tokens, spec.experts, model.hidden, region, high_precision=True)
    scores = tokens * spec.experts * 4.0
    return [*found, Elementwise(name="moe.route", read_bytes=3 * scores, write_bytes=2 * scores,
                                kernels=4 if region.backward else 8)]


def _permute(name: str, tokens: Floats, rows: Floats, width: int, region: Region, *, gathers: bool) -> Elementwise:
    """Tokens are copied out to one row an expert, or the rows of a token summed; the gradient goes the other way."""
    one, many = tokens * width * region.element_bytes, rows * width * region.element_bytes
    reads, writes = (many, one) if gathers != region.backward else (one, many)
    if gathers and region.backward:
        reads = reads + many        # the gradient of the weights of the sum needs the rows
    return Elementwise(name=name, read_bytes=floats(reads), write_bytes=floats(writes), fusible=False)


def _dispatch(part: str, sent_rows: Floats, rows: Floats, width: int, cut: Floats, region: Region, *,
              forward: bool) -> list[Operator]:
    """Rows travel to the ranks of their experts and back; where an expert is cut, its ranks gather and sum them."""
    shards = region.shards
    found = exchange(f"moe.{part}", "all_to_all", "expert", sent_rows * width * region.element_bytes, shards.expert)
    scattered = np.where(shards.sequence_parallel & (cut > 1), rows * width * region.element_bytes, 0.0)
    if np.any(scattered > 0):
        gathers = forward != region.backward
        found += exchange(f"moe.{part}_{'gather' if gathers else 'scatter'}",
                          "all_gather" if gathers else "reduce_scatter", "tensor", scattered, shards.tensor)
    if np.any(shards.expert > 1):
        moved = np.where(shards.expert > 1, rows * width * region.element_bytes, 0.0)
        found.append(Elementwise(name=f"moe.{part}_sort", read_bytes=floats(moved), write_bytes=floats(moved),
                                 fusible=False))
    return found


def grouped(name: str, groups: Floats, rows: Floats, n: Floats, k: Floats | int, region: Region) -> list[Operator]:
    """One product an expert: forward, or its data and weight gradients (none when the experts are frozen)."""
    wide, deep = floats(n), floats(k)
    if not region.backward:
        return [GroupedGemm(name=name, groups=groups, rows=rows, n=wide, k=deep)]
    found: list[Operator] = [GroupedGemm(name=name, groups=groups, rows=rows, n=deep, k=wide, phase="backward_data")]
    if not region.adapter_rank:
        found.append(GroupedGemm(name=name, groups=groups, rows=rows, n=wide, k=deep, phase="backward_weight"))
    return found


def _shared(model: Model, spec: MlpSpec, region: Region) -> list[Operator]:
    """The expert that every token passes: a dense MLP, cut over the tensor axis, its sum beside the routed one."""
    found = _dense("moe.shared", model, spec, spec.shared_width, region.inner_tokens, region)
    whole = region.inner_tokens * model.hidden * region.element_bytes
    scattered = np.where(region.shards.sequence_parallel, whole, 0.0)
    if np.any(scattered > 0):
        found += exchange("moe.shared_gather", "all_gather", "tensor", scattered, region.shards.tensor)
        found += exchange("moe.shared_scatter", "reduce_scatter", "tensor", scattered, region.shards.tensor)
    added = region.resting_tokens * model.hidden * region.element_bytes
    if spec.shared_gate:
        found += linear("moe.shared_gate", region.resting_tokens, 1, model.hidden, region, high_precision=True)
    return [*found, Elementwise(name="moe.shared_sum", read_bytes=2 * added, write_bytes=added,
                                kernels=2 if spec.shared_gate else 1)]
