"""Gangs whose nodes failed, or are to be emptied: those nodes' workers go elsewhere, the rest of the gang stays.

Axes: R = row of a placement, N = node.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serried.fleet.columns import DOWN, DRAINING, SPARE
from serried.fleet.gang import rows_on
from serried.fleet.snapshot import Snapshot
from serried.fleet.spec import WHOLE_MILLI, Fleet, Placement, Shape

__all__ = ["lame_rows", "mended"]


def lame_rows(snapshot: Snapshot, placement: Placement, *, draining: bool = False) -> NDArray[np.int64]:
    """Rows that stand on nodes or chips that are down (or, `draining`, on nodes to be emptied)."""
    columns, node_R = snapshot.columns, placement.node_R
    if draining:
        return np.flatnonzero(columns.flags_N[node_R] & DRAINING)
    return np.flatnonzero((columns.flags_N[node_R] & DOWN != 0) | (
        columns.broken_chips_N[node_R] & placement.chips_R != 0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Search:
    """What a substitute for any row must satisfy, and which nodes do so far."""

    fleet: Fleet
    shape: Shape
    usable_N: NDArray[np.bool_]


def mended(snapshot: Snapshot, number: int, lame_R: NDArray[np.int64]) -> Placement | None:
    """The placement with every lame row on another node, all at once, or None where one of them finds none.

    A substitute has the row's kind and room, is open or a hot spare, and keeps what the shape requires of switches. The
    nearest by switches is taken, a spare before an open node, the tightest fit, the lowest number.
    """
    placement, job = snapshot.placement(number), snapshot.job(number)
    assert placement is not None, "who is mended stands somewhere"
    if not len(lame_R):
        return placement
    if job.shape.share_milli < WHOLE_MILLI or not placement.chips_R.all():
        return None
    columns, one = snapshot.columns, job.shape.alternatives[placement.alternative]
    usable_N = (columns.flags_N & ~SPARE == 0) & (columns.idle_chips_N > 0)
    usable_N[placement.node_R] = False
    search = _Search(fleet=snapshot.fleet, shape=job.shape, usable_N=usable_N)
    node_R = placement.node_R.copy()
    for row in lame_R.tolist():
        node = _substitute(snapshot, search, placement, node_R, row, lame_R)
        if node is None:
            return None
        node_R[row] = node
        search.usable_N[node] = False
    fresh = rows_on(columns, node_R[lame_R].astype(np.int64), placement.workers_R[lame_R].astype(np.int64), one,
                    placement.alternative)
    chips_R = placement.chips_R.copy()
    chips_R[lame_R] = fresh.chips_R
    return Placement(node_R=node_R, chips_R=chips_R, workers_R=placement.workers_R, alternative=placement.alternative)


def _substitute(snapshot: Snapshot, search: _Search, placement: Placement, node_R: NDArray[np.int32], row: int,
                lame_R: NDArray[np.int64]) -> int | None:
    """The node for one row, given where the others stand now."""
    fleet, shape, columns = search.fleet, search.shape, snapshot.columns
    chips, workers = int(placement.chips_R[row]).bit_count(), int(placement.workers_R[row])
    nodes = np.flatnonzero(search.usable_N & (columns.idle_chips_N >= chips))
    nodes = nodes[fleet.kind_N[nodes] == fleet.kind_N[placement.node_R[row]]]
    if shape.cpu_milli or shape.memory_bytes:
        nodes = nodes[(columns.cpu_free_milli_N[nodes] >= workers * shape.cpu_milli)
                      & (columns.memory_free_bytes_N[nodes] >= workers * shape.memory_bytes)]
    sound_R = np.delete(np.arange(len(node_R)), lame_R[lame_R >= row])   # rows mended before count as sound
    nodes = nodes[_allowed(search, placement, node_R, row, sound_R, nodes)]
    if not len(nodes):
        return None
    for switch_N in fleet.switch_LN:   # the innermost switch that has any
        near = switch_N[nodes] == switch_N[placement.node_R[row]]
        if np.count_nonzero(near):
            nodes = nodes[near]
            break
    spare = columns.flags_N[nodes] == SPARE
    nodes = nodes[spare] if np.count_nonzero(spare) else nodes
    return int(nodes[columns.idle_chips_N[nodes].argmin()])


def _allowed(search: _Search, placement: Placement, node_R: NDArray[np.int32], row: int, sound_R: NDArray[np.int64],
             nodes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which nodes keep the gang under its required switch, its islands whole and its failure domains apart."""
    shape, switch_LN = search.shape, search.fleet.switch_LN
    allowed_X = np.ones(len(nodes), dtype=bool)
    if shape.level_required and shape.level < len(switch_LN):
        home = node_R[sound_R[0]] if len(sound_R) else node_R[row]
        allowed_X &= switch_LN[shape.level][nodes] == switch_LN[shape.level][home]
    if shape.island_workers > 1 and len(switch_LN):
        allowed_X &= switch_LN[0][nodes] == switch_LN[0][placement.node_R[row]]
    if shape.spread_workers and 0 <= shape.spread_level < len(switch_LN):
        switch_N = switch_LN[shape.spread_level]
        load_S = np.bincount(switch_N[node_R[sound_R]], weights=placement.workers_R[sound_R],
                             minlength=int(switch_N[nodes].max(initial=0)) + 1)
        allowed_X &= load_S[switch_N[nodes]] + placement.workers_R[row] <= shape.spread_workers
    return allowed_X
