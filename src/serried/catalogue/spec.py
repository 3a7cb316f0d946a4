"""Nouns of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["STATUSES", "Figure", "Status"]

Status = Literal["measured", "specified", "estimated", "assumed"]
STATUSES: tuple[Status, ...] = ("measured", "specified", "estimated", "assumed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number with its provenance.

    value: in the SI base unit `unit` (bytes/s, flop/s, s, W, usd, 1, ...).
    status: how surely it is known; `estimated` and `assumed` widen intervals.
    source: who says so.
    spread: half-width of an 80 % interval as a fraction of the value (0.1 = ±10 %).
    """

    value: float
    unit: str
    status: Status
    source: str
    spread: float = 0.0
