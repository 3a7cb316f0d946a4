"""What crosses the data and the pipeline axis, and the optimizer step, before any stack.

Ranks are placed as tp, cp, dp (experts: expert_tp, ep, their replicas), pp from the inside out, so that the stride of
an axis is the product of the degrees inside it. Axes: W = wire point, R = piece, L = layout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serried.compiler import operator_time_s
from serried.fabric import collective_time_s
from serried.planner.kernels import element_bytes_of
from serried.planner.memory import piece_parameters
from serried.planner.pieces import Points, data_degree, distinct_values, stage_counts
from serried.planner.spec import Layouts, Machine
from serried.workload import optimizer_operators
from serried.workload.spec import Floats, Training

__all__ = ["WireTimes", "send_s_L", "wire_times"]

@dataclass(frozen=True, slots=True, kw_only=True)
class WireTimes:
    """Columns over L; see StepTable for what each is."""

    gather_s_RL: Floats
    backward_gather_s_RL: Floats
    reduce_s_RL: Floats
    once_reduce_s_L: Floats
    once_gather_s_L: Floats
    optimizer_s_L: Floats


def wire_times(job: Training, machine: Machine, layouts: Layouts) -> WireTimes:
    """Gradient reduction, parameter gathers and the optimizer step of each layout.

    The first stage counts: its backward ends last, and every stage waits for the norm of all gradients. The optimizer
    takes as long as on the stage with the most parameters of its own.
    """
    points = Points.of(layouts, "tp", "cp", "pp", "ep", "expert_tp", "virtual_stages", "sharding",
                       "number_format")
    one = layouts.take(points.rows)
    facts = machine.stack.facts
    gather_bytes = element_bytes_of(one.number_format)   # a parameter is gathered as it is computed with
    reduce_bytes = float(facts.get("reduce_bytes", 4.0))  # type: ignore[arg-type]
    held = piece_parameters(job.model, one)
    count_KRW, _ = stage_counts(job.model, one.pp, one.virtual_stages)
    ranks = (data_degree(one, machine.chip_count) * one.cp).astype(np.float64)
    expert_ranks = np.maximum(ranks * one.tp / (one.ep * one.expert_tp), 1.0)
    expert_stride = (one.ep * one.expert_tp).astype(np.float64)
    each = bool(facts.get("reduce_each_micro_batch", True))
    once = (one.sharding >= 1) & ((one.sharding == 1) | (not each))
    columns = {name: np.zeros(held.dense_RL.shape) for name in ("gather", "backward_gather", "reduce")}
    once_reduce, once_gather = np.zeros(len(one)), np.zeros(len(one))
    updated_KW = np.zeros((len(count_KRW), len(one)))
    for counts, degree, stride in ((held.dense_RL, ranks, one.tp.astype(np.float64)),
                                   (held.expert_RL, expert_ranks, expert_stride)):
        if not counts.any():
            continue
        trained = counts * held.trained_share_R[:, None]
        sharded = one.sharding >= 2
        gathered = np.where(one.sharding == 3, counts, 0.0) * gather_bytes
        gather_RW = _time_s(machine, "all_gather", gathered, degree, stride)
        columns["gather"] += gather_RW
        columns["backward_gather"] += gather_RW * bool(facts.get("gather_in_backward", True))
        columns["reduce"] += _time_s(machine, "reduce_scatter", np.where(sharded & each, trained, 0.0) * reduce_bytes,
                                     degree, stride)
        on_stage = (count_KRW[0] * trained).sum(axis=0)
        once_reduce += _time_s(machine, "all_reduce", np.where(one.sharding == 0, on_stage, 0.0) * reduce_bytes,
                               degree, stride)
        once_reduce += _time_s(machine, "reduce_scatter", np.where(once, on_stage, 0.0) * reduce_bytes,
                               degree, stride)
        between = (one.sharding == 1) | (one.sharding == 2)
        once_gather += _time_s(machine, "all_gather", np.where(between, on_stage, 0.0) * gather_bytes, degree, stride)
        updated_KW += (count_KRW * trained).sum(axis=1) / np.where(one.sharding >= 1, degree, 1.0)
    optimizer = _optimizer_s(machine, updated_KW.max(axis=0))
    where = points.where
    return WireTimes(gather_s_RL=columns["gather"][:, where], backward_gather_s_RL=columns["backward_gather"][:, where],
                     reduce_s_RL=columns["reduce"][:, where], once_reduce_s_L=once_reduce[where],
                     once_gather_s_L=once_gather[where], optimizer_s_L=optimizer[where])


def _optimizer_s(machine: Machine, parameter_count: Floats) -> Floats:
    facts = machine.stack.facts
    numbers = {name: float(facts[name]) for name in  # type: ignore[arg-type]
               ("weight_bytes", "gradient_bytes", "optimizer_bytes")}
    operators = optimizer_operators(
        parameter_count, weight_bytes=numbers["weight_bytes"], gradient_bytes=numbers["gradient_bytes"],
        state_bytes=4.0, master_bytes=max(numbers["optimizer_bytes"] - 8.0, 0.0))
    time_s = [operator_time_s(operator, chip=machine.chip, profile=machine.profile, number_format="bf16")
              for operator in operators]
    return np.asarray(sum(time_s) + np.zeros(len(parameter_count)))


def _time_s(machine: Machine, operation: str, payload_bytes: Floats, degree: Floats, stride: Floats) -> Floats:
    """A collective for each payload (any leading axes over W); distinct questions are asked once."""
    asked = payload_bytes > 0
    if not asked.any():
        return np.zeros(payload_bytes.shape)
    shape = payload_bytes.shape
    columns = [np.broadcast_to(column, shape)[asked] for column in (payload_bytes, degree, stride)]
    (payloads, degrees, strides), where = distinct_values(columns)
    found = np.zeros(shape)
    found[asked] = collective_time_s(operation, payloads, degrees, strides,  # type: ignore[arg-type]
                                     fabric=machine.fabric)[where]
    return found


def send_s_L(job: Training, machine: Machine, layouts: Layouts) -> Floats:
    """Activations of one micro-batch over one stage boundary, s; 0 without a pipeline."""
    points = Points.of(layouts, "tp", "cp", "pp", "micro_batch", "sequence_parallel", "number_format")
    one = layouts.take(points.rows)
    tokens = one.micro_batch * float(job.sequence_tokens) / one.cp
    payload = tokens * job.model.hidden * element_bytes_of(one.number_format)
    in_pieces = one.sequence_parallel | bool(machine.stack.facts.get("scattered_sends", True))
    payload = np.where(in_pieces, payload / one.tp, payload)
    stride = machine.chip_count // one.pp
    time_s = _time_s(machine, "send", np.where(one.pp > 1, payload, 0.0), np.full(len(one), 2.0),
                     stride.astype(np.float64))
    return np.asarray(time_s[points.where])
