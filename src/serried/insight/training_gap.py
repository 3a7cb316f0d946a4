"""The gap between two fleets on a training job.

Axes: L = row of the tables, C = coalition, X = draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serried.compiler import ENGINE_FORMAT
from serried.economics import DEFAULT_TARIFF, Tariff
from serried.errors import NoAnswer
from serried.fabric import Pool
from serried.insight.game import End, distinct_machines, known_format, standing_layouts
from serried.insight.spec import Waterfall
from serried.insight.waterfall import explain
from serried.planner import (
    FORMATS,
    RECOMPUTE,
    Layouts,
    Machine,
    StepTable,
    assemble,
    broken_rules,
    concatenate_tables,
    estimate_memory,
    estimate_training,
    kernel_table,
    layout_space,
    machine_of,
    search_training,
)
from serried.software import Stack
from serried.workload.spec import Floats, Training

__all__ = ["TRAINING_FORMATS", "TrainingContest", "TrainingGame", "default_layout", "gap_training", "with_format"]

#: Formats that large models are commonly trained in, widest first.
TRAINING_FORMATS = ("bf16", "fp8")
#: Causes during which no engine of the chip works.
_IDLE = ("tensor_exposed", "context_exposed", "expert_exposed", "pipeline_bubble", "pipeline_exposed", "data_exposed",
         "host", "jitter")


class TrainingGame:
    """Simulates coalitions between two ends of a training job; kernels and wires are timed once.

    A pipeline schedule goes with the degrees of its layout; what is overlapped goes with the schedule layer.
    """

    def __init__(self, job: Training, ends: tuple[End[Layouts], End[Layouts]], chip_count: int) -> None:
        self.job, self.ends, self.chip_count = job, ends, chip_count
        self.layouts = standing_layouts(ends, self._stands)
        tables, counts = [], []
        machines, self.machine_of = distinct_machines(ends)
        for silicon, machine in machines:
            rows = _joined([with_format(self.layouts[silicon][layout], ends[precision].number_format, machine)
                            for precision in (0, 1) for layout in (0, 1)])
            tables.append(kernel_table(job, machine, rows))
            counts += [machine.chip_count] * len(rows)
        self.table, self.counts = concatenate_tables(tables), np.array(counts, dtype=np.float64)

    def __call__(self, on_C7: NDArray[np.bool_], stack: Mapping[str, Floats]) -> Floats:
        """Seconds of a step with as many chips as the fleet has, (X, C)."""
        silicon, kernels, precision, layout, collectives, schedule, _ = on_C7.astype(int).T
        row_C = 4 * self.machine_of[silicon, kernels, collectives] + 2 * precision + layout
        shape = next(iter(stack.values())).shape
        row_L = np.broadcast_to(row_C, shape).ravel()
        overlapping: dict[str, Any] = {f"{column}_L": self._overlaps(column, np.broadcast_to(schedule, shape).ravel())
                                       for column in ("overlap_data", "overlap_tensor")}
        step = assemble(replace(taken(self.table, row_L), **overlapping),
                        {name: values.ravel() for name, values in stack.items()})
        return np.asarray((step.time_s * self.counts[row_L] / self.chip_count).reshape(shape))

    def _overlaps(self, column: str, end_L: NDArray[np.intp]) -> Floats:
        own, other = (float(getattr(end.layout, column)[0]) for end in self.ends)
        return np.where(end_L == 1, other, own)

    def _stands(self, silicon: int, layout: Layouts) -> Layouts | None:
        machine = self.ends[silicon].machine
        moved = with_format(layout, self.ends[silicon].number_format, machine)
        if any(broken.any() for broken in broken_rules(moved, self.job, machine).values()):
            return None
        return layout if estimate_memory(self.job, machine, moved).fits.all() else None


def taken(table: StepTable, rows: NDArray[np.intp]) -> StepTable:
    """The layouts at `rows` of a table, in that order."""
    return StepTable(**{column.name: getattr(table, column.name)[..., rows] for column in fields(StepTable)})


def with_format(layouts: Layouts, number_format: str, machine: Machine) -> Layouts:
    """The layouts in another format; a chip without an engine for it computes in its 16-bit format."""
    chip = machine.chip
    held = number_format if ENGINE_FORMAT[number_format] in chip.number_formats else \
        "bf16" if "bf16" in chip.number_formats else "fp16"
    return replace(layouts, number_format=np.full(len(layouts), FORMATS.index(held)))


class TrainingContest:
    """A training job as the waterfall asks about it; the unit of work is one step at the fleet's chip count."""

    kind = "training"

    def __init__(self, job: Training, chip_count: int) -> None:
        self.job, self.chip_count = job, chip_count
        self.tokens = float(job.sequence_tokens * job.global_batch_sequences)
        self.unit_of_work = f"seconds of one step of {self.tokens:,.0f} tokens on {chip_count:,} chips"
        self.job_words = (f"{job.model.name}, {job.sequence_tokens} tokens x {job.global_batch_sequences} sequences "
                          "a step")

    def best(self, machine: Machine, formats: Sequence[str]) -> End[Layouts]:
        """The best layout of the usual space, and of the whole space when nothing in that one fits.

        Raises NoAnswer when no layout fits.
        """
        usual = self._usual(machine)
        try:
            found = search_training(self.job, machine, top=1, number_format=list(formats), **usual)
        except NoAnswer:
            found = search_training(self.job, machine, top=1, number_format=list(formats))
        layout = found.layouts
        return End(machine=machine, number_format=FORMATS[int(layout.number_format[0])], layout=layout)

    def game(self, ends: tuple[End[Layouts], End[Layouts]]
             ) -> Callable[[NDArray[np.bool_], Mapping[str, Floats]], Floats]:
        """Simulator of coalitions between two ends."""
        return TrainingGame(self.job, ends, self.chip_count)

    def time_s(self, end: End[Layouts]) -> float:
        """Seconds of a step with as many chips as the fleet has."""
        rows = with_format(end.layout, end.number_format, end.machine)
        step = assemble(kernel_table(self.job, end.machine, rows), end.machine.stack)
        return float(step.time_s[0]) * end.machine.chip_count / self.chip_count

    def plain(self, machine: Machine) -> End[Layouts]:
        """The layout that people start with, in 16 bits, with nothing overlapped."""
        return End(machine=machine, number_format="bf16", layout=default_layout(self.job, machine))

    def times_s(self, end: End[Layouts], stack: Mapping[str, Floats]) -> Floats:
        """Seconds of a step with as many chips as the fleet has under stack parameters (G,).

        Traffic that is to be hidden wholly has to run beside compute at all, whatever the layout says.
        """
        rows = with_format(end.layout, end.number_format, end.machine)
        count = len(next(iter(stack.values())))
        table = taken(kernel_table(self.job, end.machine, rows), np.zeros(count, dtype=np.intp))
        table = replace(table, overlap_data_L=np.where(stack["data_overlap"] >= 1.0, 1.0, table.overlap_data_L),
                        overlap_tensor_L=np.where(stack["tensor_overlap"] >= 1.0, 1.0, table.overlap_tensor_L),
                        overlap_expert_L=np.where(stack["tensor_overlap"] >= 1.0, 1.0, table.overlap_expert_L))
        return np.asarray(assemble(table, stack).time_s) * (end.machine.chip_count / self.chip_count)

    def formats(self, machine: Machine) -> tuple[str, ...]:
        """Formats of TRAINING_FORMATS that the chip's engines have."""
        return tuple(name for name in TRAINING_FORMATS if ENGINE_FORMAT[name] in machine.chip.number_formats)

    def tokens_per_s_per_chip(self, time_s: float) -> float:
        """Trained tokens per second of one chip."""
        return self.tokens / (time_s * self.chip_count)

    def describe(self, end: End[Layouts]) -> tuple[Mapping[str, int | bool | str], Mapping[str, float],
                                                   Mapping[str, float], float]:
        """The layout, seconds by cause at the fleet's chip count, figures of the step, and how busy its chips are."""
        rows = with_format(end.layout, end.number_format, end.machine)
        found = estimate_training(self.job, end.machine, rows)
        scale = end.machine.chip_count / self.chip_count
        causes = {name: float(column[0]) * scale for name, column in found.time_by_cause_s.items()}
        figures = {"step_time_s": float(found.time_s[0]), "memory_bytes": float(found.memory_bytes[0]),
                   "model_flop_per_s_per_chip": found.model_flop / float(found.time_s[0]) / end.machine.chip_count}
        idle = sum(causes.get(name, 0.0) for name in _IDLE)
        return rows.row(0), causes, figures, 1.0 - idle / max(sum(causes.values()), 1e-30)

    def _usual(self, machine: Machine) -> dict[str, Any]:
        """Choices that large runs are made of: powers of two, sharded optimizer states, overlap where there is any.

        A full search over every column belongs to `serried plan`; this one answers within a second.
        """
        node, chips = max(machine.fabric.node_size, 1), machine.chip_count
        powers = [2**power for power in range(12) if chips % 2**power == 0]
        batch = self.job.global_batch_sequences
        return {"tp": [degree for degree in powers if degree <= min(node, 16)] or [1],
                "cp": [1] if self.job.sequence_tokens <= 16384 else [degree for degree in powers if degree <= 16],
                "micro_batch": [degree for degree in (1, 2, 4, 8) if batch % degree == 0],
                "virtual_stages": [1, 2, 4, 5, 8, 10], "schedule": ["1f1b", "interleaved"],
                "sequence_parallel": [False, True], "recompute": ["none", "selective", "full"],
                "sharding": [1, 3], "overlap_data": [False, True],
                "overlap_tensor": sorted({False, bool(machine.stack.facts.get("overlap_tensor", False))})}


def default_layout(job: Training, machine: Machine, *, number_format: str = "bf16") -> Layouts:
    """What people start with: one micro-batch sequence, sharded optimizer states, no interleaving, and the smallest
    tensor degree within a node, then the fewest stages, then the least recompute that fit. NoAnswer when none does."""
    rows = layout_space(job, machine, cp=[1], micro_batch=[1], virtual_stages=[1], schedule=["1f1b"], sharding=[1],
                        recompute=["none", "selective", "full"], sequence_parallel=[False, True],
                        overlap_data=[False], overlap_tensor=[False], number_format=[number_format])
    held = np.flatnonzero(estimate_memory(job, machine, rows).fits & (rows.tp <= max(machine.fabric.node_size, 1))) \
        if len(rows) else np.empty(0, dtype=np.intp)
    if not len(held):
        raise NoAnswer(f"No plain layout of {job.model.name} fits on {machine.chip_count} {machine.chip.name}.",
                       binding="memory", remedy="Ask for the best layout instead.")
    effort = np.array([RECOMPUTE.index(name) for name in RECOMPUTE])[rows.recompute[held]]
    order = np.lexsort((rows.sequence_parallel[held], effort, rows.tp[held], rows.pp[held] * rows.tp[held]))
    return rows.take(held[order[:1]])


def gap_training(job: Training, fleet_pool: Pool, rival_pool: Pool, *, stack: Stack | None = None,
                 rival_stack: Stack | None = None, number_format: str = "bf16", rival_number_format: str = "bf16",
                 layout: Layouts | str = "best", rival_layout: Layouts | str = "best", draws: int = 64, seed: int = 0,
                 tariff: Tariff = DEFAULT_TARIFF, library: str | None = None,
                 rival_library: str | None = None) -> Waterfall:
    """Why the fleet trains the job slower (or faster) per chip than the rival, layer by layer.

    layout: "best" by search, "default" (what people start with), or a layout of one row. library, rival_library:
    kernel profiles to use instead of the chips' own. Raises NoAnswer when a side
    cannot hold the job, MissingFigure when a chip lacks a figure that the kernels need.
    """
    contest = TrainingContest(job, fleet_pool.chip_count)
    ends = [_end(contest, machine_of(pool, stack=own, kind="training", library=kernels), chosen, wanted)
            for pool, own, kernels, chosen, wanted in (
                (fleet_pool, stack, library, number_format, layout),
                (rival_pool, rival_stack, rival_library, rival_number_format, rival_layout))]
    return explain(contest, ends[0], ends[1], draws=draws, seed=seed, tariff=tariff)


def _end(contest: TrainingContest, machine: Machine, number_format: str, layout: Layouts | str) -> End[Layouts]:
    machine.chip.matrix_peak_flop_per_s(ENGINE_FORMAT[known_format(number_format)])
    if layout == "best":
        return contest.best(machine, (number_format,))
    chosen = default_layout(contest.job, machine, number_format=number_format) if isinstance(layout, str) else layout
    return End(machine=machine, number_format=number_format, layout=chosen)


def _joined(parts: Sequence[Layouts]) -> Layouts:
    return Layouts(**{column.name: np.concatenate([getattr(part, column.name) for part in parts])
                      for column in fields(Layouts)})
