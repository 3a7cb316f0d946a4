"""The pieces of a model and how many of each stand on a pipeline stage.

A piece is one block of a run of equal blocks, a prediction block, the embedding, or the head. Axes: R = piece (runs,
prediction, embedding, head, in that order), K = STAGES, L = layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serried.planner.spec import Ints, Layouts
from serried.workload.spec import Block, Floats, Model

__all__ = ["data_degree", "distinct_rows", "distinct_values", "micro_batch_count", "model_runs", "stage_counts"]

#: A first run of at most this share of the blocks, dense before a mixture, stands at the front; other runs are mixed.
_LEADING_SHARE = 0.25


def model_runs(model: Model) -> tuple[Block, ...]:
    """Runs of equal blocks; a run of prediction blocks comes last."""
    return (*model.blocks, *_prediction(model))


def _prediction(model: Model) -> tuple[Block, ...]:
    last = model.blocks[-1]
    return (Block(count=model.prediction_blocks, attention=last.attention, mlp=last.mlp, norms=last.norms),) \
        if model.prediction_blocks else ()


def stage_counts(model: Model, pp: Ints, virtual_stages: Ints) -> tuple[Floats, Floats]:
    """(count_KRL, total_R): pieces on the first, a middle and the last stage, and in the whole model.

    Blocks that do not divide are taken from the ends, where embedding and head stand: a middle stage is the fullest.
    Where blocks predict further tokens, each with a head of its own, they are all taken from the last stage.
    """
    layers = model.layer_count
    chunks = pp * virtual_stages
    middle = virtual_stages * -(-layers // chunks)
    rest = layers - np.maximum(pp - 2, 0) * middle
    even = np.maximum(layers // pp, 1)
    at_first = np.minimum(middle, rest - 1) if model.prediction_blocks else rest - rest // 2
    first = np.where(pp == 1, layers, np.where(rest >= 2, at_first, even))
    last = np.where(pp == 1, 0, np.where(rest >= 2, rest - at_first, even))
    layers_KL = np.stack([first, np.where(pp > 2, middle, 0), last]).astype(np.float64)
    count_KRL = np.zeros((3, len(model_runs(model)) + 2, len(pp)))
    leading = _leading_blocks(model)
    lead_KL = np.stack([np.minimum(leading, first), np.zeros_like(first), np.zeros_like(first)])
    others = max(layers - leading, 1)
    for index, block in enumerate(model.blocks):
        is_leading = leading and index == 0
        count_KRL[:, index] = lead_KL if is_leading else (layers_KL - lead_KL) * (block.count / others)
    total = np.array([float(block.count) for block in model_runs(model)] + [1.0, 1.0 + model.prediction_blocks])
    end = np.where(pp == 1, 0, 2)
    here = np.arange(len(pp))
    if model.prediction_blocks:
        count_KRL[end, len(model.blocks), here] = model.prediction_blocks
    count_KRL[0, -2] = 1.0
    count_KRL[end, -1, here] = total[-1]
    return count_KRL, total


def _leading_blocks(model: Model) -> int:
    """Dense blocks in front of a mixture, 0 when the runs are mixed throughout the model."""
    if len(model.blocks) < 2:
        return 0
    front, rest = model.blocks[0], model.blocks[1:]
    is_dense = front.mlp is not None and not front.mlp.experts
    is_mixture = all(block.mlp is not None and block.mlp.experts for block in rest)
    return front.count if is_dense and is_mixture and front.count <= _LEADING_SHARE * model.layer_count else 0


def data_degree(layouts: Layouts, chip_count: int) -> Ints:
    """Replicas of the model: chips / (tp * cp * pp)."""
    return np.asarray(chip_count // (layouts.tp * layouts.cp * layouts.pp))


def micro_batch_count(layouts: Layouts, chip_count: int, global_batch_sequences: int) -> Ints:
    """Micro-batches that one pipeline runs in a step."""
    return np.asarray(global_batch_sequences // (data_degree(layouts, chip_count) * layouts.micro_batch))


def distinct_rows(columns: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(rows, where): one row of each distinct combination of the columns, and for every row which one it is.

    The columns become the digits of one number, so that one sort finds them; recoded when it would overflow.
    """
    keys = np.zeros(len(columns[0]), dtype=np.int64)
    span = 1
    for column in columns:
        column = np.asarray(column, dtype=np.int64)
        base = int(column.max(initial=0)) + 1
        if span * base >= 2**62:
            _, keys = np.unique(keys, return_inverse=True)
            span = int(keys.max(initial=0)) + 1
        keys = keys * base + column
        span *= base
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.empty(0, np.intp)
    _, heads, run_codes = np.unique(keys[starts], return_index=True, return_inverse=True)
    lengths = np.diff(np.append(starts, len(keys)))
    return starts[heads], np.repeat(run_codes, lengths)


def distinct_values(columns: Sequence[Floats]) -> tuple[list[Floats], NDArray[np.intp]]:
    """Distinct rows of float columns (broadcast against each other) and for every row which one it is."""
    table = np.stack(np.broadcast_arrays(*columns), axis=-1).astype(np.float64)
    found, where = np.unique(table.reshape(-1, table.shape[-1]), axis=0, return_inverse=True)
    return list(found.T), where.ravel()


@dataclass(frozen=True, slots=True)
class Points:
    """Distinct rows of some columns of many layouts: evaluate at `rows`, gather with `where`."""

    rows: NDArray[np.intp]
    where: NDArray[np.intp]

    @classmethod
    def of(cls, layouts: Layouts, *names: str) -> Points:
        """The distinct combinations of the named columns."""
        return cls(*distinct_rows([np.asarray(getattr(layouts, name), dtype=np.int64) for name in names]))
