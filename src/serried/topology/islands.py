"""Chips under one switch of an explicit graph that can send each other more than leaves them: its scale-up domains.

Axes: C = chip, L = link.
"""

from __future__ import annotations

import numpy as np

from serried.topology.spec import Bools, Floats, Graph, Indices

__all__ = ["island_chips", "leaving_bytes_per_s", "port_bytes_per_s", "thinnest_bytes_per_s"]

#: Flow is whole numbers in scipy: bandwidths are scaled to this much.
_SCALE = 1 << 24


def island_chips(graph: Graph) -> int:
    """Chips of each island, 1 where there are none: islands are equal, of consecutive chips, and thinly joined."""
    home_C = _home(graph)
    if home_C is None:
        return 1
    begins = np.flatnonzero(np.diff(home_C, prepend=-1))
    chips, ragged = divmod(graph.endpoint_count, len(begins))
    if len(begins) < 2 or chips < 2 or ragged or len(np.unique(home_C)) < len(begins) or (
            begins != np.arange(len(begins)) * chips).any():
        return 1
    return chips if thinnest_bytes_per_s(graph, chips) < chips * port_bytes_per_s(graph) * (1 - 1e-6) else 1


def thinnest_bytes_per_s(graph: Graph, chips: int) -> float:
    """What leaves the worst of the groups of `chips` consecutive ones."""
    chip = np.arange(graph.endpoint_count)
    return min(leaving_bytes_per_s(graph, chip // chips == group) for group in range(graph.endpoint_count // chips))


def port_bytes_per_s(graph: Graph) -> float:
    """What leaves a chip, the least over all."""
    return float(_sent(graph).min()) if graph.link_count else 0.0


def leaving_bytes_per_s(graph: Graph, inside_C: Bools) -> float:
    """The most that these chips together can send to the others (maximum flow)."""
    from scipy.sparse import csr_matrix  # late: a verb that reads no graph starts without it
    from scipy.sparse.csgraph import maximum_flow

    source, sink = graph.node_count, graph.node_count + 1
    width_C = _sent(graph)
    chip = np.arange(graph.endpoint_count)
    from_V = np.concatenate([graph.source_L, np.where(inside_C, source, chip)])
    to_V = np.concatenate([graph.target_L, np.where(inside_C, chip, sink)])
    wide = np.concatenate([graph.bandwidth_bytes_per_s_L, np.full(len(chip), width_C.sum())])
    scale = _SCALE / wide.max()
    matrix = csr_matrix((np.round(wide * scale).astype(np.int32), (from_V, to_V)), shape=(sink + 1, sink + 1))
    return float(maximum_flow(matrix, source, sink).flow_value / scale)


def _sent(graph: Graph) -> Floats:
    """What leaves each chip."""
    sent_V = np.bincount(graph.source_L, weights=graph.bandwidth_bytes_per_s_L, minlength=graph.node_count)
    return np.asarray(sent_V[:graph.endpoint_count], dtype=np.float64)


def _home(graph: Graph) -> Indices | None:
    """The switch at the end of each chip's widest link to any; None where a chip has none."""
    up = (graph.source_L < graph.endpoint_count) & (graph.target_L >= graph.endpoint_count)
    order = np.lexsort((graph.target_L[up], -graph.bandwidth_bytes_per_s_L[up], graph.source_L[up]))
    chip, first = np.unique(graph.source_L[up][order], return_index=True)
    return graph.target_L[up][order][first] if len(chip) == graph.endpoint_count else None
