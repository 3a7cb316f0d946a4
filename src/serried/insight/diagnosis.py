"""Which settings of the layers explain a user's points best?

Axes: G = combination of settings, P = measured point.

Every combination on a grid over the layers predicts every point. What a measurement states (layout, launches, fusion,
format) is kept; the rest varies. Residuals in ln are normal: NOISE of each point by itself, and one error common to
all points, as large as the spread of the kernel profile, because a model that is off by a fifth is off everywhere.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from serried.errors import NoAnswer, SerriedError
from serried.evidence.serving import shown
from serried.evidence.serving_points import METRICS
from serried.insight.serving_gap import ServingContest
from serried.insight.spec import Diagnosis, Explanation, MeasuredPoint
from serried.insight.training_gap import TrainingContest, default_layout, taken, with_format
from serried.planner import FORMATS, Layouts, Machine, assemble, kernel_table
from serried.serving import Deployments, default_deployment, static_tables
from serried.serving.static import closed_loop, with_kernels
from serried.software import Stack
from serried.workload.spec import Floats, Serving, Training

__all__ = ["diagnose", "log_likelihood_G", "stack_found"]

#: Relative error of one measured point by itself.
NOISE = 0.05
_Z80 = 1.2815515655446004

#: Layer to its settings: words, and what they do to the stack. A number replaces the parameter.
_COMMON: Mapping[str, Sequence[tuple[str, Mapping[str, float]]]] = {
    "gemm kernels": [(f"{ratio:.0%} of the kernel profile", {"gemm_rate_ratio": ratio})
                     for ratio in (1.0, 0.85, 0.7, 0.5, 0.35)],
    "attention kernels": [(f"{ratio:.0%} of the kernel profile", {"attention_rate_ratio": ratio})
                          for ratio in (1.0, 0.6, 0.3)],
    "fusion": [("fused", {"unfused_fraction": 0.0}), ("half fused", {"unfused_fraction": 0.5}),
               ("unfused", {"unfused_fraction": 1.0})],
    "collectives": [("as alone on the wires", {"collective_rate_ratio": 1.0}),
                    ("half the rate alone", {"collective_rate_ratio": 0.5})],
}
#: Benchmarks that send the same prompts again meet their own prefixes in the cache.
_CACHED = (("none", 0.0), ("half of each", 0.5), ("nine tenths of each", 0.9))
#: Public figures put an eager kernel at 5 to 10 us of host time; a slow or virtual host takes twice that.
_LAUNCHES: Sequence[tuple[str, Mapping[str, float]]] = [
    ("captured", {"captured": 1.0, "host_s_per_operator": 7.5e-6}),
    ("eager", {"captured": 0.0, "host_s_per_operator": 7.5e-6}),
    ("eager on a slow host", {"captured": 0.0, "host_s_per_operator": 1.5e-5})]
_SERVING = {**_COMMON, "launches": _LAUNCHES,
            "host between steps": [("hidden", {"host_s_per_step": 0.0}), ("2 ms", {"host_s_per_step": 2e-3}),
                                   ("8 ms", {"host_s_per_step": 8e-3})]}
_TRAINING = {**_COMMON, "launches": _LAUNCHES,
             "overlap": [("hidden behind compute", {"data_overlap": 1.0, "tensor_overlap": 1.0}),
                         ("gradients hidden, tensor traffic exposed", {"data_overlap": 1.0, "tensor_overlap": 0.0}),
                         ("off", {"data_overlap": 0.0, "tensor_overlap": 0.0})]}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """All combinations of the stack's settings: words and parameter columns (G,)."""

    layers: tuple[str, ...]
    words: Sequence[tuple[str, ...]]
    columns: Mapping[str, Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variant:
    """What changes shapes and not only a stack: layout and format (None and "" = as each point states), and the share
    of a prompt that a cache serves."""

    words: Mapping[str, str]
    layout: Deployments | Layouts | None
    number_format: str
    cached: float = 0.0


def diagnose(points: Sequence[MeasuredPoint], job: Serving | Training, machine: Machine, *, top: int = 5,
             skipped: Sequence[str] = ()) -> Diagnosis:
    """Rank every combination of layer settings by how well it explains `points`.

    The layout and the number format vary too where no point states them. Raises NoAnswer when no combination predicts
    the points (nothing fits).
    """
    grid = _grid(_SERVING if isinstance(job, Serving) else _TRAINING, machine.stack)
    measured_P = np.array([point.value for point in points])
    settings: list[dict[str, str]] = []
    predicted_GP: list[Floats] = []
    for variant in _variants(points, job, machine):
        try:
            columns = [_predict_G(point, machine, grid, variant) for point in points]
        except SerriedError:
            continue
        predicted_GP.append(np.column_stack(columns))
        settings += [dict(zip(grid.layers, said, strict=True)) | dict(variant.words) for said in grid.words]
    if not predicted_GP:
        raise NoAnswer("No combination of layers can run what was measured on this machine.", binding="memory",
                       remedy="Check the model, the chip count and the layout of the measurement.")
    every_GP = np.concatenate(predicted_GP)
    residual_GP = np.log(every_GP / measured_P)
    score_G = log_likelihood_G(residual_GP, noise=NOISE, common=math.log1p(machine.profile.spread) / _Z80)
    probability_G = np.exp(score_G - score_G.max())
    probability_G /= probability_G.sum()
    order = np.argsort(-probability_G, kind="stable")[:top]
    combinations = len(grid.words)
    return Diagnosis(
        points=tuple(points), combinations=len(settings), skipped=tuple(skipped),
        explanations=[Explanation(
            settings=settings[row], probability=float(probability_G[row]), log_likelihood=float(score_G[row]),
            parameters={name: float(column[row % combinations]) for name, column in grid.columns.items()},
            predicted=[float(value) for value in every_GP[row]],
            rms_error_ln=float(np.sqrt(np.mean(residual_GP[row] ** 2)))) for row in order],
        marginals={layer: _marginal([one[layer] for one in settings], probability_G) for layer in settings[0]})


def log_likelihood_G(residual_GP: Floats, *, noise: float, common: float) -> Floats:
    """Log-likelihood of residuals with covariance noise^2 I + common^2 11' (Sherman-Morrison), up to a constant."""
    count = residual_GP.shape[1]
    square_G, sum_G = (residual_GP**2).sum(axis=1), residual_GP.sum(axis=1)
    shrink = common**2 / (noise**2 + count * common**2)
    return np.asarray(-0.5 * (square_G - shrink * sum_G**2) / noise**2)


def stack_found(diagnosis: Diagnosis, stack: Stack, *, name: str = "measured") -> Stack:
    """The stack that the points speak for: each parameter's mean over the explanations, weighed by probability."""
    weights = np.array([one.probability for one in diagnosis.explanations])
    weights = weights / weights.sum()
    names = [key for key in stack.parameters if key in diagnosis.explanations[0].parameters]
    values = {key: np.array([one.parameters[key] for one in diagnosis.explanations]) for key in names}
    means = {key: float(weights @ column) for key, column in values.items()}
    spreads = {key: _Z80 * math.sqrt(float(weights @ (values[key] - means[key]) ** 2)) for key in names}
    return replace(stack, name=name, parameters={**stack.parameters, **means}, spreads={**stack.spreads, **spreads},
                   status={**stack.status, **dict.fromkeys(names, "measured")}, fitted_rows=len(diagnosis.points),
                   source=f"fitted to {len(diagnosis.points)} measured points")


def _grid(layers: Mapping[str, Sequence[tuple[str, Mapping[str, float]]]], stack: Stack) -> _Grid:
    combinations = list(itertools.product(*layers.values()))
    names = {name for options in layers.values() for _, moved in options for name in moved}
    columns = {name: np.full(len(combinations), value) for name, value in stack.parameters.items()}
    for name in names:
        columns[name] = np.array([next(moved[name] for _, moved in chosen if name in moved) for chosen in combinations])
    return _Grid(layers=tuple(layers), words=[tuple(word for word, _ in chosen) for chosen in combinations],
                 columns=columns)


def _variants(points: Sequence[MeasuredPoint], job: Serving | Training, machine: Machine) -> list[_Variant]:
    """Layouts, formats and cached shares to try."""
    formats = [""] if all(point.number_format for point in points) else ["bf16", *_narrow(job, machine)]
    stated = all(point.layout is not None for point in points)
    found = []
    for number_format in formats:
        layouts: list[tuple[str, Deployments | Layouts | None]] = [("", None)] if stated else [
            *_layouts(job, machine, number_format or points[0].number_format)]
        for name, layout in layouts:
            for said, cached in _CACHED if isinstance(job, Serving) else _CACHED[:1]:
                words = {"precision": number_format, "layout": name,
                         "prompts from a cache": said if isinstance(job, Serving) else ""}
                found.append(_Variant(words={layer: word for layer, word in words.items() if word}, layout=layout,
                                      number_format=number_format, cached=cached))
    return found


def _narrow(job: Serving | Training, machine: Machine) -> list[str]:
    contest = ServingContest(job) if isinstance(job, Serving) else TrainingContest(job, machine.chip_count)
    return [name for name in contest.formats(machine) if name != "bf16"]


def _layouts(job: Serving | Training, machine: Machine,
             number_format: str) -> list[tuple[str, Deployments | Layouts]]:
    found: list[tuple[str, Deployments | Layouts]] = []
    for name in ("best", "default"):
        try:
            if isinstance(job, Serving):
                layout: Deployments | Layouts = ServingContest(job).best(machine, (number_format,)).layout \
                    if name == "best" else default_deployment(job, machine, weight_format=number_format)
            else:
                layout = TrainingContest(job, machine.chip_count).best(machine, (number_format,)).layout \
                    if name == "best" else default_layout(job, machine, number_format=number_format)
        except NoAnswer:
            continue
        if not any(layout.row(0) == other.row(0) for _, other in found):
            found.append((f"{name} of the search" if name == "best" else "what people start with", layout))
    return found


def _predict_G(point: MeasuredPoint, machine: Machine, grid: _Grid, variant: _Variant) -> Floats:
    chosen, number_format = point.layout if point.layout is not None else variant.layout, variant.number_format
    columns = dict(grid.columns)
    if point.fused is not None:
        columns["unfused_fraction"] = np.full(len(grid.words), 0.0 if point.fused else 1.0)
    captured = columns.pop("captured") > 0.5
    if point.eager is not None:
        captured = np.full(len(grid.words), not point.eager)
    if isinstance(point.job, Serving):
        assert isinstance(chosen, Deployments), "a serving point stands on a deployment"
        job = replace(point.job, cached_tokens=max(int(variant.cached * point.job.input_tokens),
                                                   point.job.cached_tokens))
        return _serving_G(point, job, machine, columns, captured,
                          replace(chosen, weight_format=np.array([FORMATS.index(number_format)]))
                          if number_format else chosen)
    assert isinstance(chosen, Layouts), "a training point stands on a layout"
    rows = with_format(chosen, number_format or point.number_format or "bf16", machine)
    table = taken(kernel_table(point.job, machine, rows), np.zeros(len(grid.words), dtype=np.intp))
    columns["host_s_per_operator"] = np.where(captured, 0.0, columns["host_s_per_operator"])
    return np.asarray(assemble(table, columns).time_s)


def _serving_G(point: MeasuredPoint, job: Serving, machine: Machine, columns: Mapping[str, Floats],
               captured: NDArray[np.bool_], rows: Deployments) -> Floats:
    stack = {name: column[:, None] for name, column in columns.items()}
    tables = with_kernels(static_tables(job, machine, rows), point.kernels, stack, machine)
    loop = closed_loop(job, replace(rows, captured=captured[:, None]), tables, stack)
    attribute, factor = METRICS[point.metric]
    per_chip = attribute == "output_tokens_per_s_per_chip"
    value = shown(loop, "output_tokens_per_s" if per_chip else attribute)
    scale = factor / float(rows.chip_count[0]) if per_chip else factor
    return np.broadcast_to(np.asarray(value * scale), (len(captured), 1))[:, 0]


def _marginal(words: Sequence[str], probability_G: Floats) -> dict[str, float]:
    found: dict[str, float] = {}
    for word, probability in zip(words, probability_G, strict=True):
        found[word] = found.get(word, 0.0) + float(probability)
    return dict(sorted(found.items(), key=lambda item: -item[1]))
