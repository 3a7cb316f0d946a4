"""Training runs: predicted beside measured.

Rows become runs (`runs.py`), runs that share a job and a machine are estimated together, and what is compared is the
step time, shown in the unit of the file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from serried.catalogue import names_of
from serried.catalogue.entry import fold
from serried.compiler import ENGINE_FORMAT, KernelProfile, profile_for
from serried.errors import BadInput, SerriedError
from serried.evidence.assumptions import Assumptions, read_assumptions
from serried.evidence.runs import COLUMNS, Run, Skipped, run_of_row
from serried.evidence.spec import CaseResults
from serried.fabric import Fabric, collective_time_s, read_fabric
from serried.planner.legality import refuse_illegal
from serried.planner.memory import estimate_memory
from serried.planner.spec import FORMATS, RECOMPUTE, SCHEDULES, Layouts, Machine, StepTable
from serried.planner.step import assemble, concatenate_tables, kernel_table
from serried.silicon import Chip, read_chip
from serried.software import STACK_PARAMETERS, Stack, stack_for
from serried.workload import Floats, Training, model_flop, parameters

if TYPE_CHECKING:
    import polars as pl

__all__ = ["COLUMNS", "Prediction", "Prepared", "StackOf", "evaluate", "evaluate_with_memory", "layouts_of",
           "machine_of", "measured_times_s", "predict_runs", "prepare_runs", "read_runs"]

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
    """Peak memory in GB. Nothing is fitted on memory but the width of its interval, on calibrate rows."""
    return CaseResults(
        area="memory", ids=[run.id for run, _ in found], units=["GB"] * len(found),
        split=[run.split for run, _ in found],
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
        fold=[f"{row.source}/{model}/{row.job.sequence_tokens if isinstance(row, Run) else ''}"
              for row, model in zip(rows, models, strict=True)])


def predict_runs(runs: Sequence[Run], *, stack_of: StackOf | None = None) -> list[Prediction]:
    """Predictions in the order of `runs`."""
    prepared = prepare_runs(runs, stack_of=stack_of)
    time_s = prepared.times_s([machine.stack for machine in prepared.machines])
    predictions = [Prediction(skipped=prepared.refused.get(position)) for position in range(len(runs))]
    for row, position in enumerate(prepared.positions):
        machine = prepared.machines[row]
        usable = bool(np.isfinite(time_s[row]) and time_s[row] > 0)
        predictions[position] = Prediction(
            time_s=float(time_s[row]), memory_bytes=float(prepared.memory_bytes[row]), stack=machine.stack.name,
            recompute=prepared.recompute[row], evidence_class=machine.profile.evidence_class,
            stack_known=machine.stack.fitted_rows > 0, extra_spread=_extra_spread(machine),
            skipped=None if usable else "the layout has no step time")
    return predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Runs as one table of what kernels and wires take, ready for any stack.

    positions: of the rows among the runs that were asked. refused: why the others have none. machines, recompute,
    memory_bytes: per row. quantity: what was measured, per row.
    """

    positions: Sequence[int]
    machines: Sequence[Machine]
    recompute: Sequence[str]
    memory_bytes: Floats
    quantity: NDArray[np.str_]
    table: StepTable | None
    refused: Mapping[int, str]

    def times_s(self, stacks: Sequence[Stack]) -> Floats:
        """The measured quantity of every row under a stack each."""
        return self.times_under({name: np.array([stack[name] for stack in stacks]) for name in STACK_PARAMETERS})

    def times_under(self, parameters: Mapping[str, Floats | float]) -> Floats:
        """Likewise, under parameters that are numbers or columns over the rows."""
        if self.table is None:
            return np.empty(0)
        step = assemble(self.table, parameters)
        return np.select([self.quantity == "layer_forward", self.quantity == "layer_backward"],
                         [step.stage_forward_s_KL[0], step.stage_backward_s_KL[0]], step.time_s)

    def take(self, rows: Sequence[int]) -> Prepared:
        """Some of the rows."""
        assert self.table is not None, "there is something to take from"
        index = np.array(rows, dtype=np.intp)
        table = StepTable(**{column.name: getattr(self.table, column.name)[..., index] for column in fields(StepTable)})
        return Prepared(positions=[self.positions[row] for row in rows], machines=[self.machines[row] for row in rows],
                        recompute=[self.recompute[row] for row in rows], memory_bytes=self.memory_bytes[index],
                        quantity=self.quantity[index], table=table, refused={})


def prepare_runs(runs: Sequence[Run], *, stack_of: StackOf | None = None) -> Prepared:
    """Tables of all runs; those that share a job and a machine are asked together."""
    refused: dict[int, str] = {}
    groups: dict[tuple[object, ...], list[int]] = {}
    machines: dict[int, Machine] = {}
    for position, run in enumerate(runs):
        try:
            machine = machines[position] = machine_of(run, stack_of)
            refuse_above_peak(run, machine)
        except SerriedError as error:
            refused[position] = str(error)
            continue
        key = (run.job, machine.chip.name, machine.fabric.name, machine.stack.name, run.chip_count, run.slices,
               run.metric.quantity, tuple(sorted(run.stack_facts.items())))
        groups.setdefault(key, []).append(position)
    found: list[tuple[list[int], Machine, Sequence[str], Floats, StepTable]] = []
    for positions in groups.values():
        try:
            found.append(_prepare_group(positions, [runs[position] for position in positions], machines[positions[0]]))
        except SerriedError as error:
            if len(positions) == 1:
                refused[positions[0]] = str(error)
            else:
                found += _prepare_apart(positions, runs, machines[positions[0]], refused)
    order = [position for positions, *_ in found for position in positions]
    return Prepared(
        positions=order, machines=[machines[position] for position in order], refused=refused,
        recompute=[choice for _, _, choices, _, _ in found for choice in choices],
        memory_bytes=np.concatenate([memory for _, _, _, memory, _ in found] or [np.empty(0)]),
        quantity=np.array([runs[position].metric.quantity for position in order], dtype=str),
        table=concatenate_tables([table for *_, table in found]) if found else None)


def refuse_above_peak(run: Run, machine: Machine) -> None:
    """BadInput, with the arithmetic, when the measured step would run the model's FLOPs faster than the chips can."""
    if run.metric.quantity != "step":
        return
    peak = machine.chip.matrix_peak_flop_per_s(ENGINE_FORMAT[str(run.layout["number_format"])])
    flop, time_s = model_flop(run.job), run.metric.time_s
    rate = flop / (time_s * run.chip_count)
    if rate > peak:
        raise BadInput(
            field="metric_value", value=run.metric.value,
            expected=f"at most the {run.layout['number_format']} peak of {run.chip_count} x {peak / 1e12:.4g} TFLOP/s",
            remedy=f"{flop / 1e15:.4g} PFLOP in {time_s:.4g} s are {rate / 1e12:.4g} TFLOP/s a chip; check the row.")


def _prepare_apart(positions: Sequence[int], runs: Sequence[Run], machine: Machine, refused: dict[int, str],
                   ) -> list[tuple[list[int], Machine, Sequence[str], Floats, StepTable]]:
    """One by one, so that a run that cannot exist does not take the others with it."""
    found = []
    for position in positions:
        try:
            found.append(_prepare_group([position], [runs[position]], machine))
        except SerriedError as error:
            refused[position] = str(error)
    return found


def _prepare_group(positions: list[int], runs: Sequence[Run], machine: Machine,
                   ) -> tuple[list[int], Machine, Sequence[str], Floats, StepTable]:
    """Every allowed recompute of a run is a layout; the least that fits is taken, the most where none does."""
    job = _job_of_slice(runs[0])
    spans, layouts = layouts_of(runs)
    refuse_illegal(_with_equal_chunks(layouts), job, machine)
    memory = estimate_memory(job, machine, layouts)
    chosen = [next((row for row in span if memory.fits[row]), span[-1]) for span in spans]
    table = kernel_table(job, machine, layouts.take(np.array(chosen, dtype=np.intp)))
    choices = [run.recompute_choices[row - span[0]] for run, row, span in zip(runs, chosen, spans, strict=True)]
    if runs[0].metric.quantity != "step":
        count = table.count_KRL.copy()
        count[:, -2:] = 0.0     # a layer alone: neither embedding nor head
        table = replace(table, count_KRL=count)
    return positions, machine, choices, memory.total_bytes[chosen], _with_slices(table, runs[0], machine)


def _with_equal_chunks(layouts: Layouts) -> Layouts:
    """For the law alone: a published run whose blocks do not divide into its chunks had a stage map of its own."""
    return replace(layouts, virtual_stages=np.ones_like(layouts.virtual_stages),
                   schedule=np.where(layouts.schedule == SCHEDULES.index("interleaved"), 0, layouts.schedule))


def _job_of_slice(run: Run) -> Training:
    """The job of one pod of a run whose pods each hold a whole copy."""
    return replace(run.job, global_batch_sequences=run.job.global_batch_sequences // run.slices)


def _with_slices(table: StepTable, run: Run, machine: Machine) -> StepTable:
    """Pods that hold a copy each add up their gradients over the wires between pods, once a step."""
    if run.slices == 1:
        return table
    gradient_bytes = 4.0 * parameters(run.model).total / machine.chip_count
    between_s = collective_time_s("all_reduce", np.array([gradient_bytes]), np.array([float(run.slices)]),
                                  np.array([float(machine.chip_count)]), fabric=machine.fabric)
    return replace(table, once_reduce_s_L=table.once_reduce_s_L + between_s,
                   node_doublings_L=table.node_doublings_L + np.log2(run.slices))


def _extra_spread(machine: Machine) -> float:
    """What a stack that was not fitted on the chip's family adds, as a fraction of the step time."""
    stack = machine.stack
    if stack.fitted_rows > 0:
        return 0.0
    if stack.name == "population":      # its residuals are measured; the chip's own figures may be unsure
        return machine.chip.status_spread / 2
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
                values.append(_code(name, {**run.layout, "recompute": choice}.get(name, 1)))
        spans.append(range(begin, len(columns["tp"])))
    return spans, Layouts(**{name: np.array(values, dtype=bool if name in _BOOLEANS else np.int64)
                             for name, values in columns.items()})


def _code(column: str, value: int | str | bool) -> int | bool:
    return _CODES[column].index(str(value)) if column in _CODES else value  # type: ignore[return-value]


def machine_of(run: Run, choose: StackOf | None = None) -> Machine:
    """The machine of a run; SerriedError when nobody knows its chip or fabric."""
    chip = _chip(run.chip)
    stack = _with_facts((choose or _shipped_stack)(run, chip), run)
    return Machine(chip=chip, profile=_profile(run.chip), fabric=_fabric(run.fabric or chip.fabric), stack=stack,
                   chip_count=run.chip_count // run.slices)


def _with_facts(stack: Stack, run: Run) -> Stack:
    return replace(stack, facts={**stack.facts, **run.stack_facts}) if run.stack_facts else stack


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
        within = [name for name in names_of("chips") if fold(name) in fold(printed)]
        if not within:
            raise error
        return read_chip(max(within, key=lambda name: len(fold(name))))


def measured_times_s(runs: Sequence[Run]) -> Floats:
    """The measured quantity of every run as a time."""
    return np.array([run.metric.time_s for run in runs])
