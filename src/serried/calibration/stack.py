"""Fit the parameters of a stack on the calibrate runs of that stack, and say how sure they are.

Eight physical parameters at most (`STACK_PARAMETERS`), within their physical ranges, fitted by a robust least-squares
on ln(predicted / measured) that is drawn towards what stacks of this kind usually do, so that a few rows do not decide
what they cannot see. Spreads come from leaving one fold (a model of a source) out at a time, to first order.

Axes: R = run, P = parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from serried.software import STACK_PARAMETERS
from serried.workload import Floats

__all__ = ["PRIOR", "Belief", "StackFit", "fit_stack", "prior_of"]

#: Predicted times over R for parameters by name.
TimesOf = Callable[[Mapping[str, float]], Floats]

#: Measurement noise of published runs in ln: identical layouts drift by 6 % between releases.
_NOISE = 0.05
_EIGHTY_PERCENT = 1.2816
#: A parameter is informed by the runs when they leave less than this of what was unsure about it.
_INFORMED = 0.8
#: Values below this share of their scale are written as nothing.
_NOTHING = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """What is believed of a parameter before any run is seen: value and standard deviation.

    A rate is believed, and fitted, by its logarithm: half as fast is as far away as twice as fast.
    """

    value: float
    deviation: float


#: What training software usually does. Rates and traffic are what public profiles of well-kept stacks show; the cost of
#: an operator on the host (module code in an interpreter and its launches) is what the one stack shows whose runs are
#: bound by it.
PRIOR: Mapping[str, Belief] = {
    "gemm_rate_ratio": Belief(value=0.90, deviation=0.12),
    "attention_rate_ratio": Belief(value=0.80, deviation=0.30),
    "unfused_fraction": Belief(value=0.60, deviation=0.40),
    "host_s_per_operator": Belief(value=5.5e-5, deviation=3e-5),
    "data_overlap": Belief(value=0.85, deviation=0.20),
    "tensor_overlap": Belief(value=0.30, deviation=0.30),
    "collective_rate_ratio": Belief(value=0.90, deviation=0.15),
    "jitter_per_doubling": Belief(value=0.004, deviation=0.005),
}


def prior_of(facts: Mapping[str, object]) -> Mapping[str, Belief]:
    """The belief for a stack with these recipe facts: what it does not overlap or launch cannot be fitted."""
    belief = dict(PRIOR)
    if facts.get("fused_attention") is False:
        belief["attention_rate_ratio"] = Belief(value=0.8, deviation=0.3)
        belief["unfused_fraction"] = Belief(value=1.0, deviation=0.4)
    if facts.get("captured"):
        belief["host_s_per_operator"] = Belief(value=0.0, deviation=1e-8)
    if not facts.get("overlap_tensor"):
        belief["tensor_overlap"] = Belief(value=0.0, deviation=0.05)
    if not facts.get("overlap_data"):
        belief["data_overlap"] = Belief(value=0.0, deviation=0.05)
    return belief


@dataclass(frozen=True, slots=True, kw_only=True)
class StackFit:
    """Fitted parameters with the half-width of their 80 % interval; residuals in ln(measured / predicted) over R.

    informed: which parameters the runs show at all; the others stay as believed.
    residual_R: of the fit itself. unseen_R: of the fit without the run's own fold.
    """

    parameters: Mapping[str, float]
    spreads: Mapping[str, float]
    informed: Mapping[str, bool]
    residual_R: Floats
    unseen_R: Floats


def fit_stack(times_of: TimesOf, measured_s_R: Floats, folds: Sequence[str], *,
              prior: Mapping[str, Belief], noise: float = _NOISE) -> StackFit:
    """Parameters that explain the measured times best, given the `prior`.

    folds: label per run; runs of one fold are left out together. noise: what neither stack nor
    measurement explains, in ln. Raises ValueError without runs.
    """
    if not len(measured_s_R):
        raise ValueError("a stack is fitted on at least one run")
    names = [name for name in STACK_PARAMETERS if name in prior]
    is_rate = np.array([name.endswith("_rate_ratio") for name in names])

    def inner(values: Floats) -> Floats:
        return np.where(is_rate, np.log(np.where(is_rate, values, 1.0)), values)

    def outer(theta_P: Floats) -> Floats:
        return np.where(is_rate, np.exp(np.where(is_rate, theta_P * scale, 0.0)), theta_P * scale)

    value = np.array([prior[name].value for name in names])
    deviation = np.array([prior[name].deviation for name in names])
    centre = inner(value)
    scale = np.maximum(np.where(is_rate, deviation / np.maximum(value, 1e-12), deviation), 1e-12)
    low = inner(np.array([STACK_PARAMETERS[name].low for name in names]))
    high = inner(np.array([STACK_PARAMETERS[name].high for name in names]))
    weight_R = _fold_weight(folds)

    def misses(theta_P: Floats) -> Floats:
        predicted = times_of(dict(zip(names, outer(theta_P).tolist(), strict=True)))
        found: Floats = np.log(measured_s_R / predicted)
        return found

    def cost(theta_P: Floats) -> Floats:
        return np.concatenate([_robust(misses(theta_P) / noise) * weight_R, theta_P - centre / scale])

    span = high - low
    solutions = []
    for first in _starts(names, value):
        begin = np.clip(inner(first), low + 1e-6 * span, high - 1e-6 * span) / scale
        solutions.append(least_squares(cost, begin, bounds=(low / scale, high / scale), diff_step=1e-3, max_nfev=40,
                                       xtol=1e-5, ftol=1e-5))
    solution = min(solutions, key=lambda one: float(one.cost))
    theta_P = solution.x
    residual_R = misses(theta_P)
    unseen_R, spread_P = _without_folds(solution.jac, cost(theta_P), misses, theta_P, folds,
                                        (low / scale, high / scale))
    found = outer(theta_P)
    spread = np.where(is_rate, np.expm1(np.minimum(spread_P * scale, 2.0)) * found, spread_P * scale)
    found = np.where(np.abs(found) < _NOTHING * np.maximum(np.abs(value), deviation), 0.0, found)
    informed = spread_P < _INFORMED * _EIGHTY_PERCENT       # in units of what was believed
    return StackFit(parameters=dict(zip(names, found.tolist(), strict=True)),
                    informed=dict(zip(names, informed.tolist(), strict=True)),
                    spreads=dict(zip(names, spread.tolist(), strict=True)), residual_R=residual_R, unseen_R=unseen_R)


def _starts(names: Sequence[str], believed: Floats) -> list[Floats]:
    """Where the search begins: as believed, with a slow host (which shows only once it is the bound), slow wires."""
    starts = [believed]
    for name, value in (("host_s_per_operator", 4e-5), ("collective_rate_ratio", 0.5)):
        other = believed.copy()
        other[names.index(name)] = value
        starts.append(other)
    return starts


def _robust(z: Floats) -> Floats:
    """Least squares near zero, absolute value far away: one odd run does not bend a stack."""
    robust: Floats = np.sign(z) * np.sqrt(2 * (np.sqrt(1 + (z / 2) ** 2) - 1)) * 2
    return robust


def _fold_weight(folds: Sequence[str]) -> Floats:
    """Folds weigh alike up to the root of their run count; weights average one."""
    _, position, count = np.unique(np.array(folds), return_inverse=True, return_counts=True)
    weight = np.asarray(count[position], dtype=np.float64) ** -0.25
    return np.asarray(weight / weight.mean())


def _without_folds(jacobian: Floats, value: Floats, misses: Callable[[Floats], Floats], theta_P: Floats,
                   folds: Sequence[str], bounds: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Residuals of each fold under the fit without it, and the deviation of the parameters over folds (80 %).

    One Gauss-Newton step from the whole fit: exact for a linear model.
    """
    labels = np.array(folds)
    is_prior = np.zeros(len(value), dtype=bool)
    is_prior[len(labels):] = True
    names = np.unique(labels)
    unseen_R, thetas = misses(theta_P), [theta_P]
    for name in names:
        kept: NDArray[np.bool_] = is_prior.copy()
        kept[:len(labels)] = labels != name
        normal = jacobian[kept].T @ jacobian[kept]
        step = np.linalg.lstsq(normal, -jacobian[kept].T @ value[kept], rcond=None)[0]
        theta = np.clip(theta_P + step, *bounds)
        thetas.append(theta)
        unseen_R = np.where(labels == name, misses(theta), unseen_R)
    own = np.sqrt(np.diag(np.linalg.pinv(jacobian.T @ jacobian)))
    count = len(names)
    jackknife = np.std(np.array(thetas[1:]), axis=0) * np.sqrt(max(count - 1, 1)) if count > 1 else np.zeros_like(own)
    return unseen_R, _EIGHTY_PERCENT * np.hypot(own, np.minimum(jackknife, 3 * own + 1e-9))
