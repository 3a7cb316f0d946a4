"""Order-free attribution: the Shapley value of a game over switches.

Axes: C = coalition, 2**n of them; switch i is on in coalition c when bit i of c is set. I = player.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from serried.workload.spec import Floats

__all__ = ["coalitions", "shapley_values", "shapley_weights"]


def coalitions(player_count: int) -> NDArray[np.bool_]:
    """Which switches are on in each coalition: (2**n, n), row c is the binary number c, least bit first."""
    numbers = np.arange(2**player_count)
    return np.asarray((numbers[:, None] >> np.arange(player_count)) & 1 == 1)


@functools.cache
def shapley_weights(player_count: int) -> Floats:
    """Linear form of the Shapley value: (n, 2**n) with phi = weights @ value.

    phi_i is the mean over all orders of what player i adds when it joins (Shapley 1953): a coalition s without i has
    weight |s|! (n - |s| - 1)! / n!.
    """
    on = coalitions(player_count)
    others = on.sum(axis=1)[None, :] - on.T
    of_count = np.array([math.factorial(s) * math.factorial(player_count - s - 1) / math.factorial(player_count)
                         for s in range(player_count)])
    return np.asarray(np.where(on.T, 1.0, -1.0) * of_count[np.minimum(others, player_count - 1)])


def shapley_values(value_C: Floats) -> Floats:
    """Attribution of value_C[-1] - value_C[0] to n players; value_C has 2**n entries (further axes are kept).

    The attributions add up to the difference exactly, up to rounding.
    """
    player_count = int(value_C.shape[0]).bit_length() - 1
    assert value_C.shape[0] == 2**player_count, "a game has a value for every subset"
    return np.asarray(np.tensordot(shapley_weights(player_count), value_C, axes=1))
