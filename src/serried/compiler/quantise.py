"""Time of the casts that a low-precision recipe adds: read 16-bit values, find their scales, write narrow ones.

A cast is bound by the traffic with HBM, and where one core reduces one row at a time, by the rows in the fullest core.
Axes: S = shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serried.compiler.gemm import ELEMENT_BYTES, WEIGHT_BYTES
from serried.compiler.spec import parameter
from serried.silicon.spec import Chip
from serried.workload.spec import Floats

__all__ = ["QuantiseParameters", "quantise_time_s"]

_SOURCE_BYTES = 2.0
_UNCAST = ("bf16", "fp16", "tf32", "fp32", *WEIGHT_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantiseParameters:
    """What a library makes of a cast with scales; several passes over the operand show as a lower `hbm_ratio`."""

    hbm_ratio: float = parameter(
        unit="1", low=0.01, high=1.0, default=0.5,
        description="bandwidth of one read and one write of the operand over that of HBM")
    core_ratio: float = parameter(
        unit="1", low=0.01, high=50.0, default=1.0,
        description="bandwidth of all cores together, each on one row at a time, over that of HBM")
    launch_s: float = parameter(
        unit="s", low=1e-7, high=5e-5, default=3e-6, description="captured launch floor of all its kernels")
    core_count: float = parameter(
        unit="1", low=1.0, high=1e6, default=132.0, description="cores of the chip measured")


def quantise_time_s(rows: Floats, columns: Floats, *, chip: Chip, parameters: QuantiseParameters,
                    number_format: str) -> Floats:
    """Device seconds to cast a 16-bit matrix of rows x columns to `number_format`; 0 for formats without a cast.

    Scales run along columns (the reduced dimension k). Raises MissingFigure without the chip's HBM bandwidth.
    """
    rows, columns = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in (rows, columns)))
    if number_format in _UNCAST:
        return np.zeros(rows.shape)
    hbm_bytes_per_s = chip.need("hbm_bandwidth")
    core_count = chip.get("core_count") or parameters.core_count
    row_bytes = columns * (_SOURCE_BYTES + ELEMENT_BYTES[number_format])
    traffic_s = rows * row_bytes / (hbm_bytes_per_s * parameters.hbm_ratio)
    fullest_core_s = (np.ceil(rows / core_count) * row_bytes * core_count
                      / (hbm_bytes_per_s * parameters.core_ratio))
    return np.asarray(parameters.launch_s + np.hypot(traffic_s, fullest_core_s))
