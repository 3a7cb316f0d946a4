"""What the host costs: eager launches against captured graphs, and streams that wait for one another.

Axes: S = shape point.
"""

from __future__ import annotations

import numpy as np

from serried.workload.spec import Floats

__all__ = ["host_time_s", "stream_time_s"]


def host_time_s(kernel_counts: Floats, host_s_per_kernel: float, *, captured: bool, graph_launch_s: float = 1e-5,
                virtual_ratio: float = 1.0) -> Floats:
    """Host seconds to issue `kernel_counts` kernels: one by one when eager, as one graph when captured.

    graph_launch_s: host time to replay a captured graph, whatever its length. virtual_ratio: host time on this
    (virtual) machine over a bare one. No kernels, no time.
    """
    assert min(host_s_per_kernel, graph_launch_s, virtual_ratio) >= 0, "host costs are positive"
    counts = np.asarray(kernel_counts, dtype=np.float64)
    bare_s = np.where(counts > 0, graph_launch_s, 0.0) if captured else counts * host_s_per_kernel
    return np.asarray(virtual_ratio * bare_s)


def stream_time_s(device_s: Floats, host_s: Floats, *, sync_count: Floats | float = 0.0, sync_s: float = 0.0) -> Floats:
    """Seconds of one stretch of work whose kernels the host issues while the device runs.

    The host runs ahead, so the slower of the two sets the pace; it cannot run ahead of a synchronisation, so each of
    `sync_count` adds `sync_s` (the read-back and the first launch after it) and cuts the stretch, where the device
    idles until the next launch arrives.
    """
    device_s, host_s, sync_count = (np.asarray(value, dtype=np.float64) for value in (device_s, host_s, sync_count))
    return np.asarray(np.maximum(device_s, host_s) + sync_count * sync_s)
