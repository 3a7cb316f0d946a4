"""Attention kernels: predicted beside measured, for new tokens, decode and latent attention.

Every row is compared with the one library that the chip's profile speaks for; rows that this library was not measured
on are skipped with that reason. A chip without a profile of its own is compared with the only library its row has.

Axes: C = case, one entry per row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from serried.catalogue.measurements import typed_columns
from serried.compiler import KernelProfile, profile_for
from serried.compiler.attention_cases import AttentionCases, attention_cases, case_time_s
from serried.errors import SerriedError
from serried.evidence.spec import CaseResults
from serried.silicon import Chip, read_chip
from serried.workload import Floats

if TYPE_CHECKING:
    import polars as pl

__all__ = ["COLUMNS", "evaluate"]

#: Columns of attention and decode tables, and of latent-attention tables.
COLUMNS = (
    ("chip", "batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim", "attn_dtype", "kv_cache_dtype",
     "step"),
    ("chip", "op_name", "mla_dtype", "kv_cache_dtype", "num_heads", "batch_size", "isl", "tp_size", "step", "time_us"),
)


def evaluate(frame: pl.DataFrame) -> CaseResults:
    """Predict every row of a table of attention kernels (text cells), in microseconds; bad rows carry their reason."""
    typed, bad = typed_columns(frame, "mla" if "op_name" in frame.columns else "attention_context")
    cases = attention_cases(typed)
    count = len(cases)
    skipped: list[str | None] = [cell or reason for cell, reason in zip(bad, cases.unusable, strict=True)]
    predicted_s, measured_s = np.full(count, np.nan), np.full(count, np.nan)
    classes, libraries, fitted = ["data sheet only"] * count, [""] * count, np.zeros(count, dtype=bool)
    for label, family, variant, rows in cases.blocks():
        rows = np.array([row for row in rows if skipped[row] is None], dtype=np.intp)
        found = _machine(label)
        if isinstance(found, str):
            _skip(skipped, rows, found)
            continue
        chip, profile = found
        library = _library(cases, profile, family, variant, rows)
        for row in rows:
            classes[row], libraries[row] = profile.evidence_class, library
        measured_s[rows] = cases.times_s.get(library, np.full(count, np.nan))[rows]
        _skip(skipped, rows[np.isnan(measured_s[rows])], f"not measured with {library or 'one library alone'}")
        try:
            parameters = profile.parameters(family, variant)
            predicted_s[rows] = case_time_s(cases.shape_at(rows), family, variant, chip=chip, parameters=parameters)
        except SerriedError as error:
            _skip(skipped, rows, str(error))
        fitted[rows] = (profile.evidence_class == "kernel-calibrated chip") & ~cases.validate[rows]
    return _results(cases, predicted_s, measured_s, skipped, classes, libraries, fitted)


def _machine(label: str) -> tuple[Chip, KernelProfile] | str:
    """Chip and profile of a label in a file, or why there is none."""
    try:
        chip = read_chip(label)
        return chip, profile_for(chip)
    except SerriedError as error:
        return str(error)


def _library(cases: AttentionCases, profile: KernelProfile, family: str, variant: str, rows: NDArray[np.intp]) -> str:
    """The library to compare with: the profile's, else the one column of times that says no library, else the only."""
    fit = profile.fit(family, variant)
    named = " ".join(part for part in (fit.library, fit.release) if part)
    timed = [name for name, time_s in cases.times_s.items() if np.isfinite(time_s[rows]).any()]
    if named in timed and profile.chips and profile.evidence_class == "kernel-calibrated chip":
        return named
    if "time" in timed:
        return "time"
    own = profile.evidence_class == "kernel-calibrated chip"
    return named if own or len(timed) != 1 else timed[0]


def _skip(skipped: list[str | None], rows: NDArray[np.intp], reason: str) -> None:
    for row in rows:
        skipped[row] = skipped[row] or reason


def _results(cases: AttentionCases, predicted_s: Floats, measured_s: Floats, skipped: list[str | None],
             classes: list[str], libraries: list[str], fitted: NDArray[np.bool_]) -> CaseResults:
    predicted_s = np.where([reason is not None for reason in skipped], np.nan, predicted_s)
    return CaseResults(
        area="kernels", ids=[f"{kind}:{row}" for row, kind in enumerate(cases.kind)], predicted=predicted_s * 1e6,
        measured=measured_s * 1e6, units=["us"] * len(cases), evidence_class=classes, skipped=skipped,
        split=np.where(fitted, "calibrate", "validate").tolist(), fold=list(cases.key),
        groups={"chip": list(cases.chip), "operator": ["attention"] * len(cases), "kind": list(cases.kind),
                "library": libraries, "format": [variant.removeprefix("latent-") for variant in cases.variant]})
