"""Training runs: predicted beside measured.

Rows become runs (`runs.py`), runs that share a job and a machine are estimated together, and what is compared is the
step time, shown in the unit of the file.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from serried.catalogue import names_of
from serried.catalogue.entry import fold
from serried.compiler import KernelProfile, profile_for
from serried.errors import SerriedError
from serried.evidence.assumptions import Assumptions, read_assumptions
from serried.evidence.runs import COLUMNS, Run, Skipped, run_of_row
from serried.evidence.spec import CaseResults
from serried.fabric import Fabric, read_fabric
from serried.planner import FORMATS, RECOMPUTE, SCHEDULES, Layouts, Machine, TrainingEstimate, estimate_training
from serried.silicon import Chip, read_chip
from serried.software import Stack, find_stack_name, stack_for
from serried.workload import Floats, Training

if TYPE_CHECKING:
    import polars as pl

__all__ = ["COLUMNS", "Prediction", "StackOf", "evaluate", "evaluate_with_memory", "layouts_of", "machine_of",
           "predict_runs", "read_runs"]

#: The stack that a run is predicted with; the default takes the shipped one of its framework on its chip family.
StackOf = Callable[[Run, Chip], Stack]

_CODES = {"recompute": RECOMPUTE, "schedule": SCHEDULES, "number_format": FORMATS}
_BOOLEANS = {"sequence_parallel", "overlap_data", "overlap_tensor"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the planner says of one run, or why it says nothing (`skipped`).

    time_s: of the measured quantity. recompute: the choice that was made. stack_known: fitted on this chip family.
    """

    time_s: float = float("nan")
    memory_bytes: float = float("nan")
    recompute: str = ""
    evidence_class: str = "data sheet only"
    stack: str = ""
    stack_known: bool = False
    extra_spread: float = 0.0
    skipped: str | None = None


def read_runs(frame: pl.DataFrame, assumptions: Assumptions | None = None) -> list[Run | Skipped]:
    """Every row of a training cases file, in order."""
    known = assumptions or read_assumptions()
    return [run_of_row(row, known, position=position) for position, row in enumerate(frame.iter_rows(named=True))]


def evaluate(frame: pl.DataFrame, *, stack_of: StackOf | None = None) -> CaseResults:
    """Predict every row; a row that cannot be predicted is skipped with its reason."""
    return evaluate_with_memory(frame, stack_of=stack_of)[0]


def evaluate_with_memory(frame: pl.DataFrame, *, stack_of: StackOf | None = None) -> tuple[CaseResults, CaseResults]:
    """Step times of every row, and peak memory of those that publish it."""
    rows = read_runs(frame)
    runs = [row for row in rows if isinstance(row, Run)]
    said = dict(zip((id(run) for run in runs), predict_runs(runs, stack_of=stack_of), strict=True))
    predictions = [said[id(row)] if isinstance(row, Run) else Prediction(skipped=row.reason) for row in rows]
    return _results(rows, predictions), _memory_results(
        [(row, said[id(row)]) for row in runs if row.memory_bytes is not None])


def _memory_results(found: Sequence[tuple[Run, Prediction]]) -> CaseResults:
    """Peak memory in GB; nothing was ever fitted on memory, so every case is unseen."""
    return CaseResults(
        area="memory", ids=[run.id for run, _ in found], units=["GB"] * len(found), split=["validate"] * len(found),
        predicted=np.array([said.memory_bytes / 1e9 for _, said in found]),
        measured=np.array([(run.memory_bytes or np.nan) / 1e9 for run, _ in found]),
        evidence_class=[said.evidence_class for _, said in found], skipped=[said.skipped for _, said in found],
        groups={"source": [run.source for run, _ in found], "chip": [run.chip for run, _ in found],
                "model": [run.model.name for run, _ in found]},
        fold=[f"{run.source}/{run.model.name}" for run, _ in found])


def _results(rows: Sequence[Run | Skipped], predictions: Sequence[Prediction]) -> CaseResults:
    measured = [row.metric.value if isinstance(row, Run) else np.nan for row in rows]
    predicted = [row.metric.shown(said.time_s) if isinstance(row, Run) and said.skipped is None else np.nan
                 for row, said in zip(rows, predictions, strict=True)]
    models = [row.model.name if isinstance(row, Run) else row.model_name for row in rows]
    return CaseResults(
        area="training", ids=[row.id for row in rows], predicted=np.array(predicted), measured=np.array(measured),
        units=[row.metric.unit if isinstance(row, Run) else row.unit for row in rows],
        split=[row.split for row in rows], evidence_class=[said.evidence_class for said in predictions],
        skipped=[said.skipped for said in predictions],
        groups={"source": [row.source for row in rows], "chip": [row.chip for row in rows],
                "framework": [row.framework for row in rows], "model": models,
                "format": [str(row.layout["number_format"]) if isinstance(row, Run) else "" for row in rows],
                "kind": [said.stack for said in predictions],
                "extra_spread": [f"{said.extra_spread:.6g}" for said in predictions]},
        fold=[f"{row.source}/{model}" for row, model in zip(rows, models, strict=True)])


def predict_runs(runs: Sequence[Run], *, stack_of: StackOf | None = None) -> list[Prediction]:
    """Predictions in the order of `runs`; those that share a job and a machine are estimated in one call."""
    choose = stack_of or _shipped_stack
    predictions: list[Prediction] = [Prediction()] * len(runs)
    groups: dict[tuple[object, ...], list[int]] = {}
    machines: dict[int, Machine] = {}
    for position, run in enumerate(runs):
        try:
            machines[position] = machine_of(run, choose)
        except SerriedError as error:
            predictions[position] = Prediction(skipped=str(error))
            continue
        machine = machines[position]
        key = (run.job, machine.chip.name, machine.fabric.name, machine.stack.name, id(machine.stack), run.chip_count,
               run.slices, run.metric.quantity)
        groups.setdefault(key, []).append(position)
    for positions in groups.values():
        chosen = [runs[position] for position in positions]
        for position, said in zip(positions, _predict_group(chosen, machines[positions[0]]), strict=True):
            predictions[position] = said
    return predictions


def _predict_group(runs: Sequence[Run], machine: Machine) -> list[Prediction]:
    """Runs of one job on one machine. Every allowed recompute of a run is a layout; the least that fits is taken."""
    spans, layouts = layouts_of(runs)
    try:
        estimate = _estimate(runs[0].job, machine, layouts)
    except SerriedError as error:
        return [Prediction(skipped=str(error))] * len(runs)
    return [_prediction(run, machine, estimate, span) for run, span in zip(runs, spans, strict=True)]


def _estimate(job: Training, machine: Machine, layouts: Layouts) -> TrainingEstimate:
    return estimate_training(job, machine, layouts)


def _prediction(run: Run, machine: Machine, estimate: TrainingEstimate, span: range) -> Prediction:
    chosen = next((row for row in span if estimate.fits[row]), span[-1])
    time_s = float(estimate.time_s[chosen])
    common = {"memory_bytes": float(estimate.memory_bytes[chosen]), "stack": machine.stack.name,
              "recompute": run.recompute_choices[chosen - span[0]], "evidence_class": machine.profile.evidence_class,
              "stack_known": machine.stack.fitted_rows > 0, "extra_spread": _extra_spread(machine)}
    if not np.isfinite(time_s) or time_s <= 0:
        return Prediction(skipped="the layout has no step time", **common)  # type: ignore[arg-type]
    return Prediction(time_s=time_s, **common)  # type: ignore[arg-type]


def _extra_spread(machine: Machine) -> float:
    """What a stack that was not fitted on the chip's family adds, as a fraction of the step time."""
    stack = machine.stack
    if stack.fitted_rows > 0:
        return 0.0
    return float(np.hypot(stack.spreads.get("gemm_rate_ratio", 0.1) / max(stack["gemm_rate_ratio"], 0.1),
                          machine.chip.status_spread / 2))


def layouts_of(runs: Sequence[Run]) -> tuple[list[range], Layouts]:
    """One layout for each allowed recompute of each run, and which of them belong to which run."""
    columns: dict[str, list[int | bool]] = {column.name: [] for column in fields(Layouts)}
    spans = []
    for run in runs:
        begin = len(columns["tp"])
        for choice in run.recompute_choices:
            for name, values in columns.items():
                values.append(_code(name, (run.layout | {"recompute": choice}).get(name, 1)))
        spans.append(range(begin, len(columns["tp"])))
    return spans, Layouts(**{name: np.array(values, dtype=bool if name in _BOOLEANS else np.int64)
                             for name, values in columns.items()})


def _code(column: str, value: int | str | bool) -> int | bool:
    return _CODES[column].index(str(value)) if column in _CODES else value  # type: ignore[return-value]


def machine_of(run: Run, choose: StackOf | None = None) -> Machine:
    """The machine of a run; SerriedError when nobody knows its chip or fabric."""
    chip = _chip(run.chip)
    return Machine(chip=chip, profile=_profile(run.chip), fabric=_fabric(run.fabric or chip.fabric),
                   stack=(choose or _shipped_stack)(run, chip), chip_count=run.chip_count // run.slices)


def _shipped_stack(run: Run, chip: Chip) -> Stack:
    return _stack(chip.family, run.framework)


@functools.lru_cache(maxsize=256)
def _stack(chip_family: str, framework: str) -> Stack:
    return stack_for(chip_family, "training", framework)


@functools.lru_cache(maxsize=256)
def _fabric(name: str) -> Fabric:
    return read_fabric(name)


@functools.lru_cache(maxsize=256)
def _profile(printed: str) -> KernelProfile:
    return profile_for(_chip(printed))


@functools.lru_cache(maxsize=256)
def _chip(printed: str) -> Chip:
    """By name or alias; else by the longest catalogue name that the printed one contains ("8x H100 SXM nodes")."""
    try:
        return read_chip(printed)
    except SerriedError as error:
        words = fold(re.sub(r"(?i)nvidia|amd|google|aws|intel|huawei|gpu|instinct", " ", printed))
        within = [name for name in names_of("chips") if fold(name) in words]
        if not within:
            raise error
        return read_chip(max(within, key=lambda name: len(fold(name))))


def measured_times_s(runs: Sequence[Run]) -> Floats:
    """The measured quantity of every run as a time."""
    return np.array([run.metric.time_s for run in runs])


def stack_names_of(runs: Sequence[Run]) -> Mapping[str, str]:
    """Printed framework to the stack that predicts it ("population" where none is known)."""
    return {run.framework: find_stack_name(run.framework, "training") or "population" for run in runs}
