"""How much work there is: of an operator, of a token, of a training step. A multiply-add is 2."""

from __future__ import annotations

import numpy as np

from serried.workload.attention import causal_pairs
from serried.workload.head import head_operators
from serried.workload.linear import floats
from serried.workload.operators import block_operators
from serried.workload.spec import Attend, Floats, Gemm, GroupedGemm, Model, Operator, Shards, Training

__all__ = ["attend_flop", "forward_flop_per_token", "model_flop", "operator_flop"]

#: Tokens that a chunked linear mixer handles as one small attention; the state carries the rest.
CHUNK_TOKENS = 64


def attend_flop(attend: Attend) -> Floats:
    """Work of an attention core: 2 (d_qk + d_v) a query-key pair and head; backward twice that (no recompute).

    A linear mixer: three products with the state (read, correct, update), and a causal square inside each chunk.
    """
    turns = 2.0 if attend.backward else 1.0
    heads = attend.sequences * attend.heads
    if attend.linear:
        per_token = 6.0 * attend.head_dim * attend.value_head_dim
        if not attend.decode:
            per_token += 2.0 * CHUNK_TOKENS * (attend.head_dim + attend.value_head_dim)
        return floats(turns * heads * attend.query_tokens * per_token)
    if attend.causal:
        pairs = causal_pairs(attend.query_tokens, attend.context_tokens, attend.window_tokens)
    else:
        pairs = attend.query_tokens * attend.context_tokens
    return floats(turns * 2.0 * heads * pairs * (attend.head_dim + attend.value_head_dim))


def operator_flop(operator: Operator) -> Floats:
    """Work of the matrix engine in one operator; what only moves bytes has none."""
    if isinstance(operator, Gemm):
        return floats(2.0 * operator.m * operator.n * operator.k * operator.batch)
    if isinstance(operator, GroupedGemm):
        return floats(2.0 * operator.rows * operator.n * operator.k)
    if isinstance(operator, Attend):
        return attend_flop(operator)
    return np.zeros(())


def _whole(sequences: float, tokens: float) -> Shards:
    one = np.ones(())
    return Shards(sequences=floats(sequences), query_tokens=floats(tokens), context_tokens=floats(tokens), tensor=one,
                  context=one, expert=one, sequence_parallel=np.zeros((), dtype=bool))


def _sequence_flop(model: Model, tokens: float, phases: tuple[str, ...]) -> float:
    shards, total = _whole(1.0, tokens), 0.0
    for phase in phases:
        for block in model.blocks:
            operators = block_operators(model, block, shards, phase=phase)  # type: ignore[arg-type]
            total += block.count * sum(float(operator_flop(operator)) for operator in operators)
        ends = head_operators(model, shards, phase=phase)  # type: ignore[arg-type]
        total += sum(float(operator_flop(operator)) for operator in ends)
    return total


def forward_flop_per_token(model: Model, sequence_tokens: int) -> float:
    """Mean work of one token of a sequence in forward, head included, causal attention by half."""
    return _sequence_flop(model, float(sequence_tokens), ("forward",)) / sequence_tokens


def model_flop(job: Training) -> float:
    """Work of one optimizer step: forward, data and weight gradients, causal attention by half, nothing recomputed.

    Frozen matrices have no weight gradient. Prediction blocks are not counted.
    """
    return job.global_batch_sequences * _sequence_flop(job.model, float(job.sequence_tokens), ("forward", "backward"))
