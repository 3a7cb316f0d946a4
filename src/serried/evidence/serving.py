"""Serving points under a fixed load: predicted beside measured.

Axes: C = case. A row of a file is one or more cases (a time to first token and a time per token are two).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from serried.compiler import ENGINE_FORMAT
from serried.errors import SerriedError
from serried.evidence.cells import Cells, Unusable
from serried.evidence.serving_sources import ServingSource, serving_source
from serried.evidence.spec import CaseResults
from serried.fabric import Pool, read_fabric
from serried.planner.spec import Machine
from serried.serving import Deployments, ServingEstimate, deployment, serving_machine
from serried.serving.peak import refuse_above_peak
from serried.serving.static import LaunchNote, Loop, estimate_noted
from serried.silicon import read_chip
from serried.software import perfect_stack, stack_for
from serried.workload import Model, read_model
from serried.workload.spec import Floats, Serving

if TYPE_CHECKING:
    import polars as pl

__all__ = ["COLUMNS", "METRICS", "Point", "evaluate", "launch_note", "points_of", "refuse_impossible", "shown"]

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "settings": ("id", "chip", "n_chips", "model", "dtype", "engine", "setting", "input_len", "output_len",
                 "concurrency", "metric", "value", "unit"),
    "engine points": ("id", "backend", "model_path", "system", "mode", "isl", "osl", "batch_size", "tp_size",
                      "silicon_ttft_ms", "silicon_tpot_ms"),
    "published": ("id", "source", "model", "chip", "n_chips", "tp", "dtype_weights", "mode", "input_len", "output_len",
                  "concurrency_or_batch", "ttft_ms", "tpot_ms", "throughput_tok_s_per_chip"),
}

_RECIPES = {"": "bf16", "bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "half": "fp16", "fp8": "fp8",
            "fp8block": "fp8-block", "nvfp4": "nvfp4", "fp4": "nvfp4", "mxfp4": "nvfp4", "int8": "int8",
            "int8w8a8": "int8", "w8a8int8": "int8"}
#: Metric to the attribute of the estimate and the factor to the unit in which it is shown. A tail of the first token
#: is that of requests that arrive together; the median step between tokens is one that no prefill interrupts.
METRICS: Mapping[str, tuple[str, float]] = {
    "output_throughput": ("output_tokens_per_s", 1.0),
    "output_throughput_per_chip": ("output_tokens_per_s_per_chip", 1.0),
    "ttft": ("ttft_s", 1e3), "ttft_mean": ("ttft_s", 1e3), "ttft_p50": ("ttft_s", 1e3),
    "ttft_p99": ("ttft_burst_s", 1e3),
    "tpot": ("tpot_s", 1e3), "tpot_mean": ("tpot_s", 1e3), "tpot_p50": ("decode_step_s", 1e3),
    "prefill_latency": ("prefill_s", 1e3), "decode_latency": ("decode_step_s", 1e3),
}
#: A first token under load depends on how arrivals bunch and on time outside the engine (tokenising, HTTP, streaming),
#: which a closed loop does not know: it is right to a factor of three.
FIRST_TOKEN_SPREAD = 2.0
#: Benchmarks that hold a concurrency send about ten times as many requests, the first wave all at once.
BENCHMARK_WAVES = 10.0


#: What was estimated already, by chip, engine, job, deployment and what is known of launches.
Estimates = dict[tuple[object, ...], ServingEstimate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One measured figure with the job and deployment it was measured on; `skipped` says why it cannot be predicted."""

    id: str
    chip: str = ""
    model: str = ""
    engine: str = ""
    metric: str = ""
    measured: float = float("nan")
    unit: str = ""
    number_format: str = ""
    split: str = "validate"
    source: str = ""
    job: Serving | None = None
    layout: Deployments | None = None
    note: LaunchNote | None = None
    skipped: str | None = None


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
                "engine": [point.engine for point in points], "metric": [point.metric for point in points],
                "format": [point.number_format for point in points], "source": [point.source for point in points],
                "extra_spread": [f"{extra_spread(point):.6g}" for point in points]},
        fold=[f"{point.model}/{point.chip}" for point in points])


def points_of(frame: pl.DataFrame) -> list[Point]:
    """Every measured figure of a serving cases file, in order."""
    kind = next(name for name, columns in COLUMNS.items() if set(columns) <= set(frame.columns))
    return [point for row in frame.iter_rows(named=True) for point in _READ[kind](Cells(row))]


def extra_spread(point: Point) -> float:
    """What widens the interval of a point beyond its evidence class, as a fraction: estimated engines and memories of
    the chip, and for a first token what the closed loop does not know."""
    if point.skipped is not None:
        return 0.0
    try:
        figures = read_chip(point.chip).figures
    except SerriedError:
        return 0.0
    estimated = max((figure.spread for name, figure in figures.items()
                     if name.startswith(("matrix_peak", "hbm_bandwidth"))), default=0.0)
    return max(estimated, FIRST_TOKEN_SPREAD if point.metric.startswith("ttft") else 0.0)


def predict(point: Point, estimates: Estimates) -> tuple[float, str, str | None]:
    """(predicted in the point's unit, evidence class, reason when skipped); `estimates` holds what was asked before,
    for several figures are measured on one run."""
    if point.skipped is not None or point.job is None or point.layout is None:
        return float("nan"), "data sheet only", point.skipped
    attribute, factor = METRICS[point.metric]
    try:
        machine = machine_of(point.chip, int(point.layout.chip_count[0]), point.engine)
        refuse_impossible(point, machine)
        key = (point.chip, point.engine, point.job, tuple(point.layout.row(0).values()), point.note)
        if key not in estimates:
            estimates[key] = estimate_noted(point.job, machine, point.layout, point.note)
        estimate = estimates[key]
    except SerriedError as error:
        return float("nan"), "data sheet only", str(error)
    if not estimate.fits[0]:
        return float("nan"), machine.profile.evidence_class, "no request fits the memory as modelled"
    return float(np.ravel(shown(estimate, attribute))[0]) * factor, machine.profile.evidence_class, None


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


@functools.cache
def _model(name: str) -> Model:
    return read_model(name)


def _settings(cells: Cells) -> list[Point]:
    metric = cells["metric"]
    base = Point(id=cells["id"], chip=cells["chip"], model=cells["model"], engine=cells["engine"], metric=metric,
                 unit=cells["unit"], source=cells["source"], number_format=cells["dtype"])
    return [_guarded(base, lambda: _settings_point(cells, base))]


def _settings_point(cells: Cells, base: Point) -> Point:
    base = replace(base, measured=_need(cells, "value"))
    if base.metric not in METRICS:
        raise Unusable(f"{base.metric} is not a figure of serving a language model")
    note = launch_note(cells["setting"])
    job = Serving(model=_model(base.model), input_tokens=int(_need(cells, "input_len")),
                  output_tokens=int(cells.whole("output_len", zero=True) or 0),
                  concurrency=cells.whole("concurrency") or 1)
    count, number_format = cells.whole("n_chips") or 1, _recipe(base.number_format)
    layout = deployment(tp=count, weight_format=number_format, captured=not (note and note.eager))
    return replace(base, job=job, layout=layout, note=note, number_format=number_format)


def launch_note(text: str) -> LaunchNote | None:
    """What a description says of fusion and launches: "unfused eager, 1985 kernels per token"; None when nothing."""
    kernels = re.search(r"(\d[\d,]*)\s+(?:device\s+)?kernels", text)
    captured = re.search(r"graph|captur", text) is not None
    if kernels is None and not captured:
        return None
    unfused = re.search(r"\bunfused\b", text) is not None
    return LaunchNote(kernels=float(kernels.group(1).replace(",", "")) if kernels else 0.0, eager=not captured,
                      fused=None if not re.search(r"fused", text) else not unfused)


def _engine_points(cells: Cells) -> list[Point]:
    engine = " ".join(part for part in (cells["backend"], cells["backend_version"]) if part)
    base = Point(id=cells["id"], chip=cells["system"], model=cells["model_path"], engine=engine, unit="ms",
                 number_format=cells["gemm_quant_mode"] or cells["precision"],
                 source=cells["silicon_data_source"].split(";")[0].split("/")[0])
    return [_guarded(replace(base, id=f"{base.id}:{metric}", metric=metric),
                     functools.partial(_engine_point, cells, replace(base, id=f"{base.id}:{metric}", metric=metric)))
            for metric in ("ttft", "tpot")]


def _engine_point(cells: Cells, base: Point) -> Point:
    base = replace(base, measured=_need(cells, f"silicon_{base.metric}_ms"))
    if cells["mode"] != "agg":
        raise Unusable("prefill and decode on separate chips: not one closed loop on one engine")
    found = re.search(r"silicon_concurrency=(\d+)", cells["silicon_data_source"])
    concurrency = int(found.group(1)) if found else cells.whole("batch_size")
    if concurrency is None:
        raise Unusable("batch_size is blank: the load is unknown")
    groups = cells.whole("attention_dp_size", zero=True) or 1
    experts = cells.whole("moe_ep_size", zero=True) or 1
    world = max(cells.whole("tp_size") or 1, (cells.whole("moe_tp_size", zero=True) or 1) * experts)
    if world % groups or world % experts:
        raise Unusable(f"attention_dp_size = {groups} and moe_ep_size = {experts} do not divide {world} chips")
    number_format = _recipe(base.number_format)
    job = Serving(model=_model(base.model), input_tokens=int(_need(cells, "isl")),
                  output_tokens=int(_need(cells, "osl")), concurrency=concurrency)
    layout = deployment(tp=world // groups, attention_dp=groups, pp=cells.whole("pp_size") or 1,
                        ep=_expert_degree(job.model, experts, world, groups), weight_format=number_format)
    return replace(base, job=job, layout=layout, number_format=number_format)


def _expert_degree(model: Model, printed: int, world: int, groups: int) -> int:
    """The printed degree where the model has experts; groups that hold their own requests share experts."""
    if not any(block.mlp and block.mlp.experts for block in model.blocks):
        return 1
    return world if groups > 1 and printed <= 1 else printed


def _published(cells: Cells) -> list[Point]:
    metrics = [("output_throughput_per_chip", "throughput_tok_s_per_chip", "tokens/s"), ("ttft", "ttft_ms", "ms"),
               ("tpot", "tpot_ms", "ms")]
    base = Point(id=cells["id"], chip=cells["chip"], model=cells["model"], engine=cells["engine_version"],
                 source=cells["source"], number_format=cells["dtype_weights"],
                 split="calibrate" if cells["split"].startswith("calib") else "validate")
    points = [replace(base, id=f"{base.id}:{metric}", metric=metric, unit=unit)
              for metric, column, unit in metrics if cells.printed(column)]
    columns = {metric: column for metric, column, _ in metrics}
    return [_guarded(point, functools.partial(_published_point, cells, point, columns[point.metric]))
            for point in points]


def _published_point(cells: Cells, base: Point, column: str) -> Point:
    base = replace(base, measured=_need(cells, column))
    if cells["mode"] != "agg":
        raise Unusable("prefill and decode on separate chips: not one closed loop on one engine")
    if base.metric.startswith("output") and cells["throughput_kind"] not in ("", "output"):
        raise Unusable(f"throughput counts {cells['throughput_kind']} tokens")
    source = serving_source(base.source)
    if source.unusable:
        raise Unusable(source.unusable)
    tokens_in, tokens_out = int(_need(cells, "input_len")), int(_need(cells, "output_len"))
    load, queued = cells["concurrency_or_batch"], cells["concurrency_or_batch"].startswith("max (offline")
    if not queued and not re.fullmatch(r"\d+", load):
        raise Unusable(f"load is {load!r}: no fixed number of requests in flight")
    requests = source.requests_of(tokens_in, tokens_out) if queued else int(load)
    if not requests:
        raise Unusable(f"load is {load!r}, and the source does not say how many requests {tokens_in}/{tokens_out} are")
    printed = base.number_format or source.weight_formats.get(base.model, "")
    if not printed:
        raise Unusable("dtype_weights is blank: the number format is unknown")
    job = Serving(model=_model(base.model), input_tokens=tokens_in, output_tokens=tokens_out, concurrency=requests,
                  queued=queued)
    return replace(base, job=job, layout=_published_layout(cells, job.model, source, _recipe(printed)),
                   number_format=_recipe(printed))


def _published_layout(cells: Cells, model: Model, source: ServingSource, number_format: str) -> Deployments:
    has_experts = any(block.mlp and block.mlp.experts for block in model.blocks)
    world = cells.whole("tp") or cells.whole("n_chips") or 1
    groups = cells.whole("dp") or (world if has_experts and source.attention_groups else 1)
    cache = "fp8" if "8" in (cells["dtype_kv"] or source.cache_format) else "bf16"
    if world % groups:
        raise Unusable(f"dp = {groups} does not divide {world} chips")
    return deployment(tp=world // groups, attention_dp=groups, pp=cells.whole("pp") or 1, cache_format=cache,
                      weight_format=number_format, max_batch=source.max_batch * groups,
                      ep=_expert_degree(model, cells.whole("ep") or 1, world, groups))


def _recipe(text: str) -> str:
    folded = "".join(letter for letter in text.casefold() if letter.isalnum())
    if folded not in _RECIPES:
        raise Unusable(f"number format {text!r} is not one that is modelled")
    return _RECIPES[folded]


def _need(cells: Cells, column: str) -> float:
    value = cells.number(column)
    if value is None:
        raise Unusable(f"{column} is blank")
    return value


def _guarded(base: Point, read: Callable[[], Point]) -> Point:
    try:
        return read()
    except (Unusable, SerriedError) as error:
        return replace(base, skipped=str(error))


_READ: Mapping[str, Callable[[Cells], Sequence[Point]]] = {
    "settings": _settings, "engine points": _engine_points, "published": _published}
