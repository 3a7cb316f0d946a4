"""Drafted tokens: how many steps a request needs when some of the drafts are accepted.

A step yields one token and every draft before the first that is rejected. With a_i the chance that the draft at
position i is accepted given that all before it were, a step yields n tokens with the chance a_1 ... a_{n-1} (1 - a_n).

Axes: R = request, K = tokens of a step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serried.engine.spec import Floats, Ints
from serried.errors import BadInput

__all__ = ["decode_steps", "tokens_per_step"]

_STEPS_AT_ONCE = 64


def _chances_K(acceptance: Sequence[float]) -> Floats:
    accepted = np.asarray(acceptance, dtype=np.float64)
    if not ((accepted >= 0) & (accepted <= 1)).all():
        raise BadInput(field="acceptance", value=list(acceptance), expected="chances from 0 to 1, one a position",
                       remedy="Write for example 0.8,0.6,0.4.")
    reached = np.concatenate([[1.0], np.cumprod(accepted)])
    return np.asarray(reached * np.concatenate([1.0 - accepted, [1.0]]))


def tokens_per_step(acceptance: Sequence[float]) -> float:
    """Mean tokens of one step: 1 + a_1 + a_1 a_2 + ..."""
    return float(1.0 + np.cumprod(np.asarray(acceptance, dtype=np.float64)).sum()) if acceptance else 1.0


def decode_steps(tokens_R: Ints, acceptance: Sequence[float], seed: int) -> Ints:
    """Steps until at least so many tokens are there, one draw per request and step; tokens_R itself without drafts."""
    if not acceptance:
        return tokens_R.copy()
    chances_K, random = _chances_K(acceptance), np.random.default_rng(np.random.SeedSequence([seed, 0x5EC]))
    steps_R, left_R = np.zeros_like(tokens_R), tokens_R.copy()
    open_R = np.flatnonzero(left_R > 0)
    edges_K = np.cumsum(chances_K)[:-1]
    while len(open_R):
        drawn = 1 + np.searchsorted(edges_K, random.random((len(open_R), _STEPS_AT_ONCE)), side="right")
        sums = np.cumsum(drawn, axis=1)
        is_done = sums >= left_R[open_R, None]
        reached = is_done[:, -1]
        steps_R[open_R] += np.where(reached, is_done.argmax(axis=1) + 1, _STEPS_AT_ONCE)
        left_R[open_R] -= sums[:, -1]
        open_R = open_R[~reached]
    return steps_R
