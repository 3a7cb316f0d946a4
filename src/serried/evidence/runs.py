"""Published training runs: a row of the cases file becomes a job, a layout, a machine and a measured figure.

What a row leaves blank is filled by the assumptions of its source (`assumptions.py`); where neither says what a
prediction needs, the row is skipped with that reason. Nothing here looks at how well a prediction does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from serried.catalogue.entry import fold
from serried.evidence.assumptions import Assumptions, SourceAssumption, source_of
from serried.evidence.cells import Cells, Unusable
from serried.evidence.run_metric import Metric, metric_of_row
from serried.evidence.run_model import model_of_row
from serried.workload import Model, Training

__all__ = ["COLUMNS", "Run", "Skipped", "run_of_row"]

#: Columns by which a training cases file is recognised.
COLUMNS = ("id", "source", "model", "chip", "n_chips", "tp", "pp", "metric_name", "metric_value", "unit")

Value = TypeVar("Value")

_SHARDED_NOTE = re.compile(r"FSDP=(\d+)")
_TOKENS_NOTE = re.compile(r"tokens(?: per |/)step\s*=\s*(\d+)")
_DEGREE_NOTE = re.compile(r"ici_(fsdp|tensor)_parallelism=(-?\d+)")
_SLICES_NOTE = re.compile(r"(\d+) slice\(s\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One published run, ready to be predicted.

    layout: degrees and choices by the names of planner Layouts; recompute None = the least of `recompute_choices` that
    fits. slices: pods that hold a whole copy of the sharded states each (1 = the states are cut over all chips).
    chip: as printed. fabric: where the source names its wires ("" = the fabric that the chip stands on).
    stack_facts: what the source's recipe changes in the facts of its stack. metric: what was measured.
    memory_bytes: published peak, None when blank.
    """

    id: str
    source: str
    chip: str
    framework: str
    split: str
    model: Model
    job: Training
    chip_count: int
    slices: int
    fabric: str
    layout: Mapping[str, int | str | bool]
    recompute_choices: tuple[str, ...]
    stack_facts: Mapping[str, object]
    metric: Metric
    memory_bytes: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A row that is not predicted, and why."""

    id: str
    source: str
    chip: str
    framework: str
    split: str
    model_name: str
    reason: str
    unit: str


def run_of_row(row: Mapping[str, object], assumptions: Assumptions, *, position: int) -> Run | Skipped:
    """The row as a Run, or as Skipped with the reason; `position` names a row without an id."""
    raw = Cells(row)
    source = source_of(raw.texts(), assumptions)
    label = {"id": raw["id"] or f"row {position + 1}", "source": source.name, "chip": raw["chip"] or "unknown",
             "framework": raw["framework"] or "unknown",
             "split": raw["split"] if raw["split"] in ("calibrate", "validate") else "validate"}
    try:
        return _run(raw, source, assumptions, label)
    except Unusable as reason:
        return Skipped(**label, model_name=raw["model"], reason=str(reason), unit=raw["unit"])


def _run(raw: Cells, source: SourceAssumption, assumptions: Assumptions, label: dict[str, str]) -> Run:
    if not raw["chip"]:
        raise Unusable("chip is blank")
    cells = raw.filled(_fill(raw, source, assumptions))
    model = model_of_row(cells, source, assumptions)
    chips = cells.need("n_chips", most=1e7)
    sequence = _sequence(cells, source)
    degrees = _degrees(cells, chips)
    batch = _global_batch(cells, source, sequence, chips, degrees)
    layout = _layout(cells, source, model, degrees, batch)
    job = Training(model=model, sequence_tokens=sequence, global_batch_sequences=batch)
    memory = cells.number("memory_gb_if_given")
    return Run(
        **label, model=model, job=job, chip_count=chips, slices=_slices(cells, chips, layout),
        fabric=source.fabric_of_chip.get(raw["chip"], ""), layout=layout,
        recompute_choices=(str(layout["recompute"]),) if layout["recompute"] else source.recompute_choices,
        stack_facts=_facts(cells, source, raw["model"], pipeline=degrees["pp"] > 1),
        metric=metric_of_row(cells, source, model=model, sequence=sequence, batch=batch, chips=chips),
        memory_bytes=None if memory is None else memory * (2.0**30 if "GiB" in cells["notes"] else 1e9))


def _fill(raw: Cells, source: SourceAssumption, assumptions: Assumptions) -> dict[str, str]:
    """Column to value for blanks: general habits, then the framework's, then the source's own."""
    framework = raw["framework"].casefold()
    sharded = any(name in framework for name in assumptions.fully_sharded)
    fill = {"cp": "1", "zero_stage": "3" if sharded else "1",
            "sequence_parallel": "0" if any(name in framework for name in assumptions.no_sequence_parallel) else "1"}
    if sharded or raw["n_chips"] in ("1", raw["dp"]):
        fill |= {"tp": "1", "pp": "1"}
    fill |= dict(source.fill)
    if recompute := _of_model(source.recomputes, raw["model"]):
        fill["recompute"] = recompute
    if source.dtype_of_chip.get(raw["chip"]):
        fill["dtype"] = source.dtype_of_chip[raw["chip"]]
    note = _SHARDED_NOTE.search(raw["notes"])
    if raw["zero_stage"] == "3" or (note and int(note[1]) > 1):
        fill |= {"zero_stage": "3"} | dict(source.fsdp)
    if "TP/PP/DP not given" in raw["notes"]:
        fill |= {"tp": "", "pp": ""}
    return fill | {axis: str(degree) for axis, degree in _noted_degrees(raw["notes"]).items()}


def _noted_degrees(notes: str) -> dict[str, int]:
    """The tensor degree that stands in the notes of a JAX run; the sharded axis takes the rest."""
    found = {axis: int(degree) for axis, degree in _DEGREE_NOTE.findall(notes)}
    return {"tp": found["tensor"]} if found.get("tensor", 0) > 0 else {}


def _sequence(cells: Cells, source: SourceAssumption) -> int:
    printed = cells.whole("seq_len", most=1e9)
    if printed is not None:
        return printed
    known = _of_model(source.sequences, cells["model"])
    if known is None:
        raise Unusable("seq_len is blank")
    return known


def _of_model(table: Mapping[str, Value], model: str) -> Value | None:
    """What a table by beginnings of model names says of this one."""
    name = fold(model)
    return next((value for start, value in table.items() if name.startswith(start)), None)


def _facts(cells: Cells, source: SourceAssumption, model: str, *, pipeline: bool) -> dict[str, object]:
    """What the source's recipe for the model, and the variant of it that the row names, change in the stack."""
    facts = dict(_of_model(source.facts_of, model) or {})
    for variant in source.variants:
        if variant.speaks_of(cells["notes"], pipeline=pipeline):
            facts |= variant.facts
    return facts


def _degrees(cells: Cells, chips: int) -> dict[str, int]:
    degrees = {axis: cells.need(axis, most=1e6) for axis in ("tp", "pp", "cp")}
    copies = degrees["tp"] * degrees["pp"] * degrees["cp"]
    printed = cells.whole("dp", most=1e7)
    if printed is not None and copies * printed == 2 * chips and "cores" in cells["notes"].casefold() \
            and degrees["tp"] % 2 == 0:
        degrees["tp"] //= 2     # degrees count the two cores of a chip
        copies //= 2
    if chips % copies:
        raise Unusable(f"tp*pp*cp = {copies} does not divide n_chips = {chips}")
    return degrees | {"dp": chips // copies}


def _global_batch(cells: Cells, source: SourceAssumption, sequence: int, chips: int, degrees: Mapping[str, int]) -> int:
    printed = cells.whole("global_batch", most=1e9)
    if printed is not None:
        return printed
    if noted := _TOKENS_NOTE.search(cells["notes"]):
        if int(noted[1]) % sequence:
            raise Unusable(f"tokens per step = {noted[1]} is no whole number of sequences of {sequence}")
        return int(noted[1]) // sequence
    micro_batch = cells.whole("micro_batch", most=1e6)
    if micro_batch is not None and "per_device_batch_size" in cells["notes"]:
        return micro_batch * chips
    if micro_batch is not None and (source.one_micro_batch or cells["metric_name"].startswith("layer_")):
        if degrees["pp"] > 1:
            raise Unusable("global_batch is blank and a pipeline's bubble follows from it")
        return micro_batch * degrees["dp"]
    raise Unusable("global_batch is blank")


def _layout(cells: Cells, source: SourceAssumption, model: Model, degrees: Mapping[str, int],
            batch: int) -> dict[str, int | str | bool]:
    per_rank, rest = divmod(batch, degrees["dp"])
    if rest or not per_rank:
        raise Unusable(f"global_batch = {batch} does not divide over dp = {degrees['dp']}")
    micro_batch = cells.whole("micro_batch", most=1e6)
    if micro_batch is None or "per_device_batch_size" in cells["notes"]:
        if micro_batch is None and not (_TOKENS_NOTE.search(cells["notes"]) and degrees["pp"] == 1):
            raise Unusable("micro_batch is blank")
        micro_batch = per_rank
    if per_rank % micro_batch:
        raise Unusable(f"micro_batch = {micro_batch} does not divide the {per_rank} sequences of a rank")
    recompute = cells["recompute"].casefold()
    noted = re.search(r"remat_policy=(\w+)", cells["notes"])
    if noted and not recompute:
        recompute = {"full": "full", "minimal": "selective"}.get(noted[1], "mlp")
    recompute = source.recompute_words.get(recompute, recompute)
    if recompute not in ("", "none", "selective", "mlp", "attention", "full"):
        raise Unusable(f"recompute = {recompute!r} is not a known choice")
    virtual = cells.whole("vpp", most=1e4) or _chunks(source, model, degrees["pp"], per_rank // micro_batch)
    experts = max((block.mlp.experts for block in model.blocks if block.mlp), default=0)
    bubble_free = re.search(r"zero-bubble|zbv|zbb", cells["notes"]) is not None
    schedule = "zero-bubble" if bubble_free else "interleaved" if virtual > 1 and degrees["pp"] > 1 else "1f1b"
    ep = (cells.whole("ep", most=1e6) or 1) if experts else 1
    return {
        "tp": degrees["tp"], "cp": degrees["cp"], "pp": degrees["pp"], "ep": ep,
        "expert_tp": 1 if source.expert_tp == 1 or ep > 1 else degrees["tp"],
        "virtual_stages": virtual if degrees["pp"] > 1 else 1, "micro_batch": micro_batch,
        "sharding": (cells.whole("zero_stage", most=3, zero=True) or 0) if degrees["dp"] * degrees["cp"] > 1 else 0,
        "recompute": recompute, "schedule": schedule, "number_format": _format(cells, source),
        "sequence_parallel": degrees["tp"] > 1 and cells["sequence_parallel"] not in ("0", ""),
        "overlap_data": True, "overlap_tensor": degrees["tp"] > 1}


def _chunks(source: SourceAssumption, model: Model, pp: int, micro_batches: int) -> int:
    """Chunks per stage where none are printed."""
    layers, rest = divmod(model.layer_count, pp)
    if source.one_layer_chunks and not rest:
        return layers
    idle = (pp - 1) / micro_batches
    return max(1, layers // 2) if 0 < source.most_idle < idle and micro_batches % pp == 0 else 1


def _format(cells: Cells, source: SourceAssumption) -> str:
    """The number-format recipe: what is printed, in the planner's words."""
    printed = cells["dtype"].casefold()
    word = re.split(r"[\s(,]", printed)[0]
    words = {"bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "float16": "fp16", "half": "fp16", "fp8": "fp8",
             "fp8-cs": "fp8", "fp8_cs": "fp8", "fp8-ds": "fp8", "fp8-sc": "fp8-block", "fp8-block": "fp8-block",
             "fp8-mx": "mxfp8", "fp8_mx": "mxfp8", "mxfp8": "mxfp8", "nvfp4": "nvfp4", "fp4": "nvfp4", "int8": "int8",
             "tf32": "tf32", "fp32": "fp32", "float32": "fp32"}
    if word not in words:
        raise Unusable(f"dtype = {printed!r} is not a known number format" if printed else "dtype is blank")
    finer = source.finer_fp8_note and source.finer_fp8_note in cells["notes"] and not cells.printed("dtype")
    return "mxfp8" if finer else words[word]


def _slices(cells: Cells, chips: int, layout: Mapping[str, int | str | bool]) -> int:
    """Pods over which a sharded JAX run is replicated rather than sharded: the notes say how many slices there are."""
    noted = _SLICES_NOTE.search(cells["notes"])
    slices = int(noted[1]) if noted and layout["sharding"] == 3 else 1
    return slices if slices >= 1 and chips % slices == 0 else 1
