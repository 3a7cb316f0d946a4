"""Time of work that only moves bytes: norms, rotary embedding, activations, residuals, loss, optimizer.

One law for all of them: a launch floor, then bytes over sustained HBM bandwidth, cheaper as far as the cache still
holds what the kernel before has written.

Axes: S = shape point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serried.compiler.spec import parameter
from serried.silicon.spec import Chip
from serried.workload.spec import Floats

__all__ = ["MemoryBoundParameters", "hbm_time_s", "memory_bound_time_s"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBoundParameters:
    """What kernels that only move bytes make of a chip."""

    hbm_ratio: float = parameter(unit="1", low=0.05, high=1.0, default=0.88,
                                 description="sustained HBM bandwidth over the specified one")
    cache_ratio: float = parameter(unit="1", low=1.0, high=10.0, default=2.0,
                                   description="bandwidth out of the last cache over HBM bandwidth")
    launch_s: float = parameter(unit="s", low=0.0, high=1e-4, default=2.5e-6, description="captured launch floor")


def hbm_time_s(traffic_bytes: Floats, chip: Chip, parameters: MemoryBoundParameters) -> Floats:
    """Seconds to move `traffic_bytes` through HBM and the last cache, without a launch.

    The share 1 - bytes / cache of the traffic is still in the cache; none of it when it is larger than the cache, or
    when the chip's cache is unknown.
    """
    traffic_bytes = np.asarray(traffic_bytes, dtype=np.float64)
    cache_bytes = chip.get("cache") or 0.0
    held = np.maximum(1.0 - traffic_bytes / cache_bytes, 0.0) if cache_bytes else 0.0
    slowness = (1.0 - held) + held / parameters.cache_ratio
    return np.asarray(traffic_bytes * slowness / (chip.need("hbm_bandwidth") * parameters.hbm_ratio))


def memory_bound_time_s(read_bytes: Floats, write_bytes: Floats, *, chip: Chip, parameters: MemoryBoundParameters,
                        kernel_count: float = 1.0) -> Floats:
    """Device seconds of `kernel_count` captured launches that together read and write so much; 0 for no traffic."""
    traffic_bytes = np.asarray(read_bytes, dtype=np.float64) + np.asarray(write_bytes, dtype=np.float64)
    moved_s = kernel_count * hbm_time_s(traffic_bytes / kernel_count, chip, parameters)
    return np.asarray(np.where(traffic_bytes > 0, parameters.launch_s * kernel_count + moved_s, 0.0))
