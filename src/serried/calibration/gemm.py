"""Fit what a library makes of the matrix engines on measured matrix products.

Fitted are the physical parameters of `GemmParameters` named in FITTED, and the cast that low-precision rows contain,
in log space, with a robust loss on ln(predicted / measured); each parameter is drawn to its start by a weak prior, so
that what the rows cannot tell stays where it was. Nothing is drawn at random.

Axes: R = measured row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from serried.catalogue.entry import fold
from serried.catalogue.measurements import kernel_split, read_measurements, typed_columns
from serried.compiler import KernelFit, KernelProfile, QuantiseParameters, gemm_time_s, quantise_time_s
from serried.compiler.gemm import MEASURED_FORMATS, GemmParameters
from serried.errors import BadInput
from serried.silicon import Chip
from serried.workload import Floats

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FITTED", "FITTED_CASTS", "GemmFit", "GemmRows", "calibrated", "fit_gemm", "gemm_rows", "read_gemm_rows"]

FITTED = ("rate_ratio", "sustained_rate_ratio", "core_feed_ratio", "hbm_ratio", "drain_ratio", "resident_ratio",
          "ramp_cache_ratio", "ramp_s", "launch_s", "tile_s", "latency_s", "slice_s")
FITTED_CASTS = ("hbm_ratio", "core_ratio", "launch_s")
_OUTLIER = 0.15          # |ln ratio| from where the loss grows linearly
_PRIOR_ERROR = 0.2       # what a parameter moved by a factor of e costs, as an error of one row
_EVALUATIONS = 80
_DIGITS = 4              # what a profile file holds is what is judged


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmRows:
    """Measured products of one chip in one recipe, as columns over R; seconds of a captured launch."""

    chip: Chip
    number_format: str
    m: Floats
    n: Floats
    k: Floats
    time_s: Floats

    def __len__(self) -> int:
        return len(self.time_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmFit:
    """What came out: parameters, the cast if one was fitted, and ln(predicted / measured) of every row in order."""

    parameters: GemmParameters
    casts: QuantiseParameters | None
    residuals: Floats

    def kernel_fit(self, **provenance: str) -> KernelFit:
        """The provenance of the parameters, residuals included."""
        error = np.expm1(np.abs(self.residuals))
        return KernelFit(rows=len(error), median_error=round(float(np.median(error)), 4),
                         p90_error=round(float(np.quantile(error, 0.9)), 4), **provenance)


def fit_gemm(rows: Sequence[GemmRows], *, start: GemmParameters, casts: QuantiseParameters | None = None,
             fitted: Sequence[str] = FITTED, fitted_casts: Sequence[str] = FITTED_CASTS,
             prior_weight: float = 1.0) -> GemmFit:
    """The parameters that explain `rows` best, starting from and drawn to `start` (and `casts`).

    rows: one entry per chip and recipe; several are fitted by one set of parameters. casts: given where the rows
    contain the cast of operand A. fitted, fitted_casts: names that may move. prior_weight: pull to the start, as rows
    per parameter; with few rows of one's own the start should be the family's profile.
    Raises BadInput when there is no row.
    """
    from scipy.optimize import least_squares

    if not sum(map(len, rows)):
        raise BadInput(field="rows", value=0, expected="at least one measured matrix product",
                       remedy="Give rows with m, n, k, dtype and a time.")
    names: list[tuple[type, str]] = [(GemmParameters, name) for name in fitted]
    names += [(QuantiseParameters, name) for name in fitted_casts] if casts is not None else []
    limits = np.array([_limits(kind, name) for kind, name in names])
    first = np.log([getattr(start if kind is GemmParameters else casts, name) for kind, name in names])
    first = np.clip(first, limits[:, 0] + 1e-6, limits[:, 1] - 1e-6)

    def unpacked(point: Floats, digits: int = 16) -> tuple[GemmParameters, QuantiseParameters | None]:
        values = [float(f"{value:.{digits}g}") for value in np.exp(point)]
        moved: dict[str, Any] = dict(zip(fitted, values, strict=False))
        products = dataclasses.replace(start, **moved)
        if casts is None:
            return products, None
        return products, dataclasses.replace(casts, **dict(zip(fitted_casts, values[len(fitted):], strict=True)))

    def objective(point: Floats) -> Floats:
        prior = np.sqrt(prior_weight) * _PRIOR_ERROR * (point - first)
        return np.concatenate([_residuals(rows, *unpacked(point)), prior])

    found = least_squares(objective, first, bounds=(limits[:, 0], limits[:, 1]), loss="soft_l1", f_scale=_OUTLIER,
                          diff_step=1e-3, max_nfev=_EVALUATIONS)
    parameters, fitted_cast = unpacked(found.x, _DIGITS)
    return GemmFit(parameters=parameters, casts=fitted_cast, residuals=_residuals(rows, parameters, fitted_cast))


def _residuals(rows: Sequence[GemmRows], parameters: GemmParameters, casts: QuantiseParameters | None) -> Floats:
    parts = []
    for part in rows:
        time_s = gemm_time_s(part.m, part.n, part.k, chip=part.chip, parameters=parameters,
                             number_format=part.number_format)
        if casts is not None:
            time_s = time_s + quantise_time_s(part.m, part.k, chip=part.chip, parameters=casts,
                                              number_format=part.number_format)
        parts.append(np.log(time_s / part.time_s))
    return np.concatenate(parts)


def _limits(kind: type, name: str) -> tuple[float, float]:
    metadata = next(column.metadata for column in dataclasses.fields(kind) if column.name == name)
    return float(np.log(max(metadata["low"], 1e-12))), float(np.log(metadata["high"]))


def gemm_rows(frame: pl.DataFrame, *, chip: Chip, number_format: str, library: str = "",
              split: str | None = "calibrate") -> GemmRows:
    """The rows of a typed gemm table that one fit sees: of this chip, this recipe, this library's column.

    library: "" takes the column `time_us`. split: None takes all rows, as with a user's own measurements.
    """
    column = f"{library}_us" if library else "time_us"
    names = {fold(name) for name in (chip.name, *chip.aliases)}
    dtypes = {name for name, recipe in MEASURED_FORMATS.items() if recipe == number_format}
    kept = [row for row in frame.select("chip", "m", "n", "k", "dtype", column).iter_rows()
            if row[5] is not None and row[4] in dtypes and fold(row[0]) in names
            and (split is None or kernel_split(f"{row[2]},{row[3]}") == split)]
    m, n, k, time_us = (np.array([row[place] for row in kept], dtype=np.float64) for place in (1, 2, 3, 5))
    return GemmRows(chip=chip, number_format=number_format, m=m, n=n, k=k, time_s=time_us * 1e-6)


def read_gemm_rows(path: str | Path, *, chip: Chip, library: str = "") -> dict[str, GemmRows]:
    """A user's CSV (m, n, k, dtype, time_us; or the columns of the shipped table) as rows per recipe, all of them.

    A file without a `chip` column is taken to be about `chip`. library: column to read where there is no time_us.
    Raises BadInput naming file, row and field.
    """
    import polars as pl

    text = pl.read_csv(path, infer_schema=False)
    if "chip" not in text.columns:
        text = text.with_columns(pl.lit(chip.name).alias("chip"))
    frame, reasons = typed_columns(text, "gemm", file=str(path))
    bad = next(((row, reason) for row, reason in enumerate(reasons) if reason), None)
    if bad is not None:
        raise BadInput(file=str(path), field=f"row {bad[0] + 2}", value=bad[1], expected="whole m, n, k and a time",
                       remedy="Correct the cell, or remove the row.")
    unknown = sorted(set(frame["dtype"]) - set(MEASURED_FORMATS))
    if unknown:
        raise BadInput(file=str(path), field="dtype", value=unknown[0],
                       expected=f"one of {', '.join(MEASURED_FORMATS)}", remedy="Correct the name, or remove the rows.")
    if not library and frame["time_us"].null_count() == frame.height:
        library = next((name for name in ("trtllm", "vllm", "sglang")
                        if frame[f"{name}_us"].null_count() < frame.height), "")
    found = {recipe: gemm_rows(frame, chip=chip, number_format=recipe, library=library, split=None)
             for recipe in dict.fromkeys(MEASURED_FORMATS[name] for name in frame["dtype"])}
    return {recipe: rows for recipe, rows in found.items() if len(rows)}


def calibrated(profile: KernelProfile, chips: Sequence[Chip]) -> Mapping[str, Mapping[str, tuple[Any, KernelFit]]]:
    """The gemm and quantise families of a shipped profile, fitted anew on the shipped measurements.

    What is not fitted (tiles, step, limits; libraries and casts, by `fit`) is taken from the profile; what is fitted
    starts from the dataclass's defaults, so that running it twice changes nothing.
    """
    frame = read_measurements("gemm")
    gemms: dict[str, tuple[Any, KernelFit]] = {}
    casts: dict[str, tuple[Any, KernelFit]] = {}
    defaults = {name: _default(GemmParameters, name) for name in FITTED}
    for recipe, shipped in profile.families.get("gemm", {}).items():
        made_by = profile.fit("gemm", recipe)
        rows = [gemm_rows(frame, chip=chip, number_format=recipe, library=made_by.library) for chip in chips]
        rows = [part for part in rows if len(part)]
        if not rows:
            continue
        start = dataclasses.replace(shipped, **defaults)
        known = {"slice_s"} if shipped.slice_limit <= 1 else set()
        if made_by.casts and "bf16" in gemms:   # the launch of the product is told from that of the cast by bf16
            start = dataclasses.replace(start, launch_s=gemms["bf16"][0].launch_s)
            known.add("launch_s")
        fitted = tuple(name for name in FITTED if name not in known)
        found = fit_gemm(rows, start=start, fitted=fitted, casts=QuantiseParameters() if made_by.casts else None)
        told = {"library": made_by.library, "release": made_by.release, "source": made_by.source}
        gemms[recipe] = (found.parameters, found.kernel_fit(**told, casts=made_by.casts))
        if found.casts is not None:
            casts[made_by.casts] = (found.casts, found.kernel_fit(**told))
    for recipe, made_by in profile.fits.get("quantise", {}).items():
        if recipe in gemms and recipe not in casts and made_by.library:
            casts[recipe] = _cast_alone(frame, chips, recipe, made_by, gemms[recipe][0])
    return {"gemm": gemms, "quantise": casts}


def _cast_alone(frame: pl.DataFrame, chips: Sequence[Chip], recipe: str, made_by: KernelFit,
                product: GemmParameters) -> tuple[Any, KernelFit]:
    """The cast of a library whose products are not in the profile: what its rows take beyond the profile's product."""
    rows = [gemm_rows(frame, chip=chip, number_format=recipe, library=made_by.library) for chip in chips]
    found = fit_gemm([part for part in rows if len(part)], start=product, fitted=(), casts=QuantiseParameters())
    return found.casts, found.kernel_fit(library=made_by.library, release=made_by.release, source=made_by.source)


def _default(kind: type, name: str) -> float:
    return float(next(column.default for column in dataclasses.fields(kind) if column.name == name))  # type: ignore[arg-type]
