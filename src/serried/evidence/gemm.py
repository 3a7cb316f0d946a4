"""Matrix products: predicted beside measured, one library a chip and format.

Rows are kept apart by (n, k): a pair is in the calibrate half or in the validate half, with all its m, by
`catalogue.measurements.kernel_split`. Where the measured time contains the cast of operand A, so does the prediction.

Axes: C = case.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from serried.catalogue.measurements import kernel_split, typed_columns
from serried.compiler import KernelProfile, gemm_time_s, profile_for, quantise_time_s
from serried.compiler.gemm import ENGINE_FORMAT, MEASURED_FORMATS
from serried.errors import BadInput
from serried.evidence.spec import CaseResults
from serried.silicon import Chip, read_chip
from serried.workload import Floats

if TYPE_CHECKING:
    import polars as pl

__all__ = ["COLUMNS", "evaluate"]

COLUMNS = ("chip", "m", "n", "k", "dtype")
_LIBRARY_COLUMNS = ("trtllm_us", "vllm_us", "sglang_us")
_PLAIN_TIME = "time_us"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Cases of one chip and one dtype: what times them, or why nothing does."""

    chip: Chip | None
    profile: KernelProfile | None
    recipe: str
    library: str
    reason: str | None


def evaluate(frame: pl.DataFrame) -> CaseResults:
    """Predict every row of a gemm table (`chip, m, n, k, dtype` and times); a row that cannot be used says why.

    The measured time is `time_us` where the table has it, else the column of the library whose kernels the chip's
    profile was fitted on: never the minimum over libraries.
    """
    typed, reasons = typed_columns(frame, "gemm")
    count = typed.height
    shape = {name: typed[name].fill_null(1).to_numpy().astype(np.float64) for name in ("m", "n", "k")}
    chips = [str(name or "") for name in typed["chip"]]
    dtypes = [str(name or "") for name in typed["dtype"]]
    times_s = {name: typed[name].cast(float).fill_null(np.nan).to_numpy() * 1e-6
               for name in (_PLAIN_TIME, *_LIBRARY_COLUMNS)}
    predicted, measured = np.full(count, np.nan), np.full(count, np.nan)
    libraries, classes = [""] * count, ["data sheet only"] * count
    for (chip_name, dtype), rows in _rows_of(chips, dtypes).items():
        block = _block(chip_name, dtype)
        usable = np.array([reasons[row] is None for row in rows], dtype=bool)
        if block.reason is None and usable.any():
            assert block.profile is not None, "a block without a reason has a profile"
            measured[rows] = _measured_s(times_s, block.library, rows)
            usable &= np.isfinite(measured[rows])
            kept = rows[usable]
            predicted[kept] = _predicted_s(block, *(shape[name][kept] for name in ("m", "n", "k")))
        for row in rows:
            libraries[row] = block.library or "unknown"
            classes[row] = block.profile.evidence_class if block.profile else "data sheet only"
            if reasons[row] is None:
                reasons[row] = block.reason
            if reasons[row] is None and not np.isfinite(measured[row]):
                reasons[row] = f"no time of {block.library}, the library of the chip's profile"
    pairs = [f"{n:.0f},{k:.0f}" for n, k in zip(shape["n"], shape["k"], strict=True)]
    formats = [MEASURED_FORMATS.get(name, name) for name in dtypes]
    return CaseResults(
        area="kernels", predicted=predicted, measured=measured, units=["s"] * count,
        ids=[f"gemm {chip} {dtype} m={m:.0f} n={n:.0f} k={k:.0f}" for chip, dtype, m, n, k in
             zip(chips, dtypes, shape["m"], shape["n"], shape["k"], strict=True)],
        split=[kernel_split(pair) for pair in pairs], evidence_class=classes, skipped=reasons, fold=pairs,
        groups={"kernel": ["gemm"] * count, "chip": chips, "format": formats, "library": libraries})


def _rows_of(chips: list[str], dtypes: list[str]) -> dict[tuple[str, str], np.ndarray]:
    found: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(zip(chips, dtypes, strict=True)):
        found.setdefault(key, []).append(row)
    return {key: np.array(rows) for key, rows in found.items()}


@functools.cache
def _block(chip_name: str, dtype: str) -> _Block:
    """What times the cases of this chip in this dtype; a reason instead where nothing does."""
    recipe = MEASURED_FORMATS.get(dtype, "")
    try:
        chip = read_chip(chip_name)
    except BadInput as error:
        return _Block(chip=None, profile=None, recipe=recipe, library="", reason=f"chip: {error}")
    profile = profile_for(chip)
    if not recipe:
        return _Block(chip=chip, profile=profile, recipe="", library="",
                      reason=f"{dtype}: a format that is not timed")
    try:
        chip.matrix_peak_flop_per_s(ENGINE_FORMAT[recipe])
    except BadInput as error:
        return _Block(chip=chip, profile=profile, recipe=recipe, library="", reason=str(error))
    return _Block(chip=chip, profile=profile, recipe=recipe, library=profile.fit("gemm", recipe).library, reason=None)


def _measured_s(times_s: dict[str, Floats], library: str, rows: np.ndarray) -> Floats:
    plain_s = times_s[_PLAIN_TIME][rows]
    column = f"{library}_us"
    return np.where(np.isfinite(plain_s), plain_s, times_s[column][rows] if column in times_s else np.nan)


def _predicted_s(block: _Block, m: Floats, n: Floats, k: Floats) -> Floats:
    assert block.chip is not None, "a block without a reason has a chip"
    assert block.profile is not None, "a block without a reason has a profile"
    time_s = gemm_time_s(m, n, k, chip=block.chip, parameters=block.profile.parameters("gemm", block.recipe),
                         number_format=block.recipe)
    casts = block.profile.fit("gemm", block.recipe).casts
    if casts:
        time_s = time_s + quantise_time_s(m, k, chip=block.chip, number_format=block.recipe,
                                          parameters=block.profile.parameters("quantise", casts))
    return time_s
