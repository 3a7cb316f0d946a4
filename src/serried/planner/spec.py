"""Nouns of the plan: machine, layouts as columns, estimates as columns.

Axes: L = layout, one entry per candidate. A layout is a row index.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from serried.compiler import KernelProfile
from serried.fabric import Fabric
from serried.silicon import Chip
from serried.software import Stack
from serried.workload import Floats

__all__ = ["FORMATS", "MEMORY_CAUSES", "RECOMPUTE", "SCHEDULES", "STAGES", "TIME_CAUSES", "WORK", "Ints", "Layouts",
           "Machine", "SearchResult", "StepTable", "StepTime", "TrainingEstimate"]

Ints = NDArray[np.int64]

#: Codes of the columns that name a choice.
RECOMPUTE = ("none", "selective", "mlp", "attention", "full")   # what is computed again in backward
SCHEDULES = ("1f1b", "interleaved", "zero-bubble")
FORMATS = ("bf16", "fp16", "fp8", "fp8-block", "mxfp8", "nvfp4", "int8", "tf32", "fp32")

#: Every second of a step and every byte of a stage has one of these causes; each cause is a column.
TIME_CAUSES = ("gemm", "attention", "memory_bound", "recompute", "tensor_exposed", "context_exposed", "expert_exposed",
               "pipeline_bubble", "pipeline_exposed", "data_exposed", "optimizer", "host", "jitter")
MEMORY_CAUSES = ("weights", "gradients", "optimizer_states", "activations", "workspace", "communication")
#: Kinds of pipeline stage that are told apart; with one stage everything stands on the first.
STAGES = ("first", "middle", "last")
#: What one pass through a piece of the model is made of, before any stack: seconds on the device with captured launches
#: and the whole unfused traffic, or seconds on the wires, or eager launches. *_beside: traffic that usual software runs
#: beside a kernel of the same piece.
WORK = ("gemm", "attention", "fusible", "memory", "tensor", "tensor_beside", "context", "expert", "kernels",
        "fusible_kernels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What one job runs on: `chip_count` equal chips on one fabric, with the kernels and the stack that drive them."""

    chip: Chip
    profile: KernelProfile
    fabric: Fabric
    stack: Stack
    chip_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layouts:
    """Candidate layouts as columns over L (int64 unless said). dp follows: chips / (tp * cp * pp).

    tp, cp, pp, ep: degrees (ep divides dp*cp*tp ranks of a stage as in Megatron: experts are cut over ep ranks taken
    from the data and context axes; expert tensor parallel is tp unless `expert_tp` says 1).
    virtual_stages: model chunks per stage. micro_batch: sequences per micro-batch.
    sharding: 0 none, 1 optimizer states, 2 + gradients, 3 + weights, over the data (and context) axis.
    recompute, schedule, number_format: codes into RECOMPUTE, SCHEDULES, FORMATS.
    sequence_parallel, overlap_data, overlap_tensor: booleans.
    """

    tp: Ints
    cp: Ints
    pp: Ints
    ep: Ints
    expert_tp: Ints
    virtual_stages: Ints
    micro_batch: Ints
    sharding: Ints
    recompute: Ints
    schedule: Ints
    number_format: Ints
    sequence_parallel: NDArray[np.bool_]
    overlap_data: NDArray[np.bool_]
    overlap_tensor: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.tp)

    def take(self, rows: NDArray[np.intp]) -> Layouts:
        """The layouts at `rows`, in that order."""
        return Layouts(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})

    def row(self, index: int) -> dict[str, int | bool | str]:
        """One layout in words, for people and for JSON."""
        words = {column.name: getattr(self, column.name)[index].item() for column in fields(self)}
        return words | {"recompute": RECOMPUTE[words["recompute"]], "schedule": SCHEDULES[words["schedule"]],
                        "number_format": FORMATS[words["number_format"]]}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingEstimate:
    """Step time and peak memory per layout, by cause; columns over L.

    time_s: step. time_by_cause_s: TIME_CAUSES to seconds of the slowest stage's critical path; they add up to time_s.
    memory_bytes: peak of the fullest stage. memory_by_cause_bytes: MEMORY_CAUSES of that stage; they add up.
    fits: memory_bytes within the chip's HBM. energy_j, price_usd: per step, NaN when a figure is unknown.
    """

    time_s: Floats
    time_by_cause_s: Mapping[str, Floats]
    memory_bytes: Floats
    memory_by_cause_bytes: Mapping[str, Floats]
    fits: NDArray[np.bool_]
    model_flop: float
    tokens: int
    energy_j: Floats = field(default_factory=lambda: np.empty(0))
    price_usd: Floats = field(default_factory=lambda: np.empty(0))
    step: StepTime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTable:
    """All of a step that does not depend on the fitted parameters of a stack, as columns over L.

    A piece (R) is one block of a run of equal blocks, the embedding, or the head; axes: R = piece, P = forward,
    backward, recompute; C = WORK; K = STAGES.
    work_RPCL: one micro-batch through one piece. behind_RCL: of its forward what the host cannot launch ahead, because
    it reads the counts of the experts first. weight_gemm_s_RL: the part of backward that is weight gradients.
    gather_s_RL, reduce_s_RL: parameter gather (each of forward and backward) and gradient reduction of one piece for
    every micro-batch, with states sharded so far; once_*_s_L: those of a whole stage, once a step.
    count_KRL: pieces on a stage of each kind; total_RL: in the model. send_s_L: one boundary, one micro-batch.
    stolen_L: share of the compute that traffic beside it takes away. node_doublings_L: log2 of the nodes.
    """

    work_RPCL: Floats
    behind_RCL: Floats
    weight_gemm_s_RL: Floats
    gather_s_RL: Floats
    backward_gather_s_RL: Floats
    reduce_s_RL: Floats
    count_KRL: Floats
    total_RL: Floats
    once_reduce_s_L: Floats
    once_gather_s_L: Floats
    optimizer_s_L: Floats
    send_s_L: Floats
    pp_L: Floats
    virtual_stages_L: Floats
    micro_batches_L: Floats
    schedule_L: Ints
    overlap_data_L: Floats
    overlap_tensor_L: Floats
    overlap_expert_L: Floats
    overlap_pipeline_L: Floats
    stolen_L: Floats
    node_doublings_L: Floats

    def __len__(self) -> int:
        return len(self.pp_L)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Step time per layout: time_by_cause_s add up to time_s. stage_*_s_KL: one micro-batch through a stage of each
    kind, 0 where a pipeline has no such stage; micro_batches_L per step and pipeline."""

    time_s: Floats
    time_by_cause_s: Mapping[str, Floats]
    stage_forward_s_KL: Floats
    stage_backward_s_KL: Floats
    stage_weight_s_KL: Floats
    micro_batches_L: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The best layouts of an exhaustive search, best first.

    evaluated: legal layouts whose memory was evaluated (time too, where they fit). fitting: those that fit.
    rejected: rule to how many candidates it refused where it first applied. wall_s: of the search alone.
    """

    layouts: Layouts
    estimate: TrainingEstimate
    evaluated: int
    fitting: int
    rejected: Mapping[str, int]
    smallest_memory_bytes: float
    wall_s: float
