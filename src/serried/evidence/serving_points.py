"""Rows of serving files as points: one measured figure each, with the job and the deployment it was measured on."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from serried.errors import SerriedError
from serried.evidence.cells import Cells, Unusable
from serried.evidence.serving_pools import PoolRun, PoolShape, PrintedPools, pool_run
from serried.evidence.serving_recipes import NO_RECIPE, Recipe, checkpoint_format, multiplies_degrees, recipe_of
from serried.evidence.serving_sources import ServingSource, serving_source
from serried.serving import Deployments, deployment
from serried.serving.static import LaunchNote
from serried.workload import Model, read_model
from serried.workload.spec import Serving

if TYPE_CHECKING:
    import polars as pl

__all__ = ["COLUMNS", "METRICS", "WIDTH_PROMPT_TOKENS", "Point", "launch_note", "points_of"]

#: Prompts of rows of two pools up to which they say how wide the interval of such rows is.
WIDTH_PROMPT_TOKENS = 1024

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
@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One measured figure with the job and deployment it was measured on; `skipped` says why it cannot be predicted.

    prefill: the deployment of a prefill pool before `layout`; None = one pool does all. recipe: what the benchmark's
    own scripts set beside what the table prints. run: likewise of its two pools, None = not known.
    """

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
    prefill: Deployments | None = None
    recipe: Recipe = NO_RECIPE
    run: PoolRun | None = None
    note: LaunchNote | None = None
    skipped: str | None = None


def points_of(frame: pl.DataFrame) -> list[Point]:
    """Every measured figure of a serving cases file, in order."""
    kind = next(name for name, columns in COLUMNS.items() if set(columns) <= set(frame.columns))
    return [point for row in frame.iter_rows(named=True) for point in _READ[kind](Cells(row))]


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
    number_format = checkpoint_format(base.model, _recipe(base.number_format))
    found = re.search(r"silicon_concurrency=(\d+)", cells["silicon_data_source"])
    concurrency = int(found.group(1)) if found else cells.whole("batch_size")
    if concurrency is None:
        raise Unusable("batch_size is blank: the load is unknown")
    job = Serving(model=_model(base.model), input_tokens=int(_need(cells, "isl")),
                  output_tokens=int(_need(cells, "osl")), concurrency=concurrency)
    run = pool_run(_printed_pools(cells, base, job, number_format))
    is_split = run is not None or cells["mode"] != "agg"
    tp, groups, _ = _degrees(cells, "decode_" if cells["mode"] != "agg" else "")
    recipe = recipe_of(source=cells["silicon_data_source"], engine=base.engine, chip=base.chip, model=base.model,
                       job=job, tp=tp, groups=groups, number_format=number_format)
    if run is not None:
        pools = [_recipe_pool(shape, job.model, number_format, recipe, batch)
                 for shape, batch in ((run.prefill, 0), (run.decode, run.batch))]
    else:
        pools = [_pool(cells, prefix, job.model, number_format, recipe)
                 for prefix in (("prefill_", "decode_") if is_split else ("",))]
    return replace(base, job=job, layout=pools[-1], prefill=pools[0] if is_split else None, recipe=recipe, run=run,
                   number_format=number_format, split=_pools_split(job) if cells["mode"] != "agg" else base.split)


def _pools_split(job: Serving) -> str:
    """Rows of two pools with short prompts say how wide the interval of such rows is; those with long ones judge it.

    No other table prints such runs. Cut by length, no run stands on both sides, for dumps repeat runs; no parameter of
    the model is fitted on either.
    """
    return "calibrate" if job.input_tokens <= WIDTH_PROMPT_TOKENS else "validate"


def _printed_pools(cells: Cells, base: Point, job: Serving, number_format: str) -> PrintedPools:
    """What a row says of its pools; one that names a single engine prints the chips of all."""
    source = cells["silicon_data_source"]
    measured = re.search(r"measured=([\d-]+)", source)
    one_engine = cells["mode"] == "agg"
    return PrintedPools(
        source=source, engine=base.engine, chip=base.chip, model=base.model, number_format=number_format,
        measured=measured.group(1) if measured else "", lengths=(job.input_tokens, job.output_tokens),
        concurrency=job.concurrency, one_engine=one_engine,
        prefill_chips=_degrees(cells, "" if one_engine else "prefill_")[0],
        decode_chips=_degrees(cells, "" if one_engine else "decode_")[0],
        prefill_engines=cells.whole("prefill_num_workers") or 0, decode_engines=cells.whole("decode_num_workers") or 0)


def _recipe_pool(shape: PoolShape, model: Model, number_format: str, recipe: Recipe, batch: int) -> Deployments:
    return deployment(tp=shape.chips // shape.groups, attention_dp=shape.groups, replicas=shape.engines,
                      ep=shape.expert_degree if _has_experts(model) else 1, weight_format=number_format,
                      cache_format=recipe.cache_format or "bf16", max_batch=batch * shape.groups)


def _degrees(cells: Cells, prefix: str) -> tuple[int, int, int]:
    """Chips of one stage of a replica, attention groups, expert degree.

    Tables print the tensor degree of attention or the chips of the whole stage; the degrees of the experts, whose
    product is the stage, say which. Some print the whole stage as the experts' tensor degree beside an expert degree;
    of engines that serve both phases, that is: of two pools they print one degree, the prefill engines' experts.
    """
    tensor = cells.whole(f"{prefix}tp_size") or 1
    groups = cells.whole(f"{prefix}attention_dp_size", zero=True) or 1
    experts = cells.whole(f"{prefix}moe_ep_size", zero=True) or 1
    cut = cells.whole(f"{prefix}moe_tp_size", zero=True) or 1
    if not prefix and multiplies_degrees(cells["silicon_data_source"]) and cut == experts > 1:
        tensor, groups, cut = max(tensor // experts, 1), max(groups // experts, 1), 1
    world = cut * experts if cut * experts in (tensor, tensor * groups) else max(tensor, experts)
    if world < groups:
        world = tensor * groups
    if world % groups or world % experts:
        raise Unusable(f"{prefix}attention_dp_size = {groups} and {prefix}moe_ep_size = {experts} do not divide "
                       f"{world} chips")
    return world, groups, experts


def _pool(cells: Cells, prefix: str, model: Model, number_format: str, recipe: Recipe) -> Deployments:
    world, groups, experts = _degrees(cells, prefix)
    return deployment(tp=world // groups, attention_dp=groups, pp=cells.whole(f"{prefix}pp_size") or 1,
                      replicas=(cells.whole(f"{prefix}num_workers") or 1) if prefix else 1,
                      ep=_expert_degree(model, world if recipe.expert_parallel else experts, world, groups),
                      weight_format=number_format, cache_format=recipe.cache_format or "bf16")


def _expert_degree(model: Model, printed: int, world: int, groups: int) -> int:
    """The printed degree where the model has experts; groups that hold their own requests share experts."""
    if not _has_experts(model):
        return 1
    return world if groups > 1 and printed <= 1 else printed


def _has_experts(model: Model) -> bool:
    return any(block.mlp and block.mlp.experts for block in model.blocks)


def _published(cells: Cells) -> list[Point]:
    metrics = [("output_throughput_per_chip", "throughput_tok_s_per_chip", "tokens/s"), ("ttft", "ttft_ms", "ms"),
               ("tpot", "tpot_ms", "ms")]
    # "calibration" stays as printed: no parameter is fitted on these rows, but the widths of intervals are measured
    # on them (calibration/spreads.py), so their coverage is no judgement; their errors are those of unseen rows.
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
    world = cells.whole("tp") or cells.whole("n_chips") or 1
    groups = cells.whole("dp") or (world if _has_experts(model) and source.attention_groups else 1)
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
