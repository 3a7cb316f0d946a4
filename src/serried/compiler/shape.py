"""The shape of an attention as columns.

Axes: S = shape point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serried.workload.spec import Floats

__all__ = ["AttentionShape", "attention_shape"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """Columns of equal shape over S.

    query_tokens new tokens against context_tokens keys (the new ones included) per sequence; heads, kv_heads on this
    chip; window_tokens: 0 = none; head_dim of queries and keys, value_head_dim of values and outputs.
    """

    sequences: Floats
    query_tokens: Floats
    context_tokens: Floats
    heads: Floats
    kv_heads: Floats
    window_tokens: Floats
    head_dim: Floats
    value_head_dim: Floats

    @property
    def width(self) -> Floats:
        """Head dimension of queries and values together: elements of a query and its output, or of a key and value."""
        return self.head_dim + self.value_head_dim


def attention_shape(*, sequences: Floats | float, query_tokens: Floats | float, context_tokens: Floats | float,
                    heads: Floats | float, kv_heads: Floats | float, head_dim: Floats | float,
                    value_head_dim: Floats | float | None = None,
                    window_tokens: Floats | float = 0.0) -> AttentionShape:
    """Numbers and arrays broadcast to one shape; values are as wide as keys unless said otherwise."""
    values = (sequences, query_tokens, context_tokens, heads, kv_heads, window_tokens, head_dim,
              head_dim if value_head_dim is None else value_head_dim)
    columns = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in values))
    return AttentionShape(**dict(zip(AttentionShape.__slots__, columns, strict=True)))
