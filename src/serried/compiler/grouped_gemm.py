"""Time of the grouped products of a mixture of experts on one chip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serried.compiler.gemm import GemmParameters, gemm_time_s
from serried.compiler.spec import parameter
from serried.silicon.spec import Chip
from serried.workload.spec import Floats

__all__ = ["GroupedGemmParameters", "grouped_gemm_time_s"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedGemmParameters:
    """What a library makes of one product per expert."""

    rate_ratio: float = parameter(unit="1", low=0.1, high=1.2, default=0.7,
                                  description="sustained rate of a long grouped kernel over the peak")
    hbm_ratio: float = parameter(unit="1", low=0.1, high=1.0, default=0.8,
                                 description="sustained HBM bandwidth over the specified one")
    launch_s: float = parameter(unit="s", low=0.0, high=1e-3, default=5e-6, description="captured launch floor")


def grouped_gemm_time_s(groups: Floats, rows: Floats, n: Floats, k: Floats, *, chip: Chip,
                        parameters: GroupedGemmParameters, number_format: str,
                        imbalance: Floats | float = 1.0) -> Floats:
    """Device seconds of one product of `rows` / `groups` rows per group; imbalance = fullest group over the mean."""
    same = GemmParameters(rate_ratio=parameters.rate_ratio, hbm_ratio=parameters.hbm_ratio,
                          launch_s=parameters.launch_s)
    groups = np.asarray(groups, dtype=np.float64)
    return gemm_time_s(rows * imbalance / groups, n, k, chip=chip, parameters=same, number_format=number_format,
                       batch=groups)
