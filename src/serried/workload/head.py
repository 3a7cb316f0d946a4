"""What the two ends of a model ask of one chip: the embedding table, the head and the loss, cut over the vocabulary."""

from __future__ import annotations

from typing import Literal

import numpy as np

from serried.workload.linear import exchange, floats, linear, region_of
from serried.workload.spec import Elementwise, Floats, Model, Operator, Shards

__all__ = ["embedding_operators", "head_operators", "head_workspace_bytes"]

#: Kernels and passes over [tokens, vocabulary] of an unfused softmax cross-entropy in single precision: a cast, a
#: maximum, a difference, an exponential, a sum, a quotient; backward a difference, a scale and a cast back.
_LOSS_FORWARD = {"kernels": 7, "reads_4": 5, "writes_4": 4}
_LOSS_BACKWARD = {"kernels": 3, "reads_4": 3, "writes_4": 2}


def embedding_operators(model: Model, shards: Shards, *, phase: Literal["forward", "backward"],
                        element_bytes: Floats | float = 2.0) -> tuple[Operator, ...]:
    """Rows of the table for the tokens of one chip, summed over the tensor ranks that hold parts of the vocabulary."""
    region = region_of(shards, phase=phase, element_bytes=element_bytes, adapter_rank=model.adapter_rank, decode=False)
    gathered = region.inner_tokens * model.hidden * element_bytes
    scattered = shards.sequence_parallel
    if region.backward:
        if model.adapter_rank:
            return ()
        table = model.vocab / shards.tensor * model.hidden * element_bytes
        return (Elementwise(name="embedding.scatter", read_bytes=floats(2 * gathered),
                            write_bytes=floats(gathered + table), fusible=False, kernels=3),
                *exchange("embedding.gather", "all_gather", "tensor", np.where(scattered, gathered, 0.0),
                          floats(np.where(scattered, shards.tensor, 1.0))))
    found: list[Operator] = [Elementwise(name="embedding.gather", read_bytes=gathered, write_bytes=gathered,
                                         fusible=False, kernels=2 if model.learned_positions else 1)]
    if not np.all(scattered):
        found += exchange("embedding.all_reduce", "all_reduce", "tensor", np.where(scattered, 0.0, gathered),
                          shards.tensor)
    if np.any(scattered):
        found += exchange("embedding.reduce_scatter", "reduce_scatter", "tensor", np.where(scattered, gathered, 0.0),
                          shards.tensor)
    return tuple(found)


def head_operators(model: Model, shards: Shards, *, phase: Literal["forward", "backward"],
                   element_bytes: Floats | float = 2.0, loss: bool = True,
                   decode: bool = False) -> tuple[Operator, ...]:
    """Final norm, logits over the part of the vocabulary that one chip holds, and the loss when one is wanted.

    Without a loss (serving) `shards.query_tokens` says for how many tokens of a sequence logits are wanted: one.
    """
    region = region_of(shards, phase=phase, element_bytes=element_bytes, adapter_rank=model.adapter_rank,
                       decode=decode)
    columns = floats(model.vocab / shards.tensor)
    rows = region.inner_tokens
    once = region.resting_tokens * model.hidden * element_bytes
    found: list[Operator] = [Elementwise(name="head.norm", read_bytes=(2 if region.backward else 1) * once,
                                         write_bytes=once, kernels=2 if region.backward else 1)]
    found += linear("head.logits", rows, columns, model.hidden, region, high_precision=True)
    entry = rows * model.hidden * element_bytes
    scattered = shards.sequence_parallel
    if region.backward:
        found += exchange("head.all_reduce", "all_reduce", "tensor", np.where(scattered, 0.0, entry), shards.tensor,
                          beside="head.logits")
    if np.any(scattered):
        wide = np.where(scattered, entry, 0.0)
        found += exchange("head.gather", "all_gather", "tensor", wide, shards.tensor,
                          beside="head.logits" if region.backward else "")
        if region.backward:
            found += exchange("head.scatter", "reduce_scatter", "tensor", wide, shards.tensor, beside="head.logits")
    if loss:
        found += _loss(rows * columns, rows, shards.tensor, region.backward, element_bytes)
    elif not region.backward:
        found += exchange("head.logits_gather", "all_gather", "tensor", rows * model.vocab * element_bytes,
                          shards.tensor)
    return tuple(found)


def _loss(logits: Floats, rows: Floats, tensor: Floats, backward: bool,
          element_bytes: Floats | float) -> list[Operator]:
    """Vocabulary-parallel cross-entropy: three sums of one number a token over the tensor ranks in forward."""
    passes = _LOSS_BACKWARD if backward else _LOSS_FORWARD
    wide_reads, wide_writes = 4.0 * passes["reads_4"], 4.0 * passes["writes_4"]
    reads = floats(wide_reads if backward else wide_reads + element_bytes)
    writes = floats(wide_writes + element_bytes if backward else wide_writes)
    found: list[Operator] = [Elementwise(name="head.loss", read_bytes=reads * logits, write_bytes=writes * logits,
                                         kernels=passes["kernels"])]
    if not backward:
        for _ in range(3):
            found += exchange("head.loss_sum", "all_reduce", "tensor", rows * 4.0, tensor)
    return found


def head_workspace_bytes(model: Model, shards: Shards, *, element_bytes: Floats | float = 2.0,
                         fused_loss: bool = True) -> Floats:
    """What logits and loss hold at their peak: logits, their softmax in single precision, and the gradient.

    fused_loss=False: a loss out of single kernels also holds logits cast to, and the gradient in, single precision.
    """
    rows = shards.sequences * shards.query_tokens / shards.context
    per_logit_bytes = 2 * element_bytes + (4.0 if fused_loss else 12.0)
    return floats(rows * model.vocab / shards.tensor * per_logit_bytes)
