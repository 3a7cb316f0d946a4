"""When requests arrive: processes drawn from a seed. All give int64 nanoseconds, ascending, over R."""

from __future__ import annotations

import numpy as np

from serried.errors import BadInput
from serried.traffic.spec import Floats, Ints

__all__ = ["bursts", "constant", "diurnal", "gamma", "poisson"]

_NS = 1e9
_LONGEST_S = 3.2e9   # nanoseconds since the beginning are counted in 64 bits


def constant(rate_per_s: float, count: int) -> Ints:
    """Evenly spaced."""
    return _ns(np.arange(count) / _positive(rate_per_s, "rate"))


def poisson(rate_per_s: float, count: int, random: np.random.Generator) -> Ints:
    """Independent users: exponential gaps."""
    return _ns(np.cumsum(random.exponential(1.0 / _positive(rate_per_s, "rate"), count)))


def gamma(rate_per_s: float, count: int, random: np.random.Generator, *, variation: float,
          until_s: float = np.inf) -> Ints:
    """Gaps with that coefficient of variation: 1 is Poisson, above it arrivals bunch, below it they are regular.

    until_s: only the arrivals before then, at most `count`.
    """
    shape = 1.0 / _positive(variation, "variation")**2
    time_s = np.cumsum(random.gamma(shape, 1.0 / (shape * _positive(rate_per_s, "rate")), count))
    return _ns(time_s[time_s < until_s])


def bursts(rate_per_s: float, count: int, random: np.random.Generator, *, ratio: float, on_s: float,
           off_s: float) -> Ints:
    """Poisson arrivals whose rate is `ratio` times higher for on_s seconds than for the off_s between; the mean rate is
    rate_per_s."""
    for name, value in (("rate", rate_per_s), ("ratio", ratio), ("on", on_s), ("off", off_s)):
        _positive(value, name)
    low = rate_per_s * (on_s + off_s) / (ratio * on_s + off_s)
    edges_s, rates = np.array([0.0, on_s, on_s + off_s]), np.array([low * ratio, low])
    return _ns(_warped(np.cumsum(random.exponential(1.0, count)), edges_s, rates))


def diurnal(rate_per_s: float, count: int, random: np.random.Generator, *, swing: float = 0.5,
            period_s: float = 86_400.0) -> Ints:
    """Poisson arrivals whose rate goes up and down once a period, by `swing` of the mean (0 to 1), lowest at first."""
    if not 0.0 <= swing < 1.0:
        raise BadInput(field="swing", value=swing, expected="0 or more and less than 1", remedy="0.5 is a usual day.")
    edges_s = np.linspace(0.0, _positive(period_s, "period"), 97)
    middle = 0.5 * (edges_s[1:] + edges_s[:-1]) / period_s
    rates = _positive(rate_per_s, "rate") * (1.0 - swing * np.cos(2.0 * np.pi * middle))
    return _ns(_warped(np.cumsum(random.exponential(1.0, count)), edges_s, rates))


def _warped(work: Floats, edges_s: Floats, rates: Floats) -> Floats:
    """Times at which a rate that repeats itself has let through so much: unit-rate arrivals in its operational time."""
    within = np.concatenate([[0.0], np.cumsum(np.diff(edges_s) * rates)])
    periods, rest = np.divmod(work, within[-1])
    return np.asarray(periods * edges_s[-1] + np.interp(rest, within, edges_s))


def _positive(value: float, field: str) -> float:
    if not 0.0 < value < 1e12:
        raise BadInput(field=field, value=value, expected="a number above zero",
                       remedy="Rates are in requests/s, durations in s.")
    return float(value)


def _ns(time_s: Floats) -> Ints:
    if len(time_s) and not time_s[-1] < _LONGEST_S:
        raise BadInput(field="rate", value=f"{len(time_s)} requests in {time_s[-1]:.3g} s",
                       expected="arrivals within a century", remedy="Raise the rate, or send fewer requests.")
    return np.asarray(np.round(time_s * _NS), dtype=np.int64)
