"""Time of any operator of the workload on one chip: one dispatch over the kernel families."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from serried.compiler.gemm import gemm_time_s
from serried.compiler.grouped_gemm import grouped_gemm_time_s
from serried.compiler.spec import KernelProfile
from serried.silicon.spec import Chip
from serried.workload.spec import Elementwise, Exchange, Floats, Gemm, GroupedGemm, Operator

__all__ = ["TIMERS", "operator_kernel_count", "operator_time_s"]


def operator_time_s(operator: Operator, *, chip: Chip, profile: KernelProfile, number_format: str) -> Floats:
    """Device seconds of one operator, captured launch, over its shape points S.

    number_format: a recipe of planner FORMATS. Products marked `high_precision` stay in bf16. The casts of a
    low-precision recipe are not in here: they are operators of their own (`quantise_time_s`).
    """
    timer = TIMERS.get(type(operator))
    assert timer is not None, f"{type(operator).__name__} is not timed on a chip"
    return np.asarray(timer(operator, chip, profile, number_format), dtype=np.float64)


def operator_kernel_count(operator: Operator) -> float:
    """How many eager launches the operator stands for."""
    match operator:
        case Elementwise():
            return float(operator.kernels)
        case Exchange():
            return 1.0
        case _:
            return 1.0


def _gemm(operator: Gemm, chip: Chip, profile: KernelProfile, number_format: str) -> Floats:
    recipe = "bf16" if operator.high_precision else number_format
    return gemm_time_s(operator.m, operator.n, operator.k, batch=operator.batch, chip=chip, number_format=recipe,
                       parameters=profile.parameters("gemm", recipe))


def _grouped_gemm(operator: GroupedGemm, chip: Chip, profile: KernelProfile, number_format: str) -> Floats:
    return grouped_gemm_time_s(operator.groups, operator.rows, operator.n, operator.k, chip=chip,
                               number_format=number_format,
                               parameters=profile.parameters("grouped_gemm", number_format))


#: Operator to its timer (operator, chip, profile, number_format) -> seconds over S. A new family adds its line.
TIMERS: dict[type, Callable[[Any, Chip, KernelProfile, str], Floats]] = {
    Gemm: _gemm,
    GroupedGemm: _grouped_gemm,
}
