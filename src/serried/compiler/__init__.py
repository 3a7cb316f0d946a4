"""How long does one operator take on one chip?

In: operators of the workload with their shapes as arrays, a chip, a kernel profile (calibrated parameters of the
kernel libraries) and a recipe of number formats. Out: device seconds per shape, captured launches.
"""

from serried.compiler.attention import AttentionParameters, attention_backward_time_s, attention_time_s
from serried.compiler.decode import DecodeParameters, decode_time_s
from serried.compiler.experts import ExpertLayer, RouteParameters, expert_layer_time_s, expert_loads
from serried.compiler.gemm import ACTIVATION_BYTES, ENGINE_FORMAT, GemmParameters, gemm_time_s
from serried.compiler.grouped_gemm import GroupedGemmParameters, grouped_gemm_time_s
from serried.compiler.launch import host_time_s, stream_time_s
from serried.compiler.memory_bound import MemoryBoundParameters, hbm_time_s, memory_bound_time_s
from serried.compiler.operator import operator_kernel_count, operator_time_s
from serried.compiler.profile import FAMILIES, profile_for, profile_names, read_profile
from serried.compiler.quantise import QuantiseParameters, quantise_time_s
from serried.compiler.shape import AttentionShape, attention_shape
from serried.compiler.spec import KernelFit, KernelProfile, parameter

__all__ = [
    "ACTIVATION_BYTES", "ENGINE_FORMAT", "FAMILIES", "AttentionParameters", "AttentionShape", "DecodeParameters",
    "ExpertLayer",
    "GemmParameters", "GroupedGemmParameters", "KernelFit", "KernelProfile", "MemoryBoundParameters",
    "QuantiseParameters", "RouteParameters", "attention_backward_time_s", "attention_shape", "attention_time_s",
    "decode_time_s", "expert_layer_time_s", "expert_loads", "gemm_time_s", "grouped_gemm_time_s", "hbm_time_s",
    "host_time_s", "memory_bound_time_s", "operator_kernel_count", "operator_time_s", "parameter", "profile_for",
    "profile_names", "quantise_time_s", "read_profile", "stream_time_s",
]
