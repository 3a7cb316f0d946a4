"""Serving points under a fixed load: predicted beside measured.

Axes: C = case. A row of a file is one or more cases (a time to first token and a time per token are two).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from serried.compiler import ENGINE_FORMAT
from serried.engine import Cluster
from serried.errors import SerriedError
from serried.evidence.serving_points import COLUMNS, METRICS, Point, points_of
from serried.evidence.serving_pools import draft_acceptance
from serried.evidence.serving_runs import Benchmark, play
from serried.evidence.spec import CaseResults
from serried.fabric import Pool, read_fabric
from serried.planner.spec import Machine
from serried.serving import serving_machine
from serried.serving.cluster import PoolPlan, cluster_of
from serried.serving.peak import refuse_above_peak
from serried.serving.profile import EngineProfile, find_engine
from serried.serving.spec import ServingEstimate
from serried.serving.static import Loop, estimate_noted
from serried.silicon import read_chip
from serried.software import perfect_stack, stack_for
from serried.workload.spec import Floats

if TYPE_CHECKING:
    import polars as pl

__all__ = ["COLUMNS", "evaluate", "machine_of", "predict", "refuse_impossible", "shown"]

#: Benchmarks that hold a concurrency send about ten times as many requests, the first wave all at once.
BENCHMARK_WAVES = 10.0
#: What the request simulator reports; other metrics, and runs whose launches are known, are those of a static load.
_PLAYED = {"ttft": ("ttft", 1e3), "ttft_mean": ("ttft", 1e3), "tpot": ("tpot", 1e3), "tpot_mean": ("tpot", 1e3),
           "output_throughput_per_chip": ("output_throughput_per_chip", 1.0)}

#: What was estimated already, by chip, engine, job, deployments, recipe and what is known of launches: several figures
#: are measured on one run.
Estimates = dict[tuple[object, ...], ServingEstimate | Mapping[str, float] | Cluster]


def evaluate(frame: pl.DataFrame) -> CaseResults:
    """Predict every point; one that cannot be predicted is skipped with its reason."""
    points = points_of(frame)
    estimates: Estimates = {}
    found = [predict(point, estimates) for point in points]
    return CaseResults(
        area="serving", ids=[point.id for point in points], predicted=np.array([value for value, _, _ in found]),
        measured=np.array([point.measured for point in points]), units=[point.unit for point in points],
        split=[point.split for point in points], evidence_class=[kind for _, kind, _ in found],
        skipped=[reason for _, _, reason in found],
        groups={"chip": [point.chip for point in points], "model": [point.model for point in points],
                "engine": [point.engine for point in points], "kind": [kind_of(point) for point in points],
                "metric": [point.metric for point in points],
                "format": [point.number_format for point in points], "source": [point.source for point in points],
                "extra_spread": [f"{extra_spread(point):.6g}" for point in points]},
        fold=[f"{point.model}/{point.chip}" for point in points])


def kind_of(point: Point) -> str:
    """What spreads are told apart by: first tokens, later ones, or throughput, of one pool or of two.

    Two pools have more that nobody prints (how caches are handed over, who waits for whom), and are known less well.
    """
    kind = next((kind for kind in ("ttft", "tpot", "throughput") if kind in point.metric), "")
    return f"disaggregated {kind}".strip() if point.prefill is not None else kind


def extra_spread(point: Point) -> float:
    """What widens the interval of a point beyond its evidence class, as a fraction: estimated engines and memories of
    the chip."""
    if point.skipped is not None:
        return 0.0
    try:
        figures = read_chip(point.chip).figures
    except SerriedError:
        return 0.0
    return max((figure.spread for name, figure in figures.items()
                if name.startswith(("matrix_peak", "hbm_bandwidth"))), default=0.0)


def predict(point: Point, estimates: Estimates) -> tuple[float, str, str | None]:
    """(predicted in the point's unit, evidence class, reason when skipped)."""
    if point.skipped is not None or point.job is None or point.layout is None:
        return float("nan"), "data sheet only", point.skipped
    try:
        machine = machine_of(point.chip, int(point.layout.chip_count[0]), point.engine)
        refuse_impossible(point, machine)
        profile = find_engine(point.engine) if point.note is None and point.metric in _PLAYED else None
        value = _static(point, machine, estimates) if profile is None else _played(point, profile, estimates)
    except SerriedError as error:
        return float("nan"), "data sheet only", str(error)
    if not np.isfinite(value):
        return float("nan"), machine.profile.evidence_class, "no request fits the memory as modelled"
    return value, machine.profile.evidence_class, None


def _pools(point: Point) -> tuple[object, ...]:
    return tuple(tuple(pool.row(0).values()) for pool in (point.layout, point.prefill) if pool is not None)


def _key(point: Point) -> tuple[object, ...]:
    return point.chip, point.engine, point.job, _pools(point), point.recipe, point.run, point.note


def _played(point: Point, profile: EngineProfile, estimates: Estimates) -> float:
    """One figure of a run of the request simulator, in the unit of the point."""
    assert point.job is not None
    assert point.layout is not None
    key = ("played", *_key(point))
    if key not in estimates:
        recipe = point.recipe
        serve, prefill = (None if row is None else PoolPlan(
            machine=machine_of(point.chip, int(row.chip_count[0]), point.engine), row=row, router=_router(point),
            profile=tuned) for row, tuned in zip((point.layout, point.prefill), _tuned(point, profile), strict=True))
        assert serve is not None
        shape = ("cluster", point.model, point.chip, point.engine, _pools(point),
                 *((plan.profile.settings, plan.profile.memory_fraction) for plan in (serve, prefill) if plan))
        if shape not in estimates:   # loads of one deployment differ, its step times do not
            estimates[shape] = cluster_of(point.job.model, serve, prefill)
        cluster = estimates[shape]
        assert isinstance(cluster, Cluster)
        estimates[key] = play(point.job, Benchmark(shortest=recipe.shortest_ratio, waves=recipe.waves), cluster, serve,
                              prefill)
    found = estimates[key]
    assert isinstance(found, Mapping)
    name, factor = _PLAYED[point.metric]
    return found[name] * factor


def _tuned(point: Point, profile: EngineProfile) -> tuple[EngineProfile, EngineProfile]:
    """The engine under the flags of the benchmark: of the pool that decodes, and of the one that only prefills.

    Engines that serve one phase have nothing to hold prompts for, and only those that decode draft.
    """
    assert point.job is not None
    assert point.layout is not None
    recipe, run = point.recipe, point.run
    flags = recipe.settings(point.job, int(point.layout.attention_dp[0]))
    if recipe.memory_fraction:
        profile = replace(profile, memory_fraction=recipe.memory_fraction)
    if point.prefill is None:
        return profile.with_settings(**flags), profile
    phase = dict(flags) | {"prefill_wait_steps": 0, "acceptance": ()}
    chunk = {"token_budget": run.chunk_tokens} if run is not None and run.chunk_tokens else {}
    drafts = {} if run is None else {"acceptance": draft_acceptance(run.drafts)}
    return profile.with_settings(**phase | drafts), profile.with_settings(**phase | chunk)


def _router(point: Point) -> str:
    """Who gets the next request: behind one service that serves both phases, whose turn it is."""
    return "least_loaded" if point.prefill is None else "round_robin"


def _static(point: Point, machine: Machine, estimates: Estimates) -> float:
    """One figure of a steady load by formulas, in the unit of the point; NaN when no request fits."""
    assert point.job is not None
    assert point.layout is not None
    attribute, factor = METRICS[point.metric]
    key = _key(point)
    if key not in estimates:
        estimates[key] = estimate_noted(point.job, machine, point.layout, point.note)
    found = estimates[key]
    assert isinstance(found, ServingEstimate)
    return float(np.ravel(shown(found, attribute))[0]) * factor if found.fits[0] else float("nan")


def refuse_impossible(point: Point, machine: Machine) -> None:
    """BadInput, with the arithmetic, when a measured throughput is above the chip's peak."""
    if point.job is None or point.layout is None or not point.metric.startswith("output_throughput"):
        return
    chips = int(point.layout.chip_count[0]) if point.metric == "output_throughput" else 1
    new_tokens = point.job.input_tokens - point.job.cached_tokens + point.job.output_tokens
    tokens_per_s = point.measured * new_tokens / max(point.job.output_tokens, 1)
    native = replace(machine.chip, figures={
        name: figure for name, figure in machine.chip.figures.items()
        if not name.startswith("matrix_peak.") or name == f"matrix_peak.{ENGINE_FORMAT[point.number_format]}"})
    refuse_above_peak(tokens_per_s, model=point.job.model, chip=native if native.number_formats else machine.chip,
                      chip_count=chips, field=f"{point.metric} with {point.job.input_tokens} tokens in")


def shown(estimate: ServingEstimate | Loop, attribute: str) -> Floats:
    """One figure of an estimate, as a benchmark with BENCHMARK_WAVES would report it.

    The mean time to first token counts the first wave, whose requests arrive together and wait for half of each
    other, among the others.
    """
    value: Floats = getattr(estimate, attribute)
    if attribute != "ttft_s":
        return value
    together = 0.5 * (estimate.prefill_s + estimate.ttft_burst_s)
    return np.asarray(value + np.maximum(together - value, 0.0) / BENCHMARK_WAVES)


@functools.cache
def machine_of(chip_name: str, chip_count: int, engine: str) -> Machine:
    """The chip on its own fabric with the serving stack of `engine`."""
    chip = read_chip(chip_name)
    return serving_machine(Pool(chip=chip, fabric=read_fabric(chip.fabric), chip_count=chip_count),
                           stack_for(chip.family, "serving", engine) if engine else perfect_stack())
