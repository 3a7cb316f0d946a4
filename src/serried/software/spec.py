"""Nouns of the software between the work and the chip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["STACK_FACTS", "STACK_PARAMETERS", "Stack", "StackParameter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StackParameter:
    """One physical parameter of a stack: its meaning, the value of a perfect stack, and the legal range."""

    unit: str
    perfect: float
    low: float
    high: float
    description: str


#: The whole vocabulary. A perfect stack reaches its kernel profile, fuses, hides and launches for nothing.
STACK_PARAMETERS: Mapping[str, StackParameter] = {
    "gemm_rate_ratio": StackParameter(
        unit="1", perfect=1.0, low=0.2, high=1.3,
        description="gemm rate in the running job over the rate of the kernel profile alone on the chip "
                    "(library tuning, sustained clock under power)"),
    "attention_rate_ratio": StackParameter(
        unit="1", perfect=1.0, low=0.05, high=1.5,
        description="attention rate in the running job over the rate of the kernel profile alone on the chip"),
    "unfused_fraction": StackParameter(
        unit="1", perfect=0.0, low=0.0, high=2.0,
        description="share of the fusible elementwise traffic that still goes through HBM"),
    "host_s_per_operator": StackParameter(
        unit="s", perfect=0.0, low=0.0, high=1e-3,
        description="host time to launch one eager kernel; the step is never shorter than its launches"),
    "host_s_per_step": StackParameter(
        unit="s", perfect=0.0, low=0.0, high=0.1,
        description="host time between two steps that nothing hides: scheduling, sampling, detokenising; serving"),
    "host_s_per_sequence": StackParameter(
        unit="s", perfect=0.0, low=0.0, high=1e-3,
        description="host time of a step for each running request, beside host_s_per_step; serving"),
    "data_overlap": StackParameter(
        unit="1", perfect=1.0, low=0.0, high=1.0,
        description="share of gradient and parameter traffic that runs beside compute when there is compute beside it"),
    "tensor_overlap": StackParameter(
        unit="1", perfect=1.0, low=0.0, high=1.0,
        description="share of tensor, context and expert traffic hidden behind its neighbouring kernels"),
    "collective_rate_ratio": StackParameter(
        unit="1", perfect=1.0, low=0.2, high=1.3,
        description="collective bandwidth in the running job over that of the collective alone on the fabric"),
    "jitter_per_doubling": StackParameter(
        unit="1", perfect=0.0, low=0.0, high=0.05,
        description="relative step time lost to stragglers with each doubling of the nodes"),
}


#: What a recipe does, with the value that holds where a stack file is silent. Facts are read in documentation and
#: source, never fitted. *_bytes: per parameter. sharding: the recipe's default (0 to 3) when a run prints none.
#: selective: what recompute "selective" means there: "core" repeats the attention core, "operators" all but attention
#: and every second product, "activations" norms and what stands between two products, "up_projections" those out of
#: latents; fused_loss: one kernel from logits to gradient.
#: expert_dispatch: "plain" sends a row for every expert, "once_per_node" one to every node that holds some of them,
#: where it is copied on. reduce_each_micro_batch, gather_in_backward: with gradients or weights sharded.
#: overlap_expert: when expert traffic runs beside compute: "with_tensor" = where the layout overlaps tensor traffic,
#: "across_nodes" = where a group of experts spans nodes, "never". synced_dispatch: the host reads how many rows each
#: expert gets before it launches them, so it cannot run ahead. fused_experts: biases behind the experts and limits of
#: their activation are part of a kernel, not operators of their own.
#: fused_attention: scores never leave the chip; grouped_kernel: the products of all experts are one launch, not one
#: each; captured: launches are replayed from a graph, the host does not wait;
#: overlap_*: the recipe runs the traffic of that axis beside compute. scattered_sends: between stages each tensor rank
#: sends its piece of an activation that all of them hold. reserved_bytes: what runtime and communication
#: library hold before the first tensor; fragmentation: share of the tensors' bytes that the allocator loses.
STACK_FACTS: Mapping[str, object] = {
    "kind": "training", "release": "", "library": "",
    "sequence_parallel": True, "sharding": 1, "recompute": "none", "fused_attention": True, "captured": False,
    "grouped_kernel": True,
    "overlap_data": True, "overlap_tensor": False, "overlap_pipeline": False,
    "weight_bytes": 2.0, "gradient_bytes": 4.0, "optimizer_bytes": 12.0, "reduce_bytes": 4.0,
    "selective": "core", "fused_loss": True, "scattered_sends": True, "expert_dispatch": "plain",
    "overlap_expert": "with_tensor", "synced_dispatch": False, "fused_experts": True,
    "reduce_each_micro_batch": True, "gather_in_backward": True,
    "reserved_bytes": 2.0e9, "fragmentation": 0.03, "notes": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The software of a job: parameters by name (see STACK_PARAMETERS), their spread, and recipe facts.

    name: canonical; `aliases` are framework names as people print them, with releases.
    chip_family: the silicon family these values were fitted on ("*" = any).
    parameters, spreads: value and half-width of the 80 % interval, absolute, per parameter.
    status: per parameter, as in the catalogue. fitted_rows: calibrate rows behind the fit, 0 = taken over.
    facts: what the recipe does (sequence_parallel, state_sharding, recompute granularity, gradient_bytes,
    captured launches, ...); not fitted.
    """

    name: str
    chip_family: str
    parameters: Mapping[str, float]
    spreads: Mapping[str, float]
    status: Mapping[str, str]
    fitted_rows: int
    facts: Mapping[str, object] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    source: str = ""

    def __getitem__(self, parameter: str) -> float:
        return self.parameters[parameter]
