"""What one block asks of one chip, forward and backward, as operators with columns over S.

Names say where an operator belongs: "attention.", "mlp." or "moe.", "norm.", "prediction.", "head.",
"embedding.", "optimizer.".
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from serried.workload.attention import attention_operators
from serried.workload.linear import Region, linear, region_of
from serried.workload.mlp import mlp_operators
from serried.workload.spec import Attend, Block, Elementwise, Floats, Gemm, Model, Operator, Shards

__all__ = ["RECOMPUTED", "block_operators", "prediction_operators", "recomputed_operators"]

#: What each way of recompute does again in backward, by the beginning of the operator's name.
RECOMPUTED: dict[str, tuple[str, ...]] = {
    "none": (),
    "selective": ("attention.core",),
    "mlp": ("norm.mlp", "mlp.", "moe."),
    "attention": ("norm.attention", "attention."),
    "full": ("",),
    "activations": ("norm.", "mlp.activ", "moe.activ", "moe.shared.activ"),
    "up_projections": ("attention.query_key_value", "attention.kv_up", "attention.rope", "attention.join"),
}


def block_operators(model: Model, block: Block, shards: Shards, *, phase: Literal["forward", "backward"],
                    element_bytes: Floats | float = 2.0, decode: bool = False, serving: bool = False,
                    fused_attention: bool = True, fused_experts: bool = True) -> tuple[Operator, ...]:
    """Operators of ONE block for ONE micro-batch (or one step of serving) on one chip.

    element_bytes: of activations between operators. decode: new tokens against a cache (the latent form of MLA);
    serving: the keys and values of a prefill are written to a cache too. fused_attention=False: attention through a
    score matrix in memory, with dropout, as training software did before 2023. fused_experts=False: biases behind the
    experts, and limits of the activation between their products, run op by op over all rows.
    Backward is the data and the weight gradients; what is recomputed comes from `recomputed_operators`.
    """
    region = region_of(shards, phase=phase, element_bytes=element_bytes, adapter_rank=model.adapter_rank,
                       decode=decode)
    found: list[Operator] = []
    parts = [part for part, spec in (("attention", block.attention), ("mlp", block.mlp)) if spec is not None]
    for part in parts:
        found += _norms(part, block.norms / max(len(parts), 1), model, region)
        if part == "attention" and block.attention is not None:
            found += attention_operators(model, block.attention, region, decode=decode, serving=serving or decode,
                                         fused_attention=fused_attention)
        elif block.mlp is not None:
            found += mlp_operators(model, block.mlp, region, fused_experts=fused_experts)
        found.append(_residual(part, model, region))
    return tuple(found)


def prediction_operators(model: Model, shards: Shards, *, phase: Literal["forward", "backward"],
                         element_bytes: Floats | float = 2.0, fused_attention: bool = True,
                         fused_experts: bool = True) -> tuple[Operator, ...]:
    """Operators of ONE multi-token-prediction block without its head: two norms, the product that joins the hidden
    state with the embedding of the next token, and a block like the last one (DeepSeek-V3, section 2.2)."""
    region = region_of(shards, phase=phase, element_bytes=element_bytes, adapter_rank=model.adapter_rank, decode=False)
    joined = linear("prediction.join", region.resting_tokens, model.hidden, 2 * model.hidden, region)
    return (*_norms("prediction", 2.0, model, region), *joined,
            *block_operators(model, model.blocks[-1], shards, phase=phase, element_bytes=element_bytes,
                             fused_attention=fused_attention, fused_experts=fused_experts))


def recomputed_operators(operators: tuple[Operator, ...], recompute: str) -> tuple[Operator, ...]:
    """Those of the forward `operators` of a block that backward runs again under `recompute`: a key of RECOMPUTED, or
    "operators", where attention and every second matrix product are kept and the rest runs again."""
    if recompute == "operators":
        return _alternate(operators)
    beginnings = RECOMPUTED[recompute]
    if not beginnings:
        return ()
    alone = "attention.query" if recompute == "up_projections" else None
    return tuple(operator for operator in operators
                 if operator.name == alone or operator.name.startswith(beginnings))


def _alternate(operators: tuple[Operator, ...]) -> tuple[Operator, ...]:
    """What runs again when outputs of queries, values, attention, the gate and the last product are kept.

    In the order query, key, value, output, gate, up, down of separate products that is every second one, as PyTorch's
    selective checkpointing by operator does in common training recipes; experts are computed again as a whole.
    """
    core = next((operator for operator in operators if isinstance(operator, Attend)), None)
    narrow = {operator.name.replace(".down", ".up"): operator.k for operator in operators
              if isinstance(operator, Gemm) and operator.name in ("mlp.down", "moe.shared.down")}
    again: list[Operator] = []
    for operator in operators:
        if operator is core or operator.name in ("mlp.down", "moe.shared.down"):
            continue
        if isinstance(operator, Gemm) and operator.name == "attention.qkv" and core is not None:
            again.append(replace(operator, n=np.asarray(core.kv_heads * core.head_dim, dtype=np.float64)))
        elif isinstance(operator, Gemm) and operator.name in narrow:
            if np.any(operator.n > narrow[operator.name]):     # a gate is kept, the product beside it is not
                again.append(replace(operator, n=operator.n - narrow[operator.name]))
        else:
            again.append(operator)
    return tuple(again)


def _norms(part: str, count: float, model: Model, region: Region) -> list[Operator]:
    """Normalisations before (and in some families after) a part; the gradient reads its input once more."""
    passes = max(count, 1.0)     # a norm without parameters moves the same bytes
    once = passes * region.resting_tokens * model.hidden * region.element_bytes
    return [Elementwise(name=f"norm.{part}", read_bytes=(2 if region.backward else 1) * once, write_bytes=once,
                        kernels=round((2 if region.backward else 1) * passes))]


def _residual(part: str, model: Model, region: Region) -> Operator:
    """The sum with what went around the part; backward sums the two gradients that meet there."""
    once = region.resting_tokens * model.hidden * region.element_bytes
    return Elementwise(name=f"norm.{part}_residual", read_bytes=2 * once, write_bytes=once)
