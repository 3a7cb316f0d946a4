"""How fast is serried? Each module has `run() -> list[Row]`; `python -m benchmarks` prints them all.

Every run prints the rate of a fixed numpy kernel on the same machine beside it, so that figures from different machines
can be compared.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

__all__ = ["Row", "reference_rate_per_s"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One benchmark figure; `bar` is what it must reach ("" = none), `met` whether it does."""

    name: str
    value: float
    unit: str
    bar: str = ""
    met: bool = True


def reference_rate_per_s(*, seconds: float = 0.5) -> float:
    """Elements per second of a fixed float64 expression over a column that fits in cache: how fast this machine is."""
    column = np.linspace(1.0, 2.0, 50_000)
    other = column[::-1].copy()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        np.maximum(column * other + column / other, column)
        count += len(column)
    return count / (time.perf_counter() - started)
