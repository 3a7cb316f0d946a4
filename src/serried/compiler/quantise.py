"""Time of the casts that a low-precision recipe adds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serried.compiler.gemm import ELEMENT_BYTES
from serried.compiler.spec import parameter
from serried.silicon.spec import Chip
from serried.workload.spec import Floats

__all__ = ["QuantiseParameters", "quantise_time_s"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantiseParameters:
    """What a library makes of a cast with scales."""

    hbm_ratio: float = parameter(unit="1", low=0.05, high=1.0, default=0.7,
                                 description="sustained HBM bandwidth over the specified one")
    launch_s: float = parameter(unit="s", low=0.0, high=1e-4, default=2.5e-6, description="captured launch floor")


def quantise_time_s(rows: Floats, columns: Floats, *, chip: Chip, parameters: QuantiseParameters,
                    number_format: str) -> Floats:
    """Device seconds to cast a bf16 matrix of rows x columns to `number_format`; 0 for formats without a cast."""
    rows, columns = (np.asarray(value, dtype=np.float64) for value in (rows, columns))
    if number_format in ("bf16", "fp16", "tf32", "fp32"):
        return np.zeros(np.broadcast(rows, columns).shape)
    traffic_bytes = rows * columns * (2.0 + ELEMENT_BYTES[number_format])
    return np.asarray(parameters.launch_s + traffic_bytes / (chip.need("hbm_bandwidth") * parameters.hbm_ratio))
