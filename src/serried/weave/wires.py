"""The wires that a schedule is fitted to: a topology's explicit graph, with parallel links added up.

Axes: V = node (endpoints first), E = directed wire.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from serried.errors import BadInput
from serried.topology import explicit_graph, read_topology

__all__ = ["Wires", "read_wires", "wires"]

_MOST_ENDPOINTS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Wires:
    """Endpoints are nodes 0 to endpoint_count - 1; bandwidth is per direction; parallel wires are added up."""

    name: str
    node_names: tuple[str, ...]
    endpoint_count: int
    source_E: npt.NDArray[np.int64]
    target_E: npt.NDArray[np.int64]
    bandwidth_bytes_per_s_E: npt.NDArray[np.float64]
    latency_s_E: npt.NDArray[np.float64]

    @property
    def node_count(self) -> int:
        """Endpoints and switches."""
        return len(self.node_names)


def wires(name: str, node_names: tuple[str, ...], endpoint_count: int,
          links: list[tuple[int, int, float, float]], *, file: str = "") -> Wires:
    """Wires from (source, target, bandwidth in bytes/s, latency in s); BadInput when an endpoint is cut off."""
    merged: dict[tuple[int, int], tuple[float, float]] = {}
    for source, target, bandwidth, latency in links:
        had = merged.get((source, target), (0.0, 0.0))
        merged[(source, target)] = had[0] + bandwidth, max(had[1], latency)
    ends = np.asarray(sorted(merged), dtype=np.int64).reshape(-1, 2)
    figures = np.asarray([merged[end] for end in sorted(merged)], dtype=np.float64).reshape(-1, 2)
    graph = csr_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(node_names), len(node_names)))
    _, part = connected_components(graph, directed=True, connection="strong")
    lone = np.flatnonzero(part[:endpoint_count] != part[0])
    if len(lone):
        raise BadInput(file=file, field="link", value=node_names[lone[0]], expected="endpoints that can all reach each "
                       f"other, but no wires lead from {node_names[0]} to {node_names[lone[0]]} and back",
                       remedy="Add the link that is missing, or leave the endpoint out.")
    return Wires(name=name, node_names=node_names, endpoint_count=endpoint_count, source_E=ends[:, 0],
                 target_E=ends[:, 1], bandwidth_bytes_per_s_E=figures[:, 0], latency_s_E=figures[:, 1])


def read_wires(path: Path) -> Wires:
    """The wires of a topology file, generated or explicit, less what it says is out of order.

    Raises BadInput with the field that cannot be used, or for a fabric that is too large to fit a schedule to.
    """
    graph = explicit_graph(read_topology(path))
    if not 2 <= graph.endpoint_count <= _MOST_ENDPOINTS:
        raise BadInput(file=str(path), field="chips", value=graph.endpoint_count,
                       expected=f"2 to {_MOST_ENDPOINTS} endpoints", remedy="Fit a schedule to one part of the fabric.")
    return wires(graph.name, graph.node_names, graph.endpoint_count, list(zip(
        graph.source_L.tolist(), graph.target_L.tolist(), graph.bandwidth_bytes_per_s_L.tolist(),
        graph.latency_s_L.tolist(), strict=True)), file=str(path))
