"""Nouns of the plan: machine, layouts as columns, estimates as columns.

Axes: L = layout, one entry per candidate. A layout is a row index.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from serried.compiler import KernelProfile
from serried.fabric import Fabric
from serried.silicon import Chip
from serried.software import Stack
from serried.workload import Floats

__all__ = ["MEMORY_CAUSES", "RECOMPUTE", "SCHEDULES", "TIME_CAUSES", "Ints", "Layouts", "Machine", "TrainingEstimate"]

Ints = NDArray[np.int64]

#: Codes of the columns that name a choice.
RECOMPUTE = ("none", "selective", "mlp", "attention", "full")   # what is computed again in backward
SCHEDULES = ("1f1b", "interleaved", "zero-bubble")
FORMATS = ("bf16", "fp16", "fp8", "fp8-block", "mxfp8", "nvfp4", "int8", "tf32", "fp32")

#: Every second of a step and every byte of a stage has one of these causes; each cause is a column.
TIME_CAUSES = ("gemm", "attention", "memory_bound", "recompute", "tensor_exposed", "context_exposed", "expert_exposed",
               "pipeline_bubble", "pipeline_exposed", "data_exposed", "optimizer", "host", "jitter")
MEMORY_CAUSES = ("weights", "gradients", "optimizer_states", "activations", "workspace", "communication")


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
