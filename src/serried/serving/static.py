"""A closed loop of requests in flight on a deployment, from the times of one prefill and one decode step.

Axes: D = deployment; leading axes (draws of a stack) broadcast.

Every running request needs one prefill and output - 1 decode steps of an engine that it shares with the others, so in
one cycle the engine does `batch` prefills and output - 1 steps of the whole batch, and serves `batch` requests
(conservation of engine time; Little's law gives the rest).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serried.planner.spec import Machine
from serried.serving.memory import serving_memory
from serried.serving.spec import SERVING_TIME_CAUSES, Deployments, ServingEstimate
from serried.serving.tables import PhaseTimes, StaticTables, static_tables
from serried.workload.spec import Floats, Serving

__all__ = ["LaunchNote", "Loop", "assemble", "closed_loop", "device_causes_s", "estimate_noted", "estimate_static",
           "step_time_s", "with_kernels"]

StackValues = Mapping[str, float | Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchNote:
    """What is known of the launches of a measured run.

    kernels: device kernels in one prefill or one decode step, 0 = not said. eager: launched one by one. fused: None =
    not said.
    """

    kernels: float = 0.0
    eager: bool = False
    fused: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """The times of a closed loop; fields as in ServingEstimate."""

    output_tokens_per_s: Floats
    ttft_s: Floats
    ttft_burst_s: Floats
    tpot_s: Floats
    decode_step_s: Floats
    prefill_s: Floats
    request_s: Floats
    cycle_s: Floats
    time_by_cause_s: Mapping[str, Floats]


def estimate_static(job: Serving, machine: Machine, deployments: Deployments) -> ServingEstimate:
    """Time to first token, time per token, throughput and memory of every deployment, by cause.

    Raises MissingFigure when the chip lacks a figure that the kernels need.
    """
    return assemble(job, machine, deployments, static_tables(job, machine, deployments), machine.stack.parameters)


def estimate_noted(job: Serving, machine: Machine, deployments: Deployments,
                   note: LaunchNote | None) -> ServingEstimate:
    """As `estimate_static`, where a measurement says how many kernels it launched and whether they were fused.

    The counts replace the model's own: each kernel beyond those that the operators stand for still has its launch
    floor on the device, and its launch on the host when it is eager.
    """
    if note is None:
        return estimate_static(job, machine, deployments)
    stack = dict(machine.stack.parameters)
    if note.fused is not None:
        stack["unfused_fraction"] = stack["unfused_fraction"] if note.fused else 1.0
    tables = with_kernels(static_tables(job, machine, deployments), note.kernels, stack, machine)
    return assemble(job, machine, deployments, tables, stack)


def with_kernels(tables: StaticTables, kernels: float, stack: StackValues, machine: Machine) -> StaticTables:
    """The tables when one prefill, or one decode step, is known to launch so many kernels; unchanged for 0."""
    if not kernels:
        return tables
    floor_s = machine.profile.parameters("memory_bound", "bf16").launch_s
    phases: dict[str, Any] = {}
    for name, phase in (("prefill", tables.prefill), ("packed", tables.packed), ("decode", tables.decode)):
        modelled = phase.kernels + phase.fusible_kernels * stack["unfused_fraction"]
        beyond_s = np.maximum(kernels - modelled, 0.0) * floor_s
        phases[name] = replace(phase, memory_bound_s=phase.memory_bound_s + beyond_s,
                               kernels=phase.kernels + kernels - modelled)
    return replace(tables, **phases)


def step_time_s(phase: PhaseTimes, stack: StackValues, *, captured: NDArray[np.bool_],
                decode: bool) -> dict[str, Floats]:
    """One pass through a stage by cause, s: raw kernel times seen through a stack.

    The host launches kernel by kernel beside the device, or a whole graph at once where `captured`; a pass is never
    shorter than its launches, and what the host does between passes (scheduling, sampling, detokenising) adds. Traffic
    of a prefill can hide behind its own products; that of a decode step cannot, for its products wait for it. A
    cast is fused into what stands before it as other elementwise work is.
    """
    causes = device_causes_s(phase, stack, decode=decode)
    device_s = sum(causes.values(), start=np.zeros(1))
    launches = np.where(captured, 1.0, phase.kernels + phase.fusible_kernels * stack["unfused_fraction"])
    waiting_s = np.maximum(launches * stack["host_s_per_operator"] - device_s, 0.0)
    return causes | {"host": waiting_s + stack.get("host_s_per_step", 0.0)}


def device_causes_s(phase: PhaseTimes, stack: StackValues, *, decode: bool | NDArray[np.bool_]) -> dict[str, Floats]:
    """What a pass takes on the device by cause, s, launches and host left out."""
    exposed = np.where(decode, 1.0, 1.0 - stack["tensor_overlap"])
    wire = exposed / stack["collective_rate_ratio"]
    return {"gemm": phase.gemm_s / stack["gemm_rate_ratio"],
            "attention": phase.attention_s / stack["attention_rate_ratio"],
            "memory_bound": phase.memory_bound_s + phase.fusible_s * stack["unfused_fraction"],
            "quantise": phase.quantise_s * np.minimum(stack["unfused_fraction"], 1.0),
            "tensor_exposed": phase.tensor_s * wire,
            "expert_exposed": phase.expert_s * wire,
            "pipeline_exposed": phase.pipeline_s / stack["collective_rate_ratio"]}


def closed_loop(job: Serving, deployments: Deployments, tables: StaticTables, stack: StackValues) -> Loop:
    """The loop of every deployment from its tables, as a stack's parameters (numbers, or arrays with leading axes) let
    it run."""
    rows, batch = deployments, tables.batch
    eager = np.zeros(len(rows), dtype=bool)
    prefill = step_time_s(tables.prefill, stack, captured=eager, decode=False)
    packed = step_time_s(tables.packed, stack, captured=eager, decode=False)
    decode = step_time_s(tables.decode, stack, captured=rows.captured, decode=True)
    prefill_stage_s, packed_stage_s, decode_stage_s = _total(prefill), _total(packed), _total(decode)
    decode_step_s, prefill_s = rows.pp * decode_stage_s, rows.pp * prefill_stage_s

    steps = float(max(job.output_tokens - 1, 0))
    passes = batch / rows.attention_dp / tables.packed_requests + rows.pp - 1.0
    cycle_s = steps * decode_step_s + passes * packed_stage_s
    causes = {name: steps * tables.micro_batches * decode[name] + passes * packed[name] for name in packed}
    causes["pipeline_bubble"] = steps * (rows.pp - tables.micro_batches) * decode_stage_s

    waiting_s = np.maximum(tables.requests - batch, 0.0) / batch * cycle_s
    first_s = np.minimum(_first_token_s(batch, rows, prefill_stage_s, decode_step_s, cycle_s), cycle_s)
    return Loop(output_tokens_per_s=rows.replicas * batch * job.output_tokens / cycle_s,
                ttft_s=first_s + waiting_s, ttft_burst_s=passes * packed_stage_s + waiting_s,
                tpot_s=(cycle_s - first_s) / steps if steps else decode_step_s, decode_step_s=decode_step_s,
                prefill_s=prefill_s, request_s=cycle_s + waiting_s, cycle_s=cycle_s,
                time_by_cause_s={name: causes[name] for name in SERVING_TIME_CAUSES})


def assemble(job: Serving, machine: Machine, deployments: Deployments, tables: StaticTables,
             stack: StackValues) -> ServingEstimate:
    """The loop of every deployment, and the memory it takes."""
    loop = closed_loop(job, deployments, tables, stack)
    memory = serving_memory(job, machine, deployments, tables.batch)
    return ServingEstimate(
        **{column.name: getattr(loop, column.name) for column in fields(Loop)},
        output_tokens_per_s_per_chip=loop.output_tokens_per_s / deployments.chip_count, batch=tables.batch,
        memory_bytes=sum(memory.values(), start=np.zeros(len(deployments))), memory_by_cause_bytes=memory,
        max_batch=tables.max_batch, fits=tables.max_batch >= 1.0)


def _first_token_s(batch: Floats, rows: Deployments, prefill_stage_s: Floats, decode_step_s: Floats,
                   cycle_s: Floats) -> Floats:
    """Mean time to the first token of a request that arrives when another one ends.

    It waits for half of the step that runs and half of the next, which is scheduled ahead; then behind the prefills
    that are there already: mean wait of a queue with even service times at its utilisation (Pollaczek-Khinchine), seen
    by one of a closed population of `batch`.
    """
    others = (batch - 1.0) / batch
    service_s = prefill_stage_s / rows.attention_dp
    busy = np.minimum(batch * service_s / cycle_s, 1.0) * others
    queued_s = np.minimum(busy / np.maximum(2.0 * (1.0 - busy), 1e-9) * service_s, 0.5 * (batch - 1.0) * service_s)
    return np.asarray(rows.pp * prefill_stage_s + queued_s + others * decode_step_s)


def _total(causes: Mapping[str, Floats]) -> Floats:
    return sum(causes.values(), start=np.zeros(1))
