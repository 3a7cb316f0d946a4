"""What layers, settings and moves are called in front of people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serried.insight.game import End
from serried.insight.spec import LAYER_OF_PARAMETER

__all__ = ["ACTIONS", "setting"]

#: Parameter to its layer and what to do about it.
ACTIONS: Mapping[str, tuple[str, str]] = {
    "gemm_rate_ratio": ("kernels", "tune the matrix-product kernels for this chip: tiles, split-K, clocks under power"),
    "attention_rate_ratio": ("kernels", "tune or replace the attention kernels"),
    "unfused_fraction": ("kernels", "fuse norms, rotary positions, activations and sums into their neighbours"),
    "collective_rate_ratio": ("collectives", "tune the collective library: algorithm, protocol and channels by size"),
    "data_overlap": ("schedule_and_overlap", "run gradient and parameter traffic beside the backward pass"),
    "tensor_overlap": ("schedule_and_overlap", "cut products so that tensor and expert traffic hides behind them"),
    "jitter_per_doubling": ("schedule_and_overlap", "even out stragglers: pin hosts, replace slow nodes"),
    "host_s_per_operator": ("host", "capture steps into graphs, so that the host launches once instead of per kernel"),
    "host_s_per_step": ("host", "take scheduling, sampling and detokenising off the critical path"),
    "number_format": ("precision", "run the matrix products in the chip's faster number format"),
    "layout": ("layout", "change to the layout that the search finds best"),
}


def setting(layer: str, end: End[Any]) -> str:
    """The setting of a layer at one end, in words."""
    machine = end.machine
    if layer == "silicon":
        return f"{machine.chip_count} {machine.chip.name} on {machine.fabric.name}"
    if layer == "precision":
        return end.number_format
    if layer == "layout":
        words = {name: value for name, value in end.layout.row(0).items()
                 if not isinstance(value, bool) and value not in (0, 1, "none") and not name.endswith("format")}
        return " ".join(f"{name}={value}" for name, value in words.items()) or "one chip"
    parts = [f"{name}={machine.stack.parameters[name]:.3g}" for name, own in LAYER_OF_PARAMETER.items()
             if own == layer and name in machine.stack.parameters]
    if layer == "collectives":           # the library, and which part of its rate alone it reaches in the running job
        return f"{machine.fabric.profile.name} at {machine.stack.parameters.get('collective_rate_ratio', 1.0):.0%}"
    return (f"{machine.profile.name} kernels, " if layer == "kernels" else "") + ", ".join(parts)
