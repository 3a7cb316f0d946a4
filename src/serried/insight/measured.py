"""Read what a user measured: a CSV of points, the result of `vllm bench serve`, or a Megatron-LM training log."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from serried.catalogue.entry import fold
from serried.errors import BadInput
from serried.evidence.assumptions import read_assumptions
from serried.evidence.runs import COLUMNS as RUN_COLUMNS
from serried.evidence.runs import Run, run_of_row
from serried.evidence.serving_points import COLUMNS as POINT_COLUMNS
from serried.evidence.serving_points import points_of
from serried.insight.spec import MeasuredPoint
from serried.planner import Layouts, Machine, layouts_of
from serried.serving.peak import refuse_above_peak
from serried.workload.spec import Serving, Training

__all__ = ["read_measured", "refuse_impossible_points"]

_BENCH_METRICS = {"output_throughput": ("output_throughput", "tokens/s"), "mean_ttft_ms": ("ttft_mean", "ms"),
                  "mean_tpot_ms": ("tpot_mean", "ms")}
_ITERATION = re.compile(r"elapsed time per iteration \(ms\):\s*([\d.]+)")
_BATCH = re.compile(r"global batch size:\s*(\d+)")
_ARGUMENT = re.compile(r"^\s*(?:\[\w+\]:\s*|\d+:\s*)?(\w+) \.{3,} (\S+)\s*$", re.MULTILINE)
#: The first iterations compile, allocate and fill caches; they are left out when enough others are there.
_WARM_UP_FRACTION = 0.2


def read_measured(path: str | Path, job: Serving | Training, machine: Machine) -> tuple[list[MeasuredPoint], list[str]]:
    """Points of a file, and why others in it were left out.

    What a file does not say (model, tokens) is taken from `job`. Raises BadInput when the file holds no point of this
    kind of job, and for a throughput above the peak of the machine's chips (with the arithmetic).
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise BadInput(file=str(path), field="--measured", value=str(path), expected="a readable file",
                       remedy=str(error)) from None
    skipped: list[str] = []
    if file.suffix.casefold() == ".json" or text.lstrip().startswith("{"):
        points = _bench_points(text, job, str(path))
    elif _ITERATION.search(text):
        points = [_log_point(text, job, machine, str(path))]
    else:
        points, skipped = _table_points(file, job, machine)
    if not points:
        raise BadInput(file=str(path), field="--measured", value=file.name,
                       expected=f"points of {job.model.name} on {machine.chip.name} that can be predicted",
                       remedy="; ".join(dict.fromkeys(skipped[:3])) or "Give a CSV with the columns of the shipped "
                              "measurements, the JSON of `vllm bench serve`, or a Megatron-LM log.")
    for point in points:
        refuse_impossible_points(point, machine, str(path))
    return points, skipped


def refuse_impossible_points(point: MeasuredPoint, machine: Machine, file: str = "") -> None:
    """BadInput, with the arithmetic, when a measured rate is above the peak of the machine's chips."""
    if isinstance(point.job, Training):
        tokens = point.job.sequence_tokens * point.job.global_batch_sequences
        refuse_above_peak(tokens / point.value, model=point.job.model, chip=machine.chip,
                          chip_count=machine.chip_count, passes=3.0, field=f"{point.label} {point.metric}", file=file)
    elif point.metric == "output_throughput":
        new_tokens = point.job.input_tokens - point.job.cached_tokens + point.job.output_tokens
        refuse_above_peak(point.value * new_tokens / max(point.job.output_tokens, 1), model=point.job.model,
                          chip=machine.chip, chip_count=machine.chip_count, file=file,
                          field=f"{point.label} output throughput with {point.job.input_tokens} tokens in")


def _bench_points(text: str, job: Serving | Training, file: str) -> list[MeasuredPoint]:
    """The result JSON of `vllm bench serve`: means over completed requests at a held concurrency."""
    if not isinstance(job, Serving):
        raise BadInput(file=file, field="--measured", value="a serving benchmark", expected="points of a training job",
                       remedy="Ask with --serve instead of --train.")
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(file=file, field="--measured", value=file, expected="valid JSON", remedy=str(error)) from None
    if not isinstance(raw, Mapping):
        raise BadInput(file=file, field="--measured", value=type(raw).__name__, expected="one JSON object",
                       remedy="Give the file that --save-result writes.")
    completed = _number(raw, "completed", file)
    concurrency = raw.get("max_concurrency") or job.concurrency
    own = replace(job, input_tokens=round(_number(raw, "total_input_tokens", file) / completed),
                  output_tokens=max(round(_number(raw, "total_output_tokens", file) / completed), 1),
                  concurrency=int(min(float(concurrency), completed)))
    return [MeasuredPoint(label=name, metric=metric, value=_number(raw, name, file), unit=unit, job=own)
            for name, (metric, unit) in _BENCH_METRICS.items() if raw.get(name) is not None]


def _number(raw: Mapping[str, object], name: str, file: str) -> float:
    value = raw.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise BadInput(file=file, field=name, value=value, expected="a number above 0",
                       remedy="Give the file that `vllm bench serve --save-result` writes.")
    return float(value)


def _log_point(text: str, job: Serving | Training, machine: Machine, file: str) -> MeasuredPoint:
    """A Megatron-LM log: median time of an iteration after the first ones; degrees from the arguments it prints."""
    if not isinstance(job, Training):
        raise BadInput(file=file, field="--measured", value="a training log", expected="points of a serving job",
                       remedy="Ask with --train instead of --serve.")
    times_s = [float(value) / 1e3 for value in _ITERATION.findall(text)]
    later = times_s[math.ceil(_WARM_UP_FRACTION * len(times_s)):] or times_s
    batches = [int(value) for value in _BATCH.findall(text)]
    arguments = dict(_ARGUMENT.findall(text))
    own = replace(job, global_batch_sequences=batches[-1] if batches else job.global_batch_sequences,
                  sequence_tokens=_argument(arguments, "seq_length") or job.sequence_tokens)
    world = _argument(arguments, "world_size")
    if world and world != machine.chip_count:
        raise BadInput(file=file, field="world_size", value=world, expected=f"{machine.chip_count}, as --fleet says",
                       remedy=f"Ask with --fleet {machine.chip.name}:{world}.")
    return MeasuredPoint(label=Path(file).name, metric="step_time", value=statistics.median(later), unit="s",
                         job=own, layout=_log_layout(arguments))


def _log_layout(arguments: Mapping[str, str]) -> Layouts | None:
    tp, pp = _argument(arguments, "tensor_model_parallel_size"), _argument(arguments, "pipeline_model_parallel_size")
    if not tp or not pp:
        return None
    recompute = {"full": "full", "selective": "selective"}.get(arguments.get("recompute_granularity", ""), "none")
    virtual = _argument(arguments, "virtual_pipeline_model_parallel_size") or 1
    yes = {name: arguments.get(name) == "True" for name in
           ("sequence_parallel", "overlap_grad_reduce", "use_distributed_optimizer", "tp_comm_overlap")}
    return layouts_of([{"tp": tp, "pp": pp, "cp": _argument(arguments, "context_parallel_size") or 1,
                        "ep": _argument(arguments, "expert_model_parallel_size") or 1, "virtual_stages": virtual,
                        "micro_batch": _argument(arguments, "micro_batch_size") or 1, "recompute": recompute,
                        "sharding": int(yes["use_distributed_optimizer"]),
                        "sequence_parallel": yes["sequence_parallel"] and tp > 1,
                        "overlap_data": yes["overlap_grad_reduce"], "overlap_tensor": yes["tp_comm_overlap"]}])


def _argument(arguments: Mapping[str, str], name: str) -> int:
    text = arguments.get(name, "")
    return int(text) if text.isdigit() else 0


def _table_points(file: Path, job: Serving | Training, machine: Machine) -> tuple[list[MeasuredPoint], list[str]]:
    import polars as pl

    try:
        frame = pl.read_csv(file, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise BadInput(file=str(file), field="--measured", value=file.name, expected="a CSV with a header, a JSON of "
                       "`vllm bench serve`, or a Megatron-LM log", remedy=str(error).splitlines()[0]) from None
    present = set(frame.columns)
    serving = any(set(columns) <= present for columns in POINT_COLUMNS.values())
    if not serving and not set(RUN_COLUMNS) <= present:
        missing = sorted(set(POINT_COLUMNS["settings"]) - present)
        raise BadInput(file=str(file), field="columns", value=frame.columns[:12],
                       expected="the columns of the shipped serving or training measurements",
                       remedy=f"A serving point also needs: {', '.join(missing)}.")
    if serving != isinstance(job, Serving):
        raise BadInput(file=str(file), field="--measured", value="serving points" if serving else "training runs",
                       expected=f"points of a {'training' if serving else 'serving'} job",
                       remedy="Ask with --serve for serving points and with --train for training runs.")
    rows = _serving_rows if serving else _training_rows
    return rows(frame, job, machine)


def _serving_rows(frame: object, job: Serving | Training, machine: Machine) -> tuple[list[MeasuredPoint], list[str]]:
    points, skipped = [], []
    for point in points_of(frame):  # type: ignore[arg-type]
        reason = point.skipped or _other_chip(point.chip, machine)
        if not reason and point.job is not None and fold(point.job.model.name) != fold(job.model.name):
            reason = f"measured on {point.job.model.name}"
        if not reason and point.layout is not None and int(point.layout.chip_count[0]) != machine.chip_count:
            reason = f"measured on {int(point.layout.chip_count[0])} chips"
        if reason or point.job is None:
            skipped.append(f"{point.id}: {reason}")
            continue
        points.append(MeasuredPoint(
            label=point.id, metric=point.metric, value=point.measured, unit=point.unit, job=point.job,
            layout=point.layout, number_format=point.number_format, eager=point.note.eager if point.note else None,
            fused=point.note.fused if point.note else None, kernels=point.note.kernels if point.note else 0.0))
    return points, skipped


def _training_rows(frame: object, job: Serving | Training, machine: Machine) -> tuple[list[MeasuredPoint], list[str]]:
    points, skipped, assumptions = [], [], read_assumptions()
    for position, row in enumerate(frame.iter_rows(named=True)):  # type: ignore[attr-defined]
        run = run_of_row(row, assumptions, position=position)
        reason = run.reason if not isinstance(run, Run) else _other_chip(run.chip, machine) or (
            f"measured on {run.model.name}" if fold(run.model.name) != fold(job.model.name) else
            f"measured on {run.chip_count} chips" if run.chip_count != machine.chip_count else
            "not the time of a step" if run.metric.quantity != "step" else "")
        if reason or not isinstance(run, Run):
            skipped.append(f"{run.id}: {reason}")
            continue
        layout = {**run.layout, "recompute": run.layout["recompute"] or run.recompute_choices[0]}
        points.append(MeasuredPoint(label=run.id, metric="step_time", value=run.metric.time_s, unit="s", job=run.job,
                                    layout=layouts_of([layout]), number_format=str(run.layout["number_format"])))
    return points, skipped


def _other_chip(name: str, machine: Machine) -> str:
    known = {fold(alias) for alias in (machine.chip.name, *machine.chip.aliases)}
    return "" if fold(name) in known else f"measured on {name}"
