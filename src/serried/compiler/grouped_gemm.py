"""Time of the grouped products of a mixture of experts on one chip.

One product per local expert, all in one kernel: the tiles of every expert share the waves, an expert with few rows
still fills a tile, and the weights of every expert that has a row are read. How unevenly rows fall on experts is an
input.

Axes: S = shape, Q = quantile of the experts by load.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serried.compiler.gemm import (
    ACTIVATION_BYTES,
    ELEMENT_BYTES,
    ENGINE_BYTES,
    ENGINE_FORMAT,
    GemmParameters,
    Products,
    best_tile_s,
    engine_of,
    gemm_time_s,
)
from serried.compiler.spec import parameter
from serried.silicon.spec import Chip
from serried.workload.spec import Floats

__all__ = ["GroupedGemmParameters", "grouped_gemm_time_s", "grouped_weight_gradient_time_s"]

_CHUNK = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedGemmParameters(GemmParameters):
    """What a library makes of one product per expert in one kernel: as for a single product, but k is never cut."""

    slice_limit: float = parameter(unit="1", low=1.0, high=256.0, default=1.0, description="most slices of k")


def grouped_gemm_time_s(groups: Floats, rows: Floats, n: Floats, k: Floats, *, chip: Chip, parameters: GemmParameters,
                        number_format: str, loads: Floats | None = None) -> Floats:
    """Device seconds of one product of n x k per group, over `rows` rows in all; arrays broadcast.

    loads: over (..., Q), rows of the groups by quantile over the mean rows / groups; None = every group has the same.
    A group without a row costs nothing. Raises MissingFigure or BadInput as `gemm_time_s`.
    """
    columns = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in (groups, rows, n, k)))
    share = np.ones(1) if loads is None else np.asarray(loads, dtype=np.float64)
    share = np.broadcast_to(share, (*columns[0].shape, share.shape[-1])).reshape(-1, share.shape[-1])
    engine = engine_of(chip, parameters, ENGINE_FORMAT[number_format])
    flat = [column.reshape(-1) for column in columns]
    time_s = np.empty(flat[0].shape)
    for first in range(0, len(time_s), _CHUNK):
        group, row, wide, deep = (column[first:first + _CHUNK] for column in flat)
        rows_SQ = (row / group)[:, None] * share[first:first + _CHUNK]
        shape = Products(m=rows_SQ.mean(axis=1), n=wide, k=deep, batch=group, rows_SQ=rows_SQ,
                         engine_bytes=ENGINE_BYTES[ENGINE_FORMAT[number_format]],
                         element_bytes=ELEMENT_BYTES[number_format], weight_bytes=ELEMENT_BYTES[number_format],
                         output_bytes=ACTIVATION_BYTES[number_format])
        time_s[first:first + _CHUNK] = np.where(row > 0, best_tile_s(shape, engine, parameters), 0.0)
    return time_s.reshape(columns[0].shape)


def grouped_weight_gradient_time_s(groups: Floats, rows: Floats, n: Floats, k: Floats, *, chip: Chip,
                                   parameters: GemmParameters, number_format: str) -> Floats:
    """Device seconds of dW[k, n] = X[rows, k]^T dY[rows, n] per group: the rows of a group are what is summed over."""
    groups = np.asarray(groups, dtype=np.float64)
    return gemm_time_s(k, n, np.asarray(rows, dtype=np.float64) / groups, batch=groups, chip=chip,
                       parameters=parameters, number_format=number_format)
