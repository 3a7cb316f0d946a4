"""Fit what nobody's shipped table measures: kernels that only move bytes, and attention's backward, on a user's rows.

Few parameters each, in log space, with a robust loss on ln(predicted / measured), drawn to what the chip's profile says
without the rows. Axes: R = measured row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serried.calibration.own import LEAST_ROWS, Moved, OwnFit
from serried.compiler import KernelFit, KernelProfile, attention_backward_time_s, attention_shape, memory_bound_time_s
from serried.errors import BadInput
from serried.silicon import Chip
from serried.workload import Floats

__all__ = ["fit_own_backward", "fit_own_memory"]

_MEMORY = ("read_bytes", "write_bytes", "kernels", "time_us")
_BACKWARD = ("batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim", "time_us")
_OUTLIER = 0.15        # |ln ratio| from where the loss grows linearly
_PRIOR_ERROR = 0.05    # what a parameter moved by a factor of e costs, as an error of one row
_DIGITS = 4
_MOST = 1e15


def fit_own_memory(path: Path, chip: Chip, base: KernelProfile) -> OwnFit:
    """From a CSV of name, read_bytes, write_bytes, kernels, time_us: the one law of kernels that only move bytes.

    Bytes and kernels as the workload counts an operator (one visit of each operand a kernel), times as the library
    runs it. BadInput for a missing column, a bad cell and too few rows.
    """
    frame = _read(path, _MEMORY)
    read, write, kernels, time_us = (_numbers(frame, name, path, low=0.0 if "bytes" in name else 1e-6)
                                     for name in _MEMORY)
    labels = [f"{name}: {moved / 1e6:.3g} MB" for name, moved in zip(
        frame["name"] if "name" in frame.columns else ["kernel"] * frame.height, read + write, strict=True)]

    def predict(parameters: Any) -> Floats:
        return np.array([float(memory_bound_time_s(r, w, chip=chip, parameters=parameters, kernel_count=k))
                         for r, w, k in zip(read, write, kernels, strict=True)])

    free = ("hbm_ratio", "cache_ratio", "launch_s") if chip.get("cache") else ("hbm_ratio", "launch_s")
    return _own("memory_bound", "bf16", free, predict, time_us * 1e-6, labels, base)


def fit_own_backward(path: Path, chip: Chip, base: KernelProfile, forward: OwnFit | None) -> OwnFit | None:
    """Attention's backward, from the rows of an attention table whose column `phase` says so; None without any.

    forward: the fit of the same file's forward rows, whose tiles and overlap backward shares.
    """
    import polars as pl

    frame = _read(path, _BACKWARD)
    if "phase" not in frame.columns:
        return None
    frame = frame.filter(pl.col("phase") == "backward")
    if frame.height < LEAST_ROWS:
        return None
    sequences, tokens, heads, kv_heads, head_dim, time_us = (_numbers(frame, name, path, low=1e-6)
                                                             for name in _BACKWARD)
    shape = attention_shape(sequences=sequences, query_tokens=tokens, context_tokens=tokens, heads=heads,
                            kv_heads=kv_heads, head_dim=head_dim)
    recipe = "fp32" if "attn_dtype" in frame.columns and frame["attn_dtype"][0] in ("fp32", "float32") else "bf16"
    shared = forward.table[0] if forward is not None and forward.table else base.parameters("attention", recipe)

    def predict(parameters: Any) -> Floats:
        return attention_backward_time_s(shape, chip=chip, parameters=shared, backward=parameters,
                                         number_format=recipe)

    labels = [f"{batch:.0f} x {new:.0f} tokens, {count:.0f} heads, backward"
              for batch, new, count in zip(sequences, tokens, heads, strict=True)]
    return _own("attention_backward", recipe, ("rate_ratio", "vector_ratio", "launch_s"), predict, time_us * 1e-6,
                labels, base)


def _own(family: str, variant: str, free: Sequence[str], predict: Callable[[Any], Floats], measured_s: Floats,
         labels: Sequence[str], base: KernelProfile) -> OwnFit:
    if len(measured_s) < LEAST_ROWS:
        raise BadInput(field=f"rows of {family}", value=len(measured_s), expected=f"at least {LEAST_ROWS} rows to fit",
                       remedy="Measure more sizes.")
    start = base.parameters(family, variant)
    fitted = _fit(start, free, predict, measured_s)
    predicted_s = predict(fitted)
    error = np.expm1(np.abs(np.log(predicted_s / measured_s)))
    told = KernelFit(library="own", rows=len(error), median_error=round(float(np.median(error)), 4),
                     p90_error=round(float(np.quantile(error, 0.9)), 4), source="own measurements")
    columns = {column.name: column.metadata for column in dataclasses.fields(start)}
    moved = [Moved(name=name, unit=columns[name]["unit"], description=columns[name]["description"],
                   before=getattr(start, name), after=getattr(fitted, name)) for name in free]
    return OwnFit(subject=f"{family}.{variant}", start=f"{base.name} ({base.evidence_class})", labels=labels,
                  before_s=predict(start), predicted_s=predicted_s, measured_s=measured_s, moved=moved,
                  table=(fitted, told))


def _fit(start: Any, free: Sequence[str], predict: Callable[[Any], Floats], measured_s: Floats) -> Any:
    from scipy.optimize import least_squares

    columns = {column.name: column.metadata for column in dataclasses.fields(start)}
    low = np.log([max(columns[name]["low"], 1e-9) for name in free])
    high = np.log([columns[name]["high"] for name in free])
    first = np.clip(np.log([max(getattr(start, name), 1e-9) for name in free]), low + 1e-6, high - 1e-6)

    def parameters(point: Floats) -> Any:
        return dataclasses.replace(start, **{name: float(f"{value:.{_DIGITS}g}") for name, value in
                                             zip(free, np.clip(np.exp(point), np.exp(low), np.exp(high)), strict=True)})

    def residuals(point: Floats) -> Floats:
        return np.concatenate([np.log(predict(parameters(point)) / measured_s), _PRIOR_ERROR * (point - first)])

    found = least_squares(residuals, first, bounds=(low, high), loss="soft_l1", f_scale=_OUTLIER, diff_step=1e-2)
    return parameters(found.x)


def _read(path: Path, needed: Sequence[str]) -> Any:
    import polars as pl

    try:
        frame = pl.read_csv(path, infer_schema=False)
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise BadInput(file=str(path), field="file", value=path.name, expected="a CSV with a header",
                       remedy=(str(error).splitlines() or ["Check the file."])[0]) from None
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise BadInput(file=str(path), field="header", value=f"no column {missing[0]!r}",
                       expected=f"the columns {', '.join(needed)}", remedy="Add the column.")
    return frame


def _numbers(frame: Any, name: str, path: Path, *, low: float) -> Floats:
    """One column; BadInput for the first cell that is no number from `low` on."""
    import polars as pl

    cells = frame[name]
    values = np.asarray(cells.str.strip_chars().cast(pl.Float64, strict=False).to_numpy(), dtype=np.float64)
    bad = np.flatnonzero(~((values >= low) & (values <= _MOST)))
    if len(bad):
        raise BadInput(file=str(path), field=f"row {bad[0] + 2}, {name}", value=cells[int(bad[0])],
                       expected=f"a number from {low:g} to {_MOST:g}", remedy="Correct the cell, or remove the row.")
    return values
