"""What the optimizer step, and the sum of gradients over micro-batches, ask of one chip's memory."""

from __future__ import annotations

from serried.workload.linear import floats
from serried.workload.spec import Elementwise, Floats, Operator

__all__ = ["accumulation_operators", "optimizer_operators"]


def optimizer_operators(parameter_count_S: Floats, *, weight_bytes: float = 2.0, gradient_bytes: float = 4.0,
                        state_bytes: float = 4.0, master_bytes: float = 4.0) -> tuple[Operator, ...]:
    """Adam on the parameters that one chip updates: the norm of the gradient, then one pass over gradient, two moments
    and the master copy, which is written back along with the weight (0 master_bytes = the weight is the master)."""
    count = floats(parameter_count_S)
    master_reads = master_bytes or weight_bytes
    written_weight = weight_bytes if master_bytes else 0.0
    return (Elementwise(name="optimizer.gradient_norm", read_bytes=count * gradient_bytes, write_bytes=count * 0.0,
                        fusible=False, kernels=2),
            Elementwise(name="optimizer.update", read_bytes=count * (gradient_bytes + 2 * state_bytes + master_reads),
                        write_bytes=count * (2 * state_bytes + master_reads + written_weight), fusible=False,
                        kernels=1),
            Elementwise(name="optimizer.clear", read_bytes=count * 0.0, write_bytes=count * gradient_bytes,
                        fusible=False, kernels=1))


def accumulation_operators(parameter_count_S: Floats, *, weight_bytes: float = 2.0,
                           gradient_bytes: float = 4.0) -> tuple[Operator, ...]:
    """The gradient of one micro-batch added to a buffer that outlives it (per micro-batch, on the parameters of one
    chip). Epilogues of the weight-gradient products can do it: then only the buffer is read and written."""
    count = floats(parameter_count_S)
    return (Elementwise(name="optimizer.accumulate", read_bytes=count * (weight_bytes + gradient_bytes),
                        write_bytes=count * gradient_bytes, fusible=True, kernels=1),)
