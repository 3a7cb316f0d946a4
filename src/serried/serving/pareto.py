"""What nothing else beats in every respect.

Axes: P = point, K = figure; more is better in every figure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serried.workload.spec import Floats

__all__ = ["pareto_front"]


def pareto_front(value_PK: Floats) -> NDArray[np.bool_]:
    """Points that no other point dominates: as good in every figure and better in one. Of equal points the first."""
    order = np.lexsort(-value_PK.T[::-1])   # a point can only be dominated by one that stands before it
    front: list[int] = []
    for point in order:
        better = value_PK[front]
        if not len(front) or not (better >= value_PK[point]).all(axis=1).any():
            front.append(int(point))
    chosen = np.zeros(len(value_PK), dtype=bool)
    chosen[front] = True
    return chosen
