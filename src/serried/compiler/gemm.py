"""Time of one matrix product on one chip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serried.compiler.spec import parameter
from serried.silicon.spec import Chip
from serried.workload.spec import Floats

__all__ = ["ELEMENT_BYTES", "ENGINE_FORMAT", "GemmParameters", "gemm_time_s"]

#: Recipe to the format of the matrix engine that runs it.
ENGINE_FORMAT = {"bf16": "bf16", "fp16": "fp16", "fp8": "fp8", "fp8-block": "fp8", "mxfp8": "fp8", "nvfp4": "fp4",
                 "int8": "int8", "tf32": "tf32", "fp32": "fp32"}
#: Recipe to bytes of one element of an operand, its scales included.
ELEMENT_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "fp8-block": 1.0 + 4 / 128, "mxfp8": 1.0 + 1 / 32,
                 "nvfp4": 0.5 + 1 / 16, "int8": 1.0, "tf32": 4.0, "fp32": 4.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmParameters:
    """What a library makes of the matrix engines."""

    rate_ratio: float = parameter(unit="1", low=0.1, high=1.2, default=0.8,
                                  description="sustained rate of a long kernel over the peak")
    hbm_ratio: float = parameter(unit="1", low=0.1, high=1.0, default=0.85,
                                 description="sustained HBM bandwidth over the specified one")
    launch_s: float = parameter(unit="s", low=0.0, high=1e-4, default=3e-6,
                                description="captured launch floor")


def gemm_time_s(m: Floats, n: Floats, k: Floats, *, chip: Chip, parameters: GemmParameters, number_format: str,
                batch: Floats | float = 1.0) -> Floats:
    """Device seconds of `batch` products C[m, n] = A[m, k] B[k, n], captured launch; arrays broadcast."""
    m, n, k, batch = (np.asarray(value, dtype=np.float64) for value in (m, n, k, batch))
    peak_flop_per_s = chip.matrix_peak_flop_per_s(ENGINE_FORMAT[number_format])
    element_bytes = ELEMENT_BYTES[number_format]
    traffic_bytes = batch * (element_bytes * (m * k + k * n) + 2.0 * m * n)
    compute_s = batch * 2.0 * m * n * k / (peak_flop_per_s * parameters.rate_ratio)
    memory_s = traffic_bytes / (chip.need("hbm_bandwidth") * parameters.hbm_ratio)
    return np.asarray(parameters.launch_s + np.maximum(compute_s, memory_s))
