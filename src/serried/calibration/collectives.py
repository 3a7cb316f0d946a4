"""Fit the parameters of a collective library on measured collectives.

What is fitted are the physical parameters of `serried.fabric.algorithms` (seconds a hop, shares of a tier's
bandwidth, how steps and bytes join, what the library believes when it chooses), in log space, each drawn to where it
started by a weak prior, so that what the measurements cannot tell stays where it was.

Axes: R = measured row.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from serried.errors import BadInput
from serried.fabric import CollectiveProfile, Fabric, collective_time_s
from serried.fabric.algorithms import candidates
from serried.fabric.observations import Observations
from serried.fabric.placement import Floats, place

__all__ = ["CollectiveFit", "fit_collectives", "predicted_s"]

#: Physical range of each parameter, the first pattern that matches: no algorithm but an adding switch beats its wires,
#: a flag in every word leaves half of the bytes for data and a flag in every line 120 of 128,
#: flagged protocols are not cut into chunks (so their steps and bytes overlap, exponent >= 1), and a flag costs less
#: than a fence.
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("launch*", 1e-7, 1e-4), ("floor*", 1e-6, 1e-3), ("step.ll", 1e-8, 3e-6), ("step.ll128", 1e-8, 4e-6),
    ("step.*", 1e-8, 3e-5), ("hop.*", 1e-7, 1e-3), ("peer.*", 1e-9, 1e-5), ("ratio.switch.*", 0.3, 1.4),
    ("ratio.*.ll", 0.005, 0.5), ("network.*.ll", 0.005, 0.5), ("ratio.*.ll128", 0.005, 0.9375),
    ("network.*.ll128", 0.005, 0.9375), ("ratio.*", 0.005, 1.0), ("network.*", 0.02, 1.0),
    ("pair.*", 0.002, 1.0), ("exponent.ll*", 1.0, 8.0), ("exponent.*.ll*", 0.7, 8.0), ("exponent.stages", 1.0, 8.0),
    ("lockstep.*", 1.0, 8.0), ("exponent.*", 0.4, 3.0), ("choice.*", 0.3, 3.0),
    ("local.*", 0.2, 50.0), ("scale.*", 0.001, 3.0), ("fill*", 0.5, 100.0), ("maximum.*", 1e3, 1e9),
)


def _range_of(parameter: str) -> tuple[float, float]:
    """Low and high of a parameter; NaN for one that is not fitted."""
    return next(((low, high) for pattern, low, high in _RANGES if fnmatch.fnmatchcase(parameter, pattern)),
                (math.nan, math.nan))


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveFit:
    """A fitted profile and what is left: |ln| residuals of the rows it was fitted on, median and 80 % spread."""

    profile: CollectiveProfile
    predicted_s: Floats
    measured_s: Floats
    median_abs_error: float
    spread: float


def predicted_s(observations: Observations, fabric: Fabric) -> Floats:
    """Time of every observed collective on `fabric`, seconds."""
    time_s_R = np.empty(len(observations))
    for operation, adds, ways, rows in observations.blocks():
        time_s_R[rows] = collective_time_s(operation, observations.payload_bytes[rows],  # type: ignore[arg-type]
                                           observations.degree[rows], observations.stride[rows], fabric=fabric,
                                           switch_adds=adds, ways=ways)
    return time_s_R


def fit_collectives(observations: Observations, fabric: Fabric, *, free: Sequence[str] | None = None,
                    prior_width: float = 1.0, name: str | None = None, source: str = "",
                    starts: int = 1) -> CollectiveFit:
    """The fabric's collective profile with its `free` parameters fitted on `observations`.

    free: names of parameters that may move; default: every one whose change the observations can feel.
    prior_width: a parameter e times its start costs as much as one row that is 1/prior_width x 10 % off.
    starts: the first from the profile as it is, the others shaken with a fixed seed; the best is kept.
    The library's choice is a minimum, which has no slope; it is blended softly first and ever more sharply after.
    """
    from scipy.optimize import least_squares

    if len(observations) == 0:
        raise BadInput(field="collectives", value=0, expected="at least one measured collective",
                       remedy="Give the text output of nccl-tests with its table of sizes and times.")
    start = dict(fabric.profile.parameters)
    names = [parameter for parameter in (start if free is None else free)
             if parameter in start and _range_of(parameter)[0] > 0]
    logs = np.log([start[parameter] for parameter in names])
    low, high = np.log([_range_of(parameter) for parameter in names]).T
    logs = np.clip(logs, low + 1e-6, high - 1e-6)
    measured_logs_R = np.log(observations.time_s)

    def residuals(trial: Floats, sharpness: float) -> Floats:
        moved = _with_parameters(fabric, dict(zip(names, np.exp(trial), strict=True)))
        error_R = np.log(_blended_s(observations, moved, sharpness)) - measured_logs_R
        return np.concatenate([error_R / 0.1, (trial - logs) / prior_width])

    def cost(trial: Floats) -> float:
        """What is left with the library's choice as sharp as it is."""
        left = residuals(trial, 1e3)
        return float(np.sum(np.sqrt(1.0 + left**2)))

    shake = np.random.default_rng(0)
    points = []
    for start_number in range(starts):
        point = np.clip(logs + (0.4 * shake.standard_normal(len(logs)) if start_number else 0.0), low, high)
        for sharpness in (6.0, 20.0, 60.0):
            point = least_squares(residuals, point, bounds=(low, high), args=(sharpness,), loss="soft_l1",
                                  x_scale=1.0, diff_step=1e-4, max_nfev=40).x
        points.append(point)
    point = min(points, key=cost)
    fitted = _with_parameters(fabric, dict(zip(names, np.exp(point), strict=True)))
    time_s_R = predicted_s(observations, fitted)
    error_R = np.abs(np.log(time_s_R / observations.time_s))
    spread = float(np.expm1(np.quantile(error_R, 0.8)))
    profile = dataclasses.replace(fitted.profile, name=name or fabric.profile.name, spread=spread, source=source,
                                  evidence_class="kernel-calibrated chip", file="")
    return CollectiveFit(profile=profile, predicted_s=time_s_R, measured_s=observations.time_s,
                         median_abs_error=float(np.expm1(np.median(error_R))), spread=spread)


def _with_parameters(fabric: Fabric, changed: Mapping[str, float]) -> Fabric:
    parameters = {**fabric.profile.parameters, **changed}
    return dataclasses.replace(fabric, profile=dataclasses.replace(fabric.profile, parameters=parameters))


def _blended_s(observations: Observations, fabric: Fabric, sharpness: float) -> Floats:
    """As `predicted_s`, with every way weighed by how fast the library believes it is, to the power `sharpness`."""
    time_s_R = np.empty(len(observations))
    for operation, adds, ways, rows in observations.blocks():
        placement = place(observations.degree[rows], observations.stride[rows], fabric)
        had = list(candidates(operation, observations.payload_bytes[rows], placement, fabric, switch_adds=adds,
                              ways=ways))
        times_s = np.stack([way.time_s for way in had])
        believed_s = np.stack([way.believed_s for way in had])
        weights = (believed_s.min(axis=0) / believed_s) ** sharpness
        logs = np.where(np.isfinite(times_s), np.log(np.where(np.isfinite(times_s), times_s, 1.0)), 0.0)
        time_s_R[rows] = np.exp((weights * logs).sum(axis=0) / weights.sum(axis=0))
    return time_s_R
