"""How fast could any schedule be on these wires? Cuts say: what must leave a set of endpoints, over what can.

Times are per byte of the whole buffer. Axes: V = node, E = directed wire.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog
from scipy.sparse import csr_array, csr_matrix, vstack
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from serried.weave.wires import Wires

__all__ = ["all_reduce_bound", "broadcast_bound", "gather_bound"]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
#: Flow is whole numbers in scipy: capacities are scaled to this much.
_SCALE = 1 << 26


def _least_cut(graph: Wires, capacity_E: Floats, supply_V: Floats, target: int) -> tuple[float, Flags]:
    """(value, source side) of the least cut between a source that feeds every endpoint and `target`."""
    nodes = graph.node_count
    scale = _SCALE / max(float(capacity_E.max()), float(supply_V.max()))
    fed = np.flatnonzero(supply_V > 0)
    source = np.concatenate([graph.source_E, np.full(len(fed), nodes)])
    reach = np.concatenate([graph.target_E, fed])
    whole = np.round(np.concatenate([capacity_E, supply_V[fed]]) * scale).astype(np.int32)
    matrix = csr_matrix((whole, (source, reach)), shape=(nodes + 1, nodes + 1))
    flow = maximum_flow(matrix, nodes, target)
    left = csr_matrix(matrix - flow.flow)
    left.data = np.maximum(left.data, 0)
    left.eliminate_zeros()
    side_V = np.zeros(nodes + 1, dtype=bool)
    side_V[breadth_first_order(left, nodes, return_predecessors=False)] = True
    return flow.flow_value / scale, side_V[:nodes]


def _leaving(graph: Wires, side_V: Flags) -> Flags:
    return side_V[graph.source_E] & ~side_V[graph.target_E]


def reverse(graph: Wires) -> Wires:
    """The same wires the other way round."""
    return replace(graph, source_E=graph.target_E, target_E=graph.source_E)


def gather_bound(graph: Wires) -> float:
    """Least time of an all-gather per byte gathered: the worst cut, what must leave it over its bandwidth.

    Newton's method on the ratio (Dinkelbach): a cut that is too thin for the present rate gives the next, lower rate.
    """
    count, bandwidth_E = graph.endpoint_count, graph.bandwidth_bytes_per_s_E
    share_V = np.where(np.arange(graph.node_count) < count, 1.0 / count, 0.0)
    worst = 0.0
    for target in range(count):
        side_V = np.arange(graph.node_count) != target
        worst = max(worst, share_V[side_V].sum() / bandwidth_E[_leaving(graph, side_V)].sum())
    while True:
        found = worst
        for target in range(count):
            value, side_V = _least_cut(graph, bandwidth_E * worst, share_V, target)
            if value < 1.0 - 1e-6 and side_V[:count].any():
                found = max(found, share_V[side_V].sum() / bandwidth_E[_leaving(graph, side_V)].sum())
        if found <= worst * (1 + 1e-9):
            return float(worst)
        worst = found


def broadcast_bound(graph: Wires, root: int) -> float:
    """Least time of a broadcast per byte: the thinnest cut between the root and anyone (Edmonds)."""
    supply_V = np.zeros(graph.node_count)
    supply_V[root] = graph.bandwidth_bytes_per_s_E.sum()
    return 1.0 / min(_least_cut(graph, graph.bandwidth_bytes_per_s_E, supply_V, target)[0]
                     for target in range(graph.endpoint_count) if target != root)


def all_reduce_bound(graph: Wires, *, gap: float = 1e-3, rounds: int = 60) -> float:
    """Least time of an all-reduce per byte: sums are gathered at roots and spread again, and both share the wires.

    A linear programme over the wires: least time T such that spread_E + gather_E <= T bandwidth_E, where what leaves
    any set of endpoints at least carries the roots inside, and what enters it too. A switch passes on what it gets and
    copies nothing. Cuts are added where flows find them
    violated, between the programme's answer and the best that is known to do; every round's answer is a lower bound.
    """
    count, wires = graph.endpoint_count, len(graph.source_E)
    bandwidth_E = graph.bandwidth_bytes_per_s_E / graph.bandwidth_bytes_per_s_E.mean()
    back = reverse(graph)
    # Columns: spread_E, gather_E, root weight, T.
    capacity = csr_array((np.concatenate([np.ones(2 * wires), -bandwidth_E]),
                          (np.tile(np.arange(wires), 3), np.concatenate([np.arange(2 * wires), np.full(
                              wires, 2 * wires + count)]))), shape=(wires, 2 * wires + count + 1))
    rows: list[Floats] = []

    def cut(side_V: Flags, *, spreads: bool) -> None:
        row = np.zeros(2 * wires + count + 1)
        row[2 * wires:2 * wires + count] = side_V[:count]
        crossing = _leaving(graph if spreads else back, side_V)
        row[(0 if spreads else wires) + np.flatnonzero(crossing)] = -1.0
        rows.append(row)

    for target in range(count):
        for spreads in (True, False):
            cut(np.arange(graph.node_count) != target, spreads=spreads)
    equal = _switches_pass_on(graph, 2 * wires + count + 1)
    equal[0, 2 * wires:2 * wires + count] = 1.0
    whole = np.eye(1, len(equal))[0]
    least = np.zeros(2 * wires + count + 1)
    least[-1] = 1.0
    inner, low, high = np.concatenate([bandwidth_E / 2, bandwidth_E / 2, np.full(count, 1.0 / count)]), 0.0, np.inf
    halves = bool(np.abs(equal[1:, :-1] @ inner).max(initial=0.0) < 1e-9)    # else no candidate yet
    for _ in range(rounds):
        solved = linprog(least, A_ub=vstack([capacity, csr_array(np.stack(rows))]), b_ub=np.zeros(wires + len(rows)),
                         A_eq=csr_array(equal), b_eq=whole, method="highs")
        low = float(solved.fun)
        outer = solved.x[:-1] / np.concatenate([np.full(2 * wires, low), np.ones(count)])
        scaled = outer if not np.isfinite(high) and not halves else inner if not np.isfinite(high) else (
            inner + outer) / 2
        need = 0.0
        for spreads, flow_E, view in ((True, scaled[:wires], graph), (False, scaled[wires:2 * wires], back)):
            weight_V = np.zeros(graph.node_count)
            weight_V[:count] = scaled[2 * wires:2 * wires + count]
            for target in range(count):
                side_V, ratio = _tightest(view, flow_E, weight_V, target, low)
                need = max(need, ratio)
                if ratio > low * (1 + gap / 2):
                    cut(side_V, spreads=spreads)
        if need < high:
            high, inner = need, scaled
        if high <= low * (1 + gap):
            break
    return low / float(graph.bandwidth_bytes_per_s_E.mean())


def _switches_pass_on(graph: Wires, columns: int) -> Floats:
    """Rows that say that a switch spreads, and gathers, as much as it gets; a first row is left empty."""
    switches = graph.node_count - graph.endpoint_count
    rows = np.zeros((1 + 2 * switches, columns))
    for wire, ends in enumerate(zip(graph.source_E.tolist(), graph.target_E.tolist(), strict=True)):
        for sign, node in zip((-1.0, 1.0), ends, strict=True):
            if node >= graph.endpoint_count:
                rows[1 + node - graph.endpoint_count, wire] += sign
                rows[1 + switches + node - graph.endpoint_count, len(graph.source_E) + wire] += sign
    return rows


def _tightest(graph: Wires, flow_E: Floats, weight_V: Floats, target: int, start: float) -> tuple[Flags, float]:
    """(side, time) of the cut that asks for the longest time when flow_E passes in a unit of time."""
    worst, kept_V = start, np.arange(graph.node_count) != target
    for _ in range(20):
        value, side_V = _least_cut(graph, flow_E * worst, weight_V, target)
        passing = flow_E[_leaving(graph, side_V)].sum()
        if value >= 1.0 - 1e-6:
            break
        if passing <= 0:
            return side_V, np.inf
        ratio = float(weight_V[side_V].sum() / passing)
        if ratio <= worst * (1 + 1e-9):
            break
        worst, kept_V = ratio, side_V
    return kept_V, worst
