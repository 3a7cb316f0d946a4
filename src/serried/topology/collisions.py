"""How full is the fullest of equal links when flows are hashed onto them? Exactly, without sampling."""

from __future__ import annotations

import math

import numpy as np

from serried.topology.spec import Floats

__all__ = ["expected_fullest", "fullest_probabilities"]


def fullest_probabilities(flow_count: int, link_count: int) -> Floats:
    """P(fullest link carries at most m flows), m = 0 ... flow_count, flows hashed evenly and on their own.

    The number of ways is n! [x^n] (sum_{j <= m} x^j / j!)^k. With x scaled to the mean load the coefficients are
    truncated Poisson probabilities, so that the power is a convolution of well-scaled columns.
    """
    from scipy.special import gammaln  # late: a verb that only asks for a law starts without it

    assert flow_count >= 0, "a number of flows"
    assert link_count >= 1, "at least one link"
    mean, count = flow_count / link_count, np.arange(flow_count + 1)
    poisson = np.exp(count * math.log(max(mean, 1e-300)) - mean - gammaln(count + 1.0))
    if flow_count == 0:
        return np.ones(1)
    whole = math.exp(flow_count * math.log(flow_count) - flow_count - math.lgamma(flow_count + 1.0))
    at_most = np.zeros(flow_count + 1)
    for most in range(math.ceil(mean), flow_count + 1):
        at_most[most] = min(1.0, _power(poisson[:most + 1], link_count, flow_count)[flow_count] / whole)
        if at_most[most] > 1.0 - 1e-12:
            at_most[most:] = 1.0
            break
    return at_most


def _power(column: Floats, exponent: int, degree: int) -> Floats:
    """A polynomial to a power, up to `degree`."""
    from scipy.signal import fftconvolve

    result: Floats = np.r_[1.0, np.zeros(degree)]
    square: Floats = np.zeros(degree + 1)
    square[:len(column)] = column
    while exponent:
        if exponent & 1:
            result = np.maximum(fftconvolve(result, square)[:degree + 1], 0.0)
        exponent >>= 1
        square = np.maximum(fftconvolve(square, square)[:degree + 1], 0.0) if exponent else square
    return result


def expected_fullest(flow_count: int, link_count: int) -> float:
    """Mean number of flows on the fullest link."""
    return float((1.0 - fullest_probabilities(flow_count, link_count)).sum())
