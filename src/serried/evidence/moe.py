"""Layers of experts: predicted beside measured, one library and release a chip and format.

A shape family (hidden, inner, experts, degrees) is in the calibrate or in the validate half with all its token counts
and load distributions.

Axes: C = case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from serried.catalogue.measurements import kernel_split, typed_columns
from serried.compiler import KernelProfile, profile_for
from serried.compiler.expert_cases import ExpertCases, expert_cases
from serried.compiler.experts import expert_layer_time_s
from serried.errors import BadInput
from serried.evidence.spec import CaseResults
from serried.silicon import Chip, read_chip

if TYPE_CHECKING:
    import polars as pl

__all__ = ["COLUMNS", "evaluate"]

COLUMNS = ("chip", "moe_dtype", "num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "distribution",
           "time_us")


def evaluate(frame: pl.DataFrame) -> CaseResults:
    """Predict every row of a MoE table; a row that cannot be used says why.

    Only rows of the library and release that the chip's profile was fitted on are judged, where the row names one.
    """
    cases = expert_cases(*typed_columns(frame, "moe"))
    count = len(cases.reason)
    reasons, classes, predicted = list(cases.reason), ["data sheet only"] * count, np.full(count, np.nan)
    blocks: dict[tuple[str, str], list[int]] = {}
    for row in range(count):
        blocks.setdefault((cases.chip[row], cases.number_format[row]), []).append(row)
    for (chip_name, recipe), rows in blocks.items():
        try:
            chip = read_chip(chip_name)
            profile = profile_for(chip)
        except BadInput as error:
            for row in rows:
                reasons[row] = reasons[row] or f"chip: {error}"
            continue
        told = profile.fit("grouped_gemm", recipe)
        for row in rows:
            classes[row] = profile.evidence_class
            if cases.library[row] and (cases.library[row], cases.release[row]) != (told.library, told.release):
                reasons[row] = reasons[row] or (f"measured with another library or release than the profile's "
                                                f"{told.library} {told.release}".rstrip())
        used = [row for row in rows if reasons[row] is None]
        if used:
            predicted[used] = _predicted_s(cases, used, chip, profile, recipe)
    return CaseResults(
        area="kernels", ids=cases.label, predicted=predicted, measured=cases.time_s, units=["s"] * count,
        split=[kernel_split(family) for family in cases.family], evidence_class=classes, skipped=reasons,
        fold=cases.family, groups={"kernel": ["moe"] * count, "chip": cases.chip, "format": cases.number_format,
                                   "library": cases.library})


def _predicted_s(cases: ExpertCases, rows: list[int], chip: Chip, profile: KernelProfile, recipe: str) -> np.ndarray:
    return expert_layer_time_s(
        cases.layer_of(np.array(rows, dtype=np.intp)), chip=chip, number_format=recipe,
        products=profile.parameters("grouped_gemm", recipe), route=profile.parameters("route", recipe))
