"""Nouns of the evidence: cases as columns.

Axes: C = case, one entry per measured row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from serried.workload import Floats

__all__ = ["EVIDENCE_CLASSES", "CaseResults", "EvidenceClass"]

#: From the surest to the least sure; the class of a prediction decides the width of its interval.
EvidenceClass = Literal["kernel-calibrated chip", "same family", "data sheet only"]
EVIDENCE_CLASSES: tuple[EvidenceClass, ...] = ("kernel-calibrated chip", "same family", "data sheet only")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResults:
    """Predicted beside measured, as columns over C; what the reader of every area returns.

    area: "kernels" | "collectives" | "training" | "serving" | "fleet". groups: column name to one label per case (chip,
    source, operator, library, format, framework, ...): the page breaks down by these.
    predicted, measured: in `units`; NaN predicted when `skipped` gives a reason.
    split: "calibrate" or "validate" per case; parameters were fitted on calibrate rows only.
    fold: label of what generalisation is judged over (a source, a model, an (n, k) pair), for cross-validated spreads.
    low, high: 80 % interval; empty where `intervals` is to fill it in from residuals.
    """

    area: str
    ids: Sequence[str]
    predicted: Floats
    measured: Floats
    units: Sequence[str]
    split: Sequence[str]
    evidence_class: Sequence[str]
    skipped: Sequence[str | None]
    groups: dict[str, Sequence[str]] = field(default_factory=dict)
    fold: Sequence[str] = ()
    low: Floats = field(default_factory=lambda: np.empty(0))
    high: Floats = field(default_factory=lambda: np.empty(0))
