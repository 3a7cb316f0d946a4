"""Step time by cause, in two passes: what kernels and wires take (`kernel_table`), then what a stack makes of it
(`assemble`), which is pure column arithmetic and is called thousands of times when a stack is fitted.

Axes: L = layout, R = piece, P = forward, backward, recompute; C = WORK, K = STAGES, S = shape point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from serried.economics import chip_usd_per_s, energy_j
from serried.fabric import stolen_shares
from serried.planner.kernels import KERNEL_KEYS, KernelBook, KernelTimes, kernel_times
from serried.planner.legality import refuse_illegal
from serried.planner.memory import MemoryEstimate, estimate_memory
from serried.planner.pieces import Points, micro_batch_count, stage_counts
from serried.planner.schedule import pipeline_s_L
from serried.planner.spec import (
    RECOMPUTE,
    TIME_CAUSES,
    WORK,
    Layouts,
    Machine,
    StepTable,
    StepTime,
    TrainingEstimate,
)
from serried.planner.wires import send_s_L, wire_times
from serried.software import Stack
from serried.workload import model_flop
from serried.workload.spec import Floats, Training

__all__ = ["assemble", "concatenate_tables", "estimate_of", "estimate_training", "kernel_table"]

#: A stack, or the values of its parameters by name: numbers, or arrays over L.
StackValues = Stack | Mapping[str, float | Floats]
#: Causes during which the chip computes.
_BUSY = ("gemm", "attention", "memory_bound", "recompute", "optimizer")
_WORK = {name: position for position, name in enumerate(WORK)}


def estimate_training(job: Training, machine: Machine, layouts: Layouts) -> TrainingEstimate:
    """Time, memory, energy and money of every layout, whether it fits or not. BadInput when one cannot exist."""
    refuse_illegal(layouts, job, machine)
    memory = estimate_memory(job, machine, layouts)
    step = assemble(kernel_table(job, machine, layouts), machine.stack)
    return estimate_of(job, machine, memory, step)


def estimate_of(job: Training, machine: Machine, memory: MemoryEstimate, step: StepTime) -> TrainingEstimate:
    """Memory and time of the same layouts as one estimate, with energy and money per step."""
    busy_s = sum(step.time_by_cause_s[cause] for cause in _BUSY)
    busy = busy_s / np.maximum(step.time_s, 1e-300)
    energy = energy_j(step.time_s, busy, chip=machine.chip, chip_count=machine.chip_count)
    price = chip_usd_per_s(busy, chip=machine.chip) * step.time_s * machine.chip_count
    return TrainingEstimate(
        time_s=step.time_s, time_by_cause_s=step.time_by_cause_s, memory_bytes=memory.total_bytes,
        memory_by_cause_bytes=memory.by_cause_bytes, fits=memory.fits, model_flop=model_flop(job),
        tokens=job.global_batch_sequences * job.sequence_tokens, energy_j=energy, price_usd=np.asarray(price),
        step=step)


# --- first pass: before the stack ---------------------------------------------------------------------------------

def kernel_table(job: Training, machine: Machine, layouts: Layouts, *, book: KernelBook | None = None) -> StepTable:
    """Everything of a step that does not depend on the parameters of the machine's stack (its facts are read).

    book: remembers kernel times of the same job and machine between calls.
    """
    shapes = Points.of(layouts, *KERNEL_KEYS)
    points = layouts.take(shapes.rows)
    timed = kernel_times(job, machine, points) if book is None else book.times(points)
    phases = np.stack([timed.phases(code) for code in range(len(RECOMPUTE))], axis=-1)
    count_KRL, total_R = _stage_counts(job, layouts)
    wires = wire_times(job, machine, layouts)
    facts = machine.stack.facts
    nodes = machine.chip_count / max(machine.fabric.node_size, 1)
    ones = np.ones(len(layouts))
    micro_batches = micro_batch_count(layouts, machine.chip_count, job.global_batch_sequences)
    return StepTable(
        work_RPCL=phases[..., shapes.where, layouts.recompute],
        behind_RCL=_behind_RCL(timed, job, machine, shapes.where),
        weight_gemm_s_RL=timed.weight_gemm_s_RS[:, shapes.where],
        gather_s_RL=wires.gather_s_RL, backward_gather_s_RL=wires.backward_gather_s_RL, reduce_s_RL=wires.reduce_s_RL,
        once_reduce_s_L=wires.once_reduce_s_L, once_gather_s_L=wires.once_gather_s_L,
        optimizer_s_L=wires.optimizer_s_L, send_s_L=send_s_L(job, machine, layouts), count_KRL=count_KRL,
        total_RL=np.repeat(total_R[:, None], len(layouts), axis=1), pp_L=layouts.pp.astype(np.float64),
        virtual_stages_L=layouts.virtual_stages.astype(np.float64), micro_batches_L=micro_batches.astype(np.float64),
        schedule_L=layouts.schedule, overlap_data_L=layouts.overlap_data.astype(np.float64),
        overlap_tensor_L=layouts.overlap_tensor.astype(np.float64),
        overlap_expert_L=_overlap_expert_L(machine, layouts),
        overlap_pipeline_L=ones * bool(facts.get("overlap_pipeline", False)) * (layouts.virtual_stages > 1),
        stolen_L=ones * stolen_shares(machine.fabric)[0],
        node_doublings_L=ones * np.log2(max(nodes, 1.0)))


def _behind_RCL(timed: KernelTimes, job: Training, machine: Machine, where: NDArray[np.intp]) -> Floats:
    if not machine.stack.facts.get("synced_dispatch", False):
        return np.zeros((timed.work_RGCS.shape[0], len(WORK), len(where)))
    return timed.behind_sync(job.model)[..., where]


def _overlap_expert_L(machine: Machine, layouts: Layouts) -> Floats:
    """Whether the recipe runs expert traffic beside compute: see STACK_FACTS."""
    when = machine.stack.facts.get("overlap_expert", "with_tensor")
    if when == "across_nodes":
        return (layouts.ep * layouts.expert_tp > machine.fabric.node_size).astype(np.float64)
    return layouts.overlap_tensor.astype(np.float64) * (when == "with_tensor")


def _stage_counts(job: Training, layouts: Layouts) -> tuple[Floats, Floats]:
    points = Points.of(layouts, "pp", "virtual_stages")
    count, total = stage_counts(job.model, layouts.pp[points.rows], layouts.virtual_stages[points.rows])
    return count[:, :, points.where], total


def concatenate_tables(tables: Sequence[StepTable]) -> StepTable:
    """Layouts of different jobs and machines in one table, for one call of `assemble`; missing pieces are 0."""
    pieces = max(table.total_RL.shape[0] for table in tables)
    joined = {}
    for column in fields(StepTable):
        parts = [getattr(table, column.name) for table in tables]
        first = column.name.endswith(("_RL", "_RPCL", "_RCL"))
        axis = {"count_KRL": 1}.get(column.name, 0 if first else None)
        if axis is not None:
            parts = [np.concatenate([part, np.zeros((*part.shape[:axis], pieces - part.shape[axis],
                                                     *part.shape[axis + 1:]))], axis=axis) for part in parts]
        joined[column.name] = np.concatenate(parts, axis=-1)
    return StepTable(**joined)


# --- second pass: through the stack ----------------------------------------------------------------------------------

@dataclass(slots=True)
class _Seen:
    """Seconds of one piece and one micro-batch through a stack, over L."""

    forward_s: Floats
    backward_s: Floats
    weight_s: Floats
    causes: dict[str, Floats]


def assemble(table: StepTable, stack: StackValues) -> StepTime:
    """Step time per layout under a stack's parameters.

    The critical stage works on every micro-batch; on top come filling and draining the pipeline, what its transfers
    leave exposed, the data axis behind what is there to hide it, the optimizer, and stragglers.
    """
    pieces = [_piece(table, piece, stack) for piece in range(len(table.total_RL))]
    forward_KL, backward_KL, weight_KL = (
        sum(table.count_KRL[:, piece] * getattr(seen, name) for piece, seen in enumerate(pieces))
        for name in ("forward_s", "backward_s", "weight_s"))
    all_s, all_weight_s = (sum(table.total_RL[piece] * column for piece, column in enumerate(columns)) for columns in (
        [seen.forward_s + seen.backward_s for seen in pieces], [seen.weight_s for seen in pieces]))
    critical, idle_s = pipeline_s_L(forward_KL, backward_KL, weight_KL, all_s, all_weight_s, pp_L=table.pp_L,
                                    micro_batches_L=table.micro_batches_L, schedule=table.schedule_L,
                                    virtual_stages=table.virtual_stages_L)
    here = np.arange(len(table))
    count_RL = table.count_KRL[critical, :, here].T
    micro_batches = table.micro_batches_L
    causes = {cause: np.zeros(len(table)) for cause in TIME_CAUSES}
    for piece, seen in enumerate(pieces):
        times = count_RL[piece] * micro_batches
        for cause, column in seen.causes.items():
            causes[cause] += times * column
    causes["pipeline_bubble"] = idle_s
    causes["pipeline_exposed"] = _transfers_s(table, stack)
    causes["data_exposed"] = causes["data_exposed"] + _once_s(table, stack, forward_KL[0], backward_KL[0])
    causes["optimizer"] = table.optimizer_s_L
    working_s = sum(causes[cause] for cause in TIME_CAUSES)
    causes["jitter"] = working_s * stack["jitter_per_doubling"] * table.node_doublings_L
    return StepTime(time_s=np.asarray(working_s + causes["jitter"]), time_by_cause_s=causes,
                    stage_forward_s_KL=np.asarray(forward_KL), stage_backward_s_KL=np.asarray(backward_KL),
                    stage_weight_s_KL=np.asarray(weight_KL), micro_batches_L=micro_batches)


def _piece(table: StepTable, piece: int, stack: StackValues) -> _Seen:
    """One piece through the stack: kernels slower or faster, traffic half hidden, the host in the way."""
    work_PCL = table.work_RPCL[piece]
    unfused = stack["unfused_fraction"]
    gemm = work_PCL[:, _WORK["gemm"]] / stack["gemm_rate_ratio"]
    attention = work_PCL[:, _WORK["attention"]] / stack["attention_rate_ratio"]
    memory = work_PCL[:, _WORK["memory"]] + unfused * work_PCL[:, _WORK["fusible"]]
    compute = gemm + attention + memory
    exposed = _exposed_PL(work_PCL, gemm + attention, table, stack)
    device = compute + exposed["tensor_exposed"] + exposed["context_exposed"] + exposed["expert_exposed"]
    launches = work_PCL[:, _WORK["kernels"]] + np.minimum(unfused, 1.0) * work_PCL[:, _WORK["fusible_kernels"]]
    host_forward = np.maximum(launches[0] * stack["host_s_per_operator"] - device[0],
                              _late_s(table.behind_RCL[piece], exposed["expert_exposed"][0], stack))
    host_backward = np.maximum((launches[1] + launches[2]) * stack["host_s_per_operator"] - device[1] - device[2], 0.0)
    forward = device[0] + host_forward
    backward = device[1] + device[2] + host_backward
    data_forward = _hidden_data_s(table.gather_s_RL[piece], forward, table, stack)
    backward_traffic = table.backward_gather_s_RL[piece] + table.reduce_s_RL[piece]
    data_backward = _hidden_data_s(backward_traffic, backward, table, stack)
    causes = {"gemm": gemm[0] + gemm[1], "attention": attention[0] + attention[1],
              "memory_bound": memory[0] + memory[1], "recompute": compute[2], "host": host_forward + host_backward,
              "data_exposed": data_forward + data_backward,
              **{cause: column.sum(axis=0) for cause, column in exposed.items()}}
    return _Seen(forward_s=forward + data_forward, backward_s=backward + data_backward, causes=causes,
                 weight_s=table.weight_gemm_s_RL[piece] / stack["gemm_rate_ratio"])


def _late_s(behind_CL: Floats, expert_exposed_s: Floats, stack: StackValues) -> Floats:
    """How much later than the device the host is through with the experts, if it could only begin with them when the
    device had counted their rows. What follows them cannot make up for it: the host launches that behind them.
    """
    unfused = stack["unfused_fraction"]
    device_s = (behind_CL[_WORK["gemm"]] / stack["gemm_rate_ratio"] + behind_CL[_WORK["memory"]]
                + unfused * behind_CL[_WORK["fusible"]] + expert_exposed_s)
    launches = behind_CL[_WORK["kernels"]] + np.minimum(unfused, 1.0) * behind_CL[_WORK["fusible_kernels"]]
    return np.asarray(np.maximum(launches * stack["host_s_per_operator"] - device_s, 0.0))


def _exposed_PL(work_PCL: Floats, beside_PL: Floats, table: StepTable, stack: StackValues) -> dict[str, Floats]:
    """What the stream waits for tensor, context and expert traffic, by axis, with what hidden traffic steals.

    Traffic that usual software runs beside a kernel hides by the stack's share; the rest only when the layout overlaps.
    Nothing hides longer than the products and the attention beside it take.
    """
    rate = stack["collective_rate_ratio"]
    beside = work_PCL[:, _WORK["tensor_beside"]] / rate
    waiting = work_PCL[:, _WORK["tensor"]] / rate
    context = work_PCL[:, _WORK["context"]] / rate
    expert = work_PCL[:, _WORK["expert"]] / rate
    share = stack["tensor_overlap"]
    wanted = {"tensor_exposed": share * (beside + table.overlap_tensor_L * waiting), "context_exposed": share * context,
              "expert_exposed": share * table.overlap_expert_L * expert}
    asked = wanted["tensor_exposed"] + wanted["context_exposed"] + wanted["expert_exposed"]
    granted = np.minimum(1.0, beside_PL / np.maximum(asked, 1e-30)) * (1.0 - table.stolen_L)
    traffic = {"tensor_exposed": beside + waiting, "context_exposed": context, "expert_exposed": expert}
    return {cause: traffic[cause] - wanted[cause] * granted for cause in wanted}


def _hidden_data_s(traffic_s: Floats, beside_s: Floats, table: StepTable, stack: StackValues) -> Floats:
    """Exposed part of data-axis traffic when `beside_s` of work can hide it; hidden traffic steals from that work."""
    on_wire = traffic_s / stack["collective_rate_ratio"]
    hidden = table.overlap_data_L * np.minimum(stack["data_overlap"] * on_wire, beside_s)
    return np.asarray(on_wire - hidden * (1.0 - table.stolen_L))


def _once_s(table: StepTable, stack: StackValues, forward_s: Floats, backward_s: Floats) -> Floats:
    """Once a step: gradients leave behind the first stage's last backward, parameters return behind its first forward.

    With v chunks the gradients of all but the last chunk are complete while the others still run.
    """
    virtual = table.virtual_stages_L
    chunks_s = backward_s * (1.0 + np.minimum(table.pp_L, table.micro_batches_L) * (virtual - 1.0)) / virtual
    return (_hidden_data_s(table.once_reduce_s_L, chunks_s, table, stack)
            + _hidden_data_s(table.once_gather_s_L, forward_s, table, stack))


def _transfers_s(table: StepTable, stack: StackValues) -> Floats:
    """Point-to-point between stages: every micro-batch waits for one receive each way and chunk unless they overlap;
    filling and draining wait at every boundary."""
    one_s = table.send_s_L / stack["collective_rate_ratio"]
    steady_s = 2.0 * table.micro_batches_L * table.virtual_stages_L * one_s
    kept = 1.0 - table.overlap_pipeline_L * stack["tensor_overlap"]
    return np.asarray(steady_s * kept + 2.0 * (table.pp_L - 1.0) * one_s)
