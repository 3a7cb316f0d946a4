"""What one worker asks of one node, as columns.

Axes: S = demand (a worker of one alternative of one shape), K = kind of chip, N = node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serried.fleet.columns import Columns
from serried.fleet.spec import WHOLE_MILLI, Fleet, Ints, Shape

__all__ = ["Demands", "demands_of", "feasible_NS"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Demands:
    """Columns over S. share_milli_S: of one chip (0 = no chip at all). whole_chips_S: chips that must be idle (0 for a
    worker that shares). milli_S: shares of all its chips together. accepts_KS: kinds of chip that will do.
    ask_host: whether any asks for CPU or memory."""

    cpu_milli_S: Ints
    memory_bytes_S: Ints
    share_milli_S: NDArray[np.int16]
    whole_chips_S: NDArray[np.int16]
    milli_S: NDArray[np.int32]
    accepts_KS: NDArray[np.bool_]
    ask_host: bool

    def __len__(self) -> int:
        return len(self.cpu_milli_S)


def demands_of(fleet: Fleet, asked: Sequence[tuple[Shape, int]]) -> Demands:
    """One worker of each (shape, alternative)."""
    chosen = [(shape, shape.alternatives[alternative]) for shape, alternative in asked]
    chips_S = np.array([one.chips_per_worker for _, one in chosen], dtype=np.int32)
    share_S = np.array([shape.share_milli for shape, _ in chosen], dtype=np.int32)
    accepts_KS = np.zeros((len(fleet.kinds), len(chosen)), dtype=bool)
    for row, (_, one) in enumerate(chosen):
        accepts_KS[list(one.kinds), row] = True
    return Demands(
        cpu_milli_S=np.array([shape.cpu_milli for shape, _ in chosen], dtype=np.int64),
        memory_bytes_S=np.array([shape.memory_bytes for shape, _ in chosen], dtype=np.int64),
        share_milli_S=np.where(chips_S > 0, share_S, 0).astype(np.int16),
        whole_chips_S=np.where(share_S == WHOLE_MILLI, chips_S, 0).astype(np.int16),
        milli_S=chips_S * share_S, accepts_KS=accepts_KS,
        ask_host=any(shape.cpu_milli or shape.memory_bytes for shape, _ in chosen))


def feasible_NS(demands: Demands, fleet: Fleet, columns: Columns, nodes: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether one worker of each demand could start on each of `nodes` now.

    Nodes come first: after an event there are few of them and many demands, and the last axis is the fast one.
    """
    fits: NDArray[np.bool_] = demands.share_milli_S <= _across(columns.open_share_milli_N[nodes])
    if demands.ask_host:
        fits &= demands.cpu_milli_S <= _across(columns.cpu_free_milli_N[nodes])
        fits &= demands.memory_bytes_S <= _across(columns.memory_free_bytes_N[nodes])
    fits &= demands.whole_chips_S <= _across(columns.open_chips_N[nodes])
    fits &= demands.accepts_KS[fleet.kind_N[nodes]]
    return fits


def _across(column_N: NDArray[Any]) -> Any:
    """A column over nodes set against demands; the figure of one node (0-d) as a plain number, which is the faster."""
    return column_N[:, None] if column_N.ndim else column_N.item()
