"""What the columns would be if some jobs left, or nodes were closed: copies for a plan to try things on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from serried.fleet.columns import RESERVED, Columns, chip_bits
from serried.fleet.snapshot import Snapshot
from serried.fleet.spec import WHOLE_MILLI, Placement, Shape

__all__ = ["closed", "occupied", "opened", "without"]


def without(snapshot: Snapshot, columns: Columns, numbers: Iterable[int]) -> Columns:
    """Columns once jobs of whole chips have left; counts by switch are not kept."""
    free_milli_NC, idle_chips_N = columns.free_milli_NC.copy(), columns.idle_chips_N.copy()
    cpu_milli_N, memory_bytes_N = columns.cpu_free_milli_N.copy(), columns.memory_free_bytes_N.copy()
    nodes = []
    for number in numbers:
        placement, shape = snapshot.placement(number), snapshot.job(number).shape
        assert placement is not None, "who leaves stands somewhere"
        node_R = placement.node_R
        held_RC = chip_bits(placement.chips_R, free_milli_NC.shape[1])
        free_milli_NC[node_R] += (held_RC * np.int16(shape.share_milli)).astype(np.int16)
        cpu_milli_N[node_R] += placement.workers_R * np.int64(shape.cpu_milli)
        memory_bytes_N[node_R] += placement.workers_R * np.int64(shape.memory_bytes)
        nodes.append(node_R)
    if nodes:
        node_R = np.unique(np.concatenate(nodes))
        broken_RC = chip_bits(columns.broken_chips_N[node_R], free_milli_NC.shape[1])
        idle_chips_N[node_R] = ((free_milli_NC[node_R] == WHOLE_MILLI) & ~broken_RC).sum(axis=1)
    return replace(columns, free_milli_NC=free_milli_NC, idle_chips_N=idle_chips_N, cpu_free_milli_N=cpu_milli_N,
                   memory_free_bytes_N=memory_bytes_N,
                   open_chips_N=np.where(columns.flags_N == 0, idle_chips_N, 0).astype(np.int16))


def occupied(columns: Columns, placement: Placement, shape: Shape) -> Columns:
    """Columns once a job of whole chips stands there too."""
    node_R = placement.node_R
    held_RC = chip_bits(placement.chips_R, columns.free_milli_NC.shape[1])
    free_milli_NC, open_chips_N = columns.free_milli_NC.copy(), columns.open_chips_N.copy()
    cpu_milli_N, memory_bytes_N = columns.cpu_free_milli_N.copy(), columns.memory_free_bytes_N.copy()
    free_milli_NC[node_R] -= (held_RC * np.int16(shape.share_milli)).astype(np.int16)
    open_chips_N[node_R] -= np.bitwise_count(placement.chips_R).astype(np.int16)
    cpu_milli_N[node_R] -= placement.workers_R * np.int64(shape.cpu_milli)
    memory_bytes_N[node_R] -= placement.workers_R * np.int64(shape.memory_bytes)
    return replace(columns, free_milli_NC=free_milli_NC, open_chips_N=open_chips_N, cpu_free_milli_N=cpu_milli_N,
                   memory_free_bytes_N=memory_bytes_N)


def closed(columns: Columns, nodes: Iterable[int]) -> Columns:
    """Columns with no room on these nodes."""
    open_chips_N = columns.open_chips_N.copy()
    open_chips_N[list(nodes)] = 0
    return replace(columns, open_chips_N=open_chips_N)


def opened(columns: Columns, node_R: NDArray[np.int32]) -> Columns:
    """Columns with room on these reserved nodes and on no others."""
    node_R = node_R[columns.flags_N[node_R] == RESERVED]
    open_chips_N = np.zeros_like(columns.open_chips_N)
    open_chips_N[node_R] = columns.idle_chips_N[node_R]
    return replace(columns, open_chips_N=open_chips_N)
