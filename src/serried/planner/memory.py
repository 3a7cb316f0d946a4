"""Peak memory of the fullest pipeline stage, by cause, and why a layout does not fit.

Axes: L = layout, K = STAGES, R = piece, S = shape point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serried.compiler import ACTIVATION_BYTES
from serried.planner.kernels import KERNEL_KEYS, element_bytes_of, selective_recompute, shards_of
from serried.planner.pieces import Points, data_degree, micro_batch_count, model_runs, stage_counts
from serried.planner.spec import FORMATS, MEMORY_CAUSES, RECOMPUTE, SCHEDULES, STAGES, Layouts, Machine
from serried.workload import (
    Model,
    Shards,
    Training,
    activation_bytes,
    chip_parameters,
    head_workspace_bytes,
    parameters,
)
from serried.workload.spec import Floats

__all__ = ["MemoryEstimate", "PieceParameters", "estimate_memory", "explain_memory", "in_flight_KL", "piece_parameters"]

#: Gradients are reduced and parameters gathered in buckets of this many parameters, two in flight.
BUCKET_PARAMETERS = 40e6


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes on one chip of the fullest stage, over L; by_cause_bytes add up to total_bytes. stage_L: STAGES code."""

    total_bytes: Floats
    by_cause_bytes: Mapping[str, Floats]
    stage_L: NDArray[np.intp]
    fits: NDArray[np.bool_]
    capacity_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceParameters:
    """Parameters that one chip holds of each piece before any sharding: `dense` are replicated over data and context
    ranks, `expert` over the ranks that hold the same experts; `trained_*` is what has gradients and states."""

    dense_RL: Floats
    expert_RL: Floats
    trained_share_R: Floats


def piece_parameters(model: Model, points: Layouts) -> PieceParameters:
    """Counts per chip at the points' tp, ep and expert_tp; ends are cut over the vocabulary."""
    counted = parameters(model)
    tp = points.tp.astype(np.float64)
    expert, expert_tensor = points.ep.astype(np.float64), points.expert_tp.astype(np.float64)
    runs = model_runs(model)
    dense = np.zeros((len(runs) + 2, len(points)))
    experts = np.zeros_like(dense)
    trained = np.ones(len(runs) + 2)
    for index, block in enumerate(runs):
        held = chip_parameters(model, block, tensor=tp, expert=expert, expert_tensor=expert_tensor)
        dense[index], experts[index] = held.dense, held.expert
    dense[-2] = counted.embedding / tp
    has_own_head = (points.pp > 1) | (counted.head > 0)     # a tied table is copied to the last stage
    dense[-1] = np.where(has_own_head, model.vocab * model.hidden / tp, 0.0) + counted.final_norm
    if model.adapter_rank:
        share = counted.adapter / max(counted.total, 1)
        dense[:-2] *= 1.0 + share
        trained[:-2] = share / (1.0 + share)
        trained[-2:] = 0.0
    return PieceParameters(dense_RL=dense, expert_RL=experts, trained_share_R=trained)


def in_flight_KL(layouts: Layouts, micro_batches: NDArray[np.int64]) -> Floats:
    """Micro-batches (in whole stages' worth) whose activations a stage of each kind holds at its peak.

    1F1B and the zero-bubble schedule of equal memory hold pp - i on stage i; interleaving holds v pp + pp - 1 - 2 i
    chunks of 1/v (Korthikanti et al. 2022, section 4.2.3: 1 + (p - 1)/(p v) of the whole model on the first stage).
    """
    pp, virtual = layouts.pp.astype(np.float64), layouts.virtual_stages.astype(np.float64)
    position = np.stack([np.zeros(len(layouts)), np.minimum(1.0, pp - 1), pp - 1])
    plain = pp - position
    chunks = (virtual - 1) * pp + 2 * (pp - 1 - position) + 1
    interleaved = layouts.schedule == SCHEDULES.index("interleaved")
    return np.asarray(np.minimum(np.where(interleaved, chunks / virtual, plain), micro_batches))


def estimate_memory(job: Training, machine: Machine, layouts: Layouts) -> MemoryEstimate:
    """Peak bytes per layout on the fullest stage: weights, gradients, states, activations in flight, workspace of the
    step's largest kernel or of the loss, communication buffers; the runtime's reserve and fragmentation on top."""
    model, facts = job.model, machine.stack.facts
    count_KRL, _ = _counts(model, layouts)
    micro_batches = micro_batch_count(layouts, machine.chip_count, job.global_batch_sequences)
    states = _states_KL(model, machine, layouts, count_KRL)
    kept_RL, working_L, logits_L = _activations(job, machine, layouts)
    flight_KL = in_flight_KL(layouts, micro_batches)
    blocks = count_KRL[:, :-2]
    activations = np.einsum("krl,rl->kl", blocks, kept_RL) * flight_KL
    has_head = count_KRL[:, -1] > 0
    workspace = np.maximum(working_L, np.where(has_head, logits_L, 0.0))
    workspace = workspace + _number(facts, "reserved_bytes")
    by_cause = {**states, "activations": activations, "workspace": workspace}
    lost = _number(facts, "fragmentation") * (by_cause["activations"] + np.maximum(working_L, 0.0))
    by_cause["workspace"] = by_cause["workspace"] + lost
    present = blocks.sum(axis=1) > 0
    total_KL = np.where(present, sum(by_cause[cause] for cause in MEMORY_CAUSES), 0.0)
    stage = np.argmax(total_KL, axis=0)
    here = np.arange(len(layouts))
    capacity = machine.chip.need("hbm_capacity")
    return MemoryEstimate(total_bytes=total_KL[stage, here], stage_L=stage, capacity_bytes=capacity,
                          by_cause_bytes={cause: by_cause[cause][stage, here] for cause in MEMORY_CAUSES},
                          fits=total_KL[stage, here] <= capacity)


def _number(facts: Mapping[str, object], name: str) -> float:
    value = facts[name]
    assert isinstance(value, (int, float)), f"the stack's fact {name} is a number"
    return float(value)


def _counts(model: Model, layouts: Layouts) -> tuple[Floats, Floats]:
    points = Points.of(layouts, "pp", "virtual_stages")
    count, total = stage_counts(model, layouts.pp[points.rows], layouts.virtual_stages[points.rows])
    return count[:, :, points.where], total


def _states_KL(model: Model, machine: Machine, layouts: Layouts, count_KRL: Floats) -> dict[str, Floats]:
    """Weights, gradients and optimizer states of each kind of stage, cut over the ranks that share them."""
    facts = machine.stack.facts
    points = Points.of(layouts, "tp", "ep", "expert_tp", "pp")
    held = piece_parameters(model, layouts.take(points.rows))
    trained = held.trained_share_R[:, None]
    ranks = (data_degree(layouts, machine.chip_count) * layouts.cp).astype(np.float64)
    expert_ranks = np.maximum(ranks * layouts.tp / (layouts.ep * layouts.expert_tp), 1.0)
    level = layouts.sharding
    found = {cause: np.zeros((len(STAGES), len(layouts))) for cause in MEMORY_CAUSES}
    per_parameter = {"weights": (_number(facts, "weight_bytes"), 3), "gradients": (_number(facts, "gradient_bytes"), 2),
                     "optimizer_states": (_number(facts, "optimizer_bytes"), 1)}
    unsharded_peak = np.zeros(len(layouts))
    for counts, share in ((held.dense_RL, ranks), (held.expert_RL, expert_ranks)):
        if not counts.any():
            continue
        whole_KL = np.einsum("krl,rl->kl", count_KRL, counts[:, points.where])
        trained_KL = whole_KL if (trained == 1.0).all() else np.einsum(
            "krl,rl->kl", count_KRL, (counts * trained)[:, points.where])
        for cause, (bytes_each, from_level) in per_parameter.items():
            cut = np.where(level >= from_level, share, 1.0)
            found[cause] += (whole_KL if cause == "weights" else trained_KL) * (bytes_each / cut)
        unsharded_peak += np.max(counts, axis=0)[points.where]
        if not machine.stack.facts.get("reduce_each_micro_batch", True):   # whole gradients wait for the last one
            found["gradients"] += np.where(level >= 2, 2.0, 0.0) * trained_KL
    buffers = np.where(level == 3, 2 * unsharded_peak * (2.0 + _number(facts, "reduce_bytes") / 2.0),
                       np.where((ranks > 1) & (level > 0), 2 * BUCKET_PARAMETERS * 2.0, 0.0))
    found["communication"] += buffers
    return found


def _activations(job: Training, machine: Machine, layouts: Layouts) -> tuple[Floats, Floats, Floats]:
    """(kept_RL of blocks, working_L, logits_L): what one micro-batch leaves in one block, what the largest block holds
    while it runs, and what the loss holds."""
    points = Points.of(layouts, *KERNEL_KEYS, "recompute")
    chosen = layouts.take(points.rows)
    shards = shards_of(job, chosen)
    runs = model_runs(job.model)
    kept = np.zeros((len(runs), len(chosen)))
    working = np.zeros(len(chosen))
    fused = bool(machine.stack.facts["fused_attention"])
    for index, block in enumerate(runs):
        for code, recompute in {(int(f), int(r)) for f, r in zip(chosen.number_format, chosen.recompute, strict=True)}:
            here = np.flatnonzero((chosen.number_format == code) & (chosen.recompute == recompute))
            cut = _shards_at(shards, here)
            kind = RECOMPUTE[recompute] if RECOMPUTE[recompute] != "selective" else selective_recompute(machine)
            name = FORMATS[code]
            whole, left = (activation_bytes(job.model, block, cut, recompute=how, fused_attention=fused,
                                            number_format=name, element_bytes=ACTIVATION_BYTES[name])
                           for how in ("none", kind))
            kept[index, here] = left
            # what is recomputed, and the gradients that flow through one block, live for a moment
            working[here] = np.maximum(working[here], whole - left + 0.5 * whole)
    logits = head_workspace_bytes(job.model, shards, element_bytes=element_bytes_of(chosen.number_format),
                                  fused_loss=bool(machine.stack.facts["fused_loss"]))
    return kept[:, points.where], working[points.where], logits[points.where]


def _shards_at(shards: Shards, rows: NDArray[np.intp]) -> Shards:
    assert shards.expert_tensor is not None
    return Shards(sequences=shards.sequences[rows], query_tokens=shards.query_tokens[rows],
                  context_tokens=shards.context_tokens[rows], tensor=shards.tensor[rows], context=shards.context[rows],
                  expert=shards.expert[rows], sequence_parallel=shards.sequence_parallel[rows],
                  expert_tensor=shards.expert_tensor[rows])


def explain_memory(estimate: MemoryEstimate, *, row: int = 0) -> str:
    """Why a layout does not fit, largest cause first; "" when it fits."""
    if estimate.fits[row]:
        return ""
    causes = sorted(((float(column[row]), cause) for cause, column in estimate.by_cause_bytes.items()), reverse=True)
    shown = ", ".join(f"{cause.replace('_', ' ')} {value / 1e9:.1f} GB" for value, cause in causes if value > 0.05e9)
    return (f"the {STAGES[int(estimate.stage_L[row])]} stage needs {estimate.total_bytes[row] / 1e9:.1f} GB of "
            f"{estimate.capacity_bytes / 1e9:.1f} GB: {shown}")
