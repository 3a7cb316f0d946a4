"""Time of any operator of the workload on one chip: one dispatch over the kernel families."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from serried.compiler.attention import attention_backward_time_s, attention_time_s
from serried.compiler.decode import decode_time_s
from serried.compiler.gemm import ACTIVATION_BYTES, ELEMENT_BYTES, gemm_time_s
from serried.compiler.grouped_gemm import grouped_gemm_time_s, grouped_weight_gradient_time_s
from serried.compiler.memory_bound import memory_bound_time_s
from serried.compiler.recurrent import recurrent_time_s
from serried.compiler.shape import attention_shape
from serried.compiler.spec import KernelProfile
from serried.silicon.spec import Chip
from serried.workload.spec import Attend, Elementwise, Exchange, Floats, Gemm, GroupedGemm, Operator

__all__ = ["TIMERS", "operator_kernel_count", "operator_time_s"]


def operator_time_s(operator: Operator, *, chip: Chip, profile: KernelProfile, number_format: str) -> Floats:
    """Device seconds of one operator, captured launch, over its shape points S.

    number_format: a recipe of planner FORMATS. Products marked `high_precision` stay in bf16 under a narrower
    one. The casts of a low-precision recipe are not in here: they are operators of their own (`quantise_time_s`).
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
    recipe = "bf16" if operator.high_precision and ACTIVATION_BYTES[number_format] == 2.0 else number_format
    return gemm_time_s(operator.m, operator.n, operator.k, batch=operator.batch, chip=chip, number_format=recipe,
                       parameters=profile.parameters("gemm", recipe))


def _grouped_gemm(operator: GroupedGemm, chip: Chip, profile: KernelProfile, number_format: str) -> Floats:
    timer = grouped_weight_gradient_time_s if operator.phase == "backward_weight" else grouped_gemm_time_s
    return timer(operator.groups, operator.rows, operator.n, operator.k, chip=chip, number_format=number_format,
                 parameters=profile.parameters("grouped_gemm", number_format))


def _attend(operator: Attend, chip: Chip, profile: KernelProfile, number_format: str) -> Floats:
    """Decode takes `number_format` as the format of the cache; elsewhere products stay in 16 bits under any recipe."""
    shape = attention_shape(
        sequences=operator.sequences, query_tokens=operator.query_tokens, context_tokens=operator.context_tokens,
        heads=operator.heads, kv_heads=operator.kv_heads, window_tokens=operator.window_tokens,
        head_dim=operator.head_dim, value_head_dim=operator.value_head_dim)
    recipe = _half_format(number_format, chip)
    if operator.linear:
        return recurrent_time_s(shape, chip=chip, parameters=profile.parameters("attention", recipe),
                                decode=operator.decode, backward=operator.backward, number_format=recipe)
    if operator.decode:
        variant = f"latent-{number_format}" if operator.latent else number_format
        return decode_time_s(shape, latent=operator.latent, cache_element_bytes=ELEMENT_BYTES[number_format], chip=chip,
                             parameters=profile.parameters("decode", variant), number_format=recipe)
    variant = recipe if operator.head_dim == operator.value_head_dim else f"latent-{recipe}"
    parameters = profile.parameters("attention", variant)
    if operator.backward:
        return attention_backward_time_s(shape, causal=operator.causal, chip=chip, parameters=parameters,
                                         backward=profile.parameters("attention_backward", recipe),
                                         number_format=recipe)
    return attention_time_s(shape, causal=operator.causal, chip=chip, parameters=parameters, number_format=recipe,
                            cache_element_bytes=0.0)


def _half_format(number_format: str, chip: Chip) -> str:
    """The 16-bit (or wider) format in which attention runs under a recipe."""
    if number_format in ("bf16", "fp16", "tf32", "fp32"):
        return number_format
    return "fp16" if "bf16" not in chip.number_formats and "fp16" in chip.number_formats else "bf16"


def _elementwise(operator: Elementwise, chip: Chip, profile: KernelProfile, number_format: str) -> Floats:
    return memory_bound_time_s(operator.read_bytes, operator.write_bytes, chip=chip,
                               parameters=profile.parameters("memory_bound", number_format),
                               kernel_count=float(operator.kernels))


#: Operator to its timer (operator, chip, profile, number_format) -> seconds over S. A new family adds its line.
TIMERS: dict[type, Callable[[Any, Chip, KernelProfile, str], Floats]] = {
    Gemm: _gemm,
    GroupedGemm: _grouped_gemm,
    Attend: _attend,
    Elementwise: _elementwise,
}
