"""Fit attention kernels on measured ones: context, decode and latent attention.

Continuous parameters by robust least squares on log times, each held near its default by a prior so weak that only what
the measurements cannot tell follows it; tiles by trying the ones kernels use, one head dimension at a time. Only
calibrate rows are seen. Deterministic: no random start.

Axes: R = measured row of one chip, kernel family and variant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from serried.compiler import FAMILIES, KernelFit, KernelProfile, profile_for
from serried.compiler.attention_cases import VARIANTS, AttentionCases, attention_cases, case_time_s
from serried.compiler.shape import AttentionShape
from serried.errors import BadInput
from serried.silicon import Chip, read_chip
from serried.workload import Floats

if TYPE_CHECKING:
    import polars as pl

__all__ = ["AttentionFit", "calibrated", "fit_attention", "fit_block"]

#: Tiles that a search may choose from, and the head dimensions at which tables step.
_ROWS = {"attention": ((16, 32, 64, 128, 192, 256), (16, 32, 64, 96, 128)),
         "decode": ((8, 16, 32, 64, 128), (16, 32, 64, 96, 128, 256))}
_STEPS = (64, 128, 192, 256, 1024)
_START = {"attention": (128, 64), "decode": (64, 128)}
#: A tile is changed only for a gain this large, so that noise does not choose.
_TILE_GAIN = 0.98
_SCALE = 0.1       # |ln| error beyond which a row counts linearly
_PRIOR = 0.02      # residual per unit of distance from the default
_LEAST_ROWS = 20
_LEAST = 1e-9      # seconds or ratios below this are nothing
_SOURCE = "kernel timings of 2025-2026, captured launches (measurements/kernels)"
#: Fields that a continuous fit leaves alone.
_CHOSEN = ("tiles", "packs_heads", "core_count", "matrix_ratio")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionFit:
    """Parameters of one kernel family and variant, where they come from, and every row beside its prediction.

    Columns over R: rows (index into the table), predicted_s, measured_s, validate (not fitted).
    """

    family: str
    variant: str
    parameters: Any
    fit: KernelFit
    rows: NDArray[np.intp]
    predicted_s: Floats
    measured_s: Floats
    validate: NDArray[np.bool_]

    @property
    def error(self) -> Floats:
        """exp(|ln(predicted / measured)|) - 1 per row."""
        return np.asarray(np.expm1(np.abs(np.log(self.predicted_s / self.measured_s))))


def fit_attention(frame: pl.DataFrame, chip: Chip, libraries: Mapping[tuple[str, str], str] | str | None = None, *,
                  holdout: bool = True) -> list[AttentionFit]:
    """Fit every kernel family and variant of `frame` (typed columns of one chip).

    libraries: which library to fit, or which per (family, variant); None takes the only one the file has times of.
    holdout: fit on calibrate rows alone; False fits a user's few rows all. BadInput when there is too little to fit.
    """
    cases = attention_cases(frame)
    fits = []
    for _, family, variant, rows in cases.blocks():
        library = libraries if isinstance(libraries, str) else (libraries or {}).get((family, variant))
        library = _only_library(cases, rows) if library is None else library
        measured_s = cases.times_s.get(library, np.full(len(cases), np.nan))
        rows = rows[np.isfinite(measured_s[rows])]
        if len(rows):
            fits.append(_fit_rows(cases, rows, measured_s[rows], family, variant, library, chip, holdout))
    if not fits:
        raise BadInput(field="attention measurements", value=libraries, expected=f"times of one of "
                       f"{', '.join(cases.times_s)}", remedy="Name a library that the file has times of.")
    return fits


def _only_library(cases: AttentionCases, rows: NDArray[np.intp]) -> str:
    counts = {name: int(np.isfinite(time_s[rows]).sum()) for name, time_s in cases.times_s.items()}
    timed = [name for name, count in counts.items() if count]
    if len(timed) != 1:
        raise BadInput(field="library", value=", ".join(timed) or None, expected="times of exactly one library",
                       remedy="Say which library to fit; a minimum over libraries is no library.")
    return timed[0]


def _fit_rows(cases: AttentionCases, rows: NDArray[np.intp], measured_s: Floats, family: str, variant: str,
              library: str, chip: Chip, holdout: bool) -> AttentionFit:
    validate = cases.validate[rows] & holdout
    if (~validate).sum() < _LEAST_ROWS:
        raise BadInput(field=f"{family}.{variant}", value=int((~validate).sum()),
                       expected=f"at least {_LEAST_ROWS} rows to fit", remedy="Measure more shapes.")
    parameters = fit_block(cases.shape_at(rows[~validate]), measured_s[~validate], family, variant, chip)
    predicted_s = case_time_s(cases.shape_at(rows), family, variant, chip=chip, parameters=parameters)
    error = np.expm1(np.abs(np.log(predicted_s / measured_s)))[~validate]
    name, _, release = library.partition(" ")
    fit = KernelFit(library=name, release=release, rows=int((~validate).sum()),
                    median_error=_rounded(float(np.median(error))), p90_error=_rounded(float(np.quantile(error, 0.9))))
    return AttentionFit(family=family, variant=variant, parameters=parameters, fit=fit, rows=rows,
                        predicted_s=predicted_s, measured_s=measured_s, validate=validate)


def fit_block(shape: AttentionShape, measured_s: Floats, family: str, variant: str, chip: Chip) -> Any:
    """Parameters of one kernel family and variant from measured times over R; the best of a few starts."""
    kind = FAMILIES[family]
    search = _Search(shape=shape, ln_measured=np.log(measured_s), family=family, variant=variant, chip=chip)
    tiles = tuple((step, *_START[family]) for step in _STEPS)
    core_count = chip.need("core_count")
    name, values = (("packs_heads", (0.0, 1.0)) if family == "attention" else
                    ("groups_per_core", (0.35, 0.5, 0.7, 1.0, 2.0)))
    own: dict[str, Any] = {"tiles": tiles, "core_count": core_count}
    vector_flop_per_s = chip.get("vector_peak")
    if family == "attention" and vector_flop_per_s:
        recipe = VARIANTS[family, variant].number_format
        own["matrix_ratio"] = chip.matrix_peak_flop_per_s("fp32" if recipe == "fp32" else "bf16") / vector_flop_per_s
    starts = [kind(**own, **{name: value}) for value in values]
    best = min((search.run(start) for start in starts), key=search.cost)
    numbers = {column.name: _rounded(getattr(best, column.name)) for column in dataclasses.fields(best)
               if column.name != "tiles"}
    return dataclasses.replace(best, tiles=search.tidy(best.tiles), **numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """Alternates continuous fits and tile trials until no tile changes."""

    shape: AttentionShape
    ln_measured: Floats
    family: str
    variant: str
    chip: Chip

    def residuals(self, parameters: Any) -> Floats:
        predicted_s = case_time_s(self.shape, self.family, self.variant, chip=self.chip, parameters=parameters)
        return np.asarray(np.log(predicted_s) - self.ln_measured)

    def cost(self, parameters: Any) -> float:
        return float(np.sum(np.sqrt(1 + (self.residuals(parameters) / _SCALE) ** 2) - 1))

    def run(self, parameters: Any) -> Any:
        parameters = self.fit(parameters)
        for _ in range(4):
            tiles = parameters.tiles
            for index in self.steps_present(tiles):
                parameters = self.best_tile(parameters, index)
            if parameters.tiles == tiles:
                break
            parameters = self.fit(parameters)
        return parameters

    def steps_present(self, tiles: tuple[tuple[int, int, int], ...]) -> list[int]:
        index = np.searchsorted([row[0] for row in tiles], np.unique(self.shape.width / 2))
        return sorted({int(min(value, len(tiles) - 1)) for value in index})

    def tidy(self, tiles: tuple[tuple[int, int, int], ...]) -> tuple[tuple[int, int, int], ...]:
        """Steps that were never measured take the tile of the nearest narrower step that was (else wider)."""
        known = self.steps_present(tiles)
        return tuple((row[0], *tiles[max((k for k in known if k <= i), default=known[0])][1:])
                     for i, row in enumerate(tiles))

    def best_tile(self, parameters: Any, index: int) -> Any:
        queries, keys = _ROWS[self.family]
        best, best_cost = parameters, self.cost(parameters)
        for rows in ((q, k) for q in queries for k in keys):
            tiles = list(parameters.tiles)
            tiles[index] = (tiles[index][0], *rows)
            trial = dataclasses.replace(parameters, tiles=tuple(tiles))
            cost = self.cost(trial)
            if cost < best_cost * _TILE_GAIN:
                best, best_cost = trial, cost
        return best

    def fit(self, start: Any) -> Any:
        from scipy.optimize import least_squares

        fitted = [column for column in dataclasses.fields(start) if column.name not in _CHOSEN]
        low = np.array([max(column.metadata["low"], _LEAST) for column in fitted])
        high = np.array([column.metadata["high"] for column in fitted])
        prior = np.log(np.clip([column.default for column in fitted], low, high))
        begin = np.log(np.clip([getattr(start, column.name) for column in fitted], low * 1.0001, high * 0.9999))

        def parameters(logs: Floats) -> Any:
            values = np.clip(np.exp(logs), low, high)
            return dataclasses.replace(start, **{column.name: float(value)
                                                 for column, value in zip(fitted, values, strict=True)})

        def residuals(logs: Floats) -> Floats:
            return np.concatenate([self.residuals(parameters(logs)), _PRIOR * (logs - prior)])

        found = least_squares(residuals, begin, bounds=(np.log(low), np.log(high)), loss="soft_l1", f_scale=_SCALE,
                              diff_step=1e-3, max_nfev=200)
        return parameters(found.x)


def calibrated(profile: KernelProfile, chips: Sequence[Chip]) -> dict[str, dict[str, tuple[Any, KernelFit]]]:
    """Family to variant to fitted parameters and provenance, from the shipped measurements of `chips`.

    Which library speaks for a variant is a choice, kept in the profile (`[attention.<variant>.fit] library`), never the
    fastest of several. A profile that stands for every family takes, of the variants it names, the geometric mean over
    the chips' own parameters; one without a chip of its own and without that claim keeps what is written in it.
    """
    if not profile.chips:
        return _mean_tables(profile, chips) if "*" in profile.chip_families else {}
    tables: dict[str, dict[str, tuple[Any, KernelFit]]] = {}
    for fitted in _refit(profile, chips[0]):
        made_by = profile.fits[fitted.family][fitted.variant]
        fit = dataclasses.replace(fitted.fit, library=made_by.library, release=made_by.release,
                                  source=made_by.source or _SOURCE)
        tables.setdefault(fitted.family, {})[fitted.variant] = (fitted.parameters, fit)
    return tables


def _refit(profile: KernelProfile, chip: Chip) -> list[AttentionFit]:
    """Fit again every attention variant of `profile` that names its library."""
    import polars as pl

    from serried.catalogue.measurements import read_measurements

    libraries = {(family, variant): " ".join(part for part in (fit.library, fit.release) if part)
                 for family in ("attention", "decode") for variant, fit in profile.fits.get(family, {}).items()
                 if fit.library}
    fits: list[AttentionFit] = []
    for tables in (("attention_context", "attention_generation"), ("mla",)):
        frame = pl.concat([read_measurements(table) for table in tables])
        own = {label for label in frame["chip"].unique().to_list() if read_chip(label).name == chip.name}
        frame = frame.filter([label in own for label in frame["chip"].to_list()])
        present = {(family, variant) for _, family, variant, _ in attention_cases(frame).blocks()} if own else set()
        if present & set(libraries):
            fits += fit_attention(frame, chip, {key: libraries.get(key, "") for key in present})
    return fits


def _mean_tables(profile: KernelProfile, chips: Sequence[Chip]) -> dict[str, dict[str, tuple[Any, KernelFit]]]:
    fits = [fitted for chip in chips for fitted in _refit(profile_for(chip), chip)]
    tables: dict[str, dict[str, tuple[Any, KernelFit]]] = {}
    for family in ("attention", "decode"):
        for variant in profile.families.get(family, {}):
            same = [fitted for fitted in fits if (fitted.family, fitted.variant) == (family, variant)]
            if same:
                fit = KernelFit(library="mean of " + ", ".join(fitted.fit.library for fitted in same),
                                rows=sum(fitted.fit.rows for fitted in same))
                tables.setdefault(family, {})[variant] = (_mean([fitted.parameters for fitted in same]), fit)
    return tables


def _mean(parameters: Sequence[Any]) -> Any:
    """Geometric mean of every number; the tiles of the default."""
    names = [column.name for column in dataclasses.fields(parameters[0]) if column.name not in _CHOSEN]
    logs = {name: [np.log(max(getattr(one, name), _LEAST)) for one in parameters] for name in names}
    return type(parameters[0])(**{name: _rounded(float(np.exp(np.mean(values)))) for name, values in logs.items()})


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
