"""Fit what a library makes of a layer of experts: the grouped products, and what stands around them.

As for single products: log space, a robust loss on ln(predicted / measured), a weak pull to the start, no chance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serried.catalogue.entry import fold
from serried.catalogue.measurements import kernel_split, read_measurements
from serried.compiler import GroupedGemmParameters, KernelFit, KernelProfile
from serried.compiler.expert_cases import ExpertCases, expert_cases
from serried.compiler.experts import ExpertLayer, RouteParameters, expert_layer_time_s
from serried.compiler.gemm import ENGINE_FORMAT
from serried.errors import BadInput
from serried.silicon import Chip, read_chip
from serried.workload import Floats

__all__ = ["FITTED", "FITTED_ROUTE", "calibrated", "fit_experts"]

FITTED = ("rate_ratio", "sustained_rate_ratio", "core_feed_ratio", "hbm_ratio", "drain_ratio", "resident_ratio",
          "launch_s", "tile_s", "latency_s")
FITTED_ROUTE = ("hbm_ratio", "activation_ratio", "launch_s", "expert_s")
_OUTLIER = 0.15
_PRIOR_ERROR = 0.2
_EVALUATIONS = 50
_DEFAULT_LIBRARY, _DEFAULT_RELEASE = "trtllm", "1.3.0rc20"   # the library with most rows, in its release with most


def fit_experts(layer: ExpertLayer, time_s: Floats, *, chip: Chip, number_format: str, start: GroupedGemmParameters,
                route: RouteParameters | None = None,
                prior_weight: float = 1.0) -> tuple[GroupedGemmParameters, RouteParameters, Floats]:
    """Parameters of the products and of what stands around them, and ln(predicted / measured) per row.

    layer, time_s: measured layers as columns. start, route: where to start from and what to be drawn to.
    Raises BadInput when there is no row.
    """
    from scipy.optimize import least_squares

    if not len(time_s):
        raise BadInput(field="rows", value=0, expected="at least one measured layer of experts",
                       remedy="Give rows with the columns of the shipped MoE table.")
    around = RouteParameters() if route is None else route
    named = [(GroupedGemmParameters, name) for name in FITTED] + [(RouteParameters, name) for name in FITTED_ROUTE]
    limits = np.log([[_bound(kind, name, side) for side in ("low", "high")] for kind, name in named])
    first = np.log([getattr(start, name) for name in FITTED] + [getattr(around, name) for name in FITTED_ROUTE])
    first = np.clip(first, limits[:, 0] + 1e-6, limits[:, 1] - 1e-6)

    def unpacked(point: Floats) -> tuple[GroupedGemmParameters, RouteParameters]:
        values = [float(f"{value:.4g}") for value in np.exp(point)]
        moved: dict[str, Any] = dict(zip(FITTED, values, strict=False))
        return (dataclasses.replace(start, **moved),
                dataclasses.replace(around, **dict(zip(FITTED_ROUTE, values[len(FITTED):], strict=True))))

    def residuals(point: Floats) -> Floats:
        products, other = unpacked(point)
        predicted_s = expert_layer_time_s(layer, chip=chip, products=products, route=other, number_format=number_format)
        return np.asarray(np.log(predicted_s / time_s))

    def objective(point: Floats) -> Floats:
        return np.concatenate([residuals(point), np.sqrt(prior_weight) * _PRIOR_ERROR * (point - first)])

    found = least_squares(objective, first, bounds=(limits[:, 0], limits[:, 1]), loss="soft_l1", f_scale=_OUTLIER,
                          diff_step=1e-2, max_nfev=_EVALUATIONS)
    return *unpacked(found.x), residuals(found.x)


def calibrated(profile: KernelProfile, chips: Sequence[Chip]) -> Mapping[str, Mapping[str, tuple[Any, KernelFit]]]:
    """The grouped_gemm and route families of a shipped profile, fitted on the shipped measurements.

    A profile whose chips have no measured layer takes the parameters over from the chips that have (rows = 0): they
    are ratios and seconds, and its own figures give them scale.
    """
    cases = expert_cases(frame := read_measurements("moe"), [None] * frame.height)
    products: dict[str, tuple[Any, KernelFit]] = {}
    routes: dict[str, tuple[Any, KernelFit]] = {}
    for recipe, shipped in profile.families.get("grouped_gemm", {}).items():
        told = profile.fit("grouped_gemm", recipe)
        library, release = told.library or _DEFAULT_LIBRARY, told.release or _DEFAULT_RELEASE
        rows = _rows(cases, recipe, library, release)
        measured = [read_chip(name) for name in dict.fromkeys(cases.chip[row] for row in rows)]
        own = [chip for chip in chips if _of_chip(cases, rows, chip).size]
        if not measured:
            continue
        chip = (own or measured)[0]
        rows = _of_chip(cases, rows, chip)
        defaults = {name: getattr(GroupedGemmParameters(), name) for name in FITTED}
        found, route, residual = fit_experts(
            cases.layer_of(rows), cases.time_s[rows], chip=chip, number_format=recipe,
            start=dataclasses.replace(shipped, **defaults))
        error = np.expm1(np.abs(residual)) if own else np.zeros(1)
        fit = KernelFit(library=library, release=release, source=told.source, rows=len(error) if own else 0,
                        median_error=round(float(np.median(error)), 4),
                        p90_error=round(float(np.quantile(error, 0.9)), 4))
        products[recipe], routes[recipe] = (found, fit), (route, fit)
    return {"grouped_gemm": products, "route": routes}


def _rows(cases: ExpertCases, recipe: str, library: str, release: str) -> NDArray[np.intp]:
    """Calibrate rows of one recipe and one release of one library."""
    return np.array([row for row, reason in enumerate(cases.reason)
                     if reason is None and cases.number_format[row] == recipe and cases.library[row] == library
                     and cases.release[row] == release and recipe in ENGINE_FORMAT
                     and kernel_split(cases.family[row]) == "calibrate"], dtype=np.intp)


def _of_chip(cases: ExpertCases, rows: NDArray[np.intp], chip: Chip) -> NDArray[np.intp]:
    names = {fold(name) for name in (chip.name, *chip.aliases)}
    return np.array([row for row in rows if fold(cases.chip[row]) in names], dtype=np.intp)


def _bound(kind: type, name: str, side: str) -> float:
    metadata = next(column.metadata for column in dataclasses.fields(kind) if column.name == name)
    return max(float(metadata[side]), 1e-12)
