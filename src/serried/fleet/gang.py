"""Where a gang goes: all of it, under as few switches as can be, or nowhere.

The counts of free slots by switch (`Columns.slots_KSG`) find the switch without looking at nodes: the innermost level
at which one switch holds the whole gang, and there the switch that it fills best. Inside, and again inside each of
those, the fewest switches that suffice are filled, the last one the tightest that does. Only the chosen leaves' nodes
are looked at. Rows come out in the order of nodes, so neighbours in rank are neighbours on the wires.

A gang is counted in units: single workers, or islands of workers that must not straddle two innermost switches.
Axes: S = switch of one level, N = node, R = row of a placement, C = chip.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serried.fleet.columns import Columns, chip_bits
from serried.fleet.spec import WHOLE_MILLI, Alternative, Fleet, Placement, Shape

__all__ = ["Switches", "cover", "place_gang", "rows_on", "switches_of"]

Counts = NDArray[np.signedinteger[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Switches:
    """The tree of switches as ranges: level l's switch s has nodes first_node[l][s] to first_node[l][s + 1], and its
    switches one level further in are first_child[l][s] to first_child[l][s + 1]. The last level is the fleet itself."""

    first_node: tuple[Counts, ...]
    first_child: tuple[Counts, ...]

    @property
    def level_count(self) -> int:
        """Levels, the fleet itself included."""
        return len(self.first_node)


def switches_of(fleet: Fleet) -> Switches:
    """Ranges of every level; the fleet's nodes are sorted by switch."""
    node_count = fleet.node_count
    first_node = [np.append(np.flatnonzero(np.diff(switch_N, prepend=-1)), node_count) for switch_N in fleet.switch_LN]
    first_node.append(np.array([0, node_count]))
    first_child = [first_node[0]] + [np.searchsorted(inner, outer) for inner, outer in
                                     itertools.pairwise(first_node)]
    return Switches(first_node=tuple(first_node), first_child=tuple(first_child))


def place_gang(fleet: Fleet, switches: Switches, columns: Columns, shape: Shape, alternative: int, *,
               recount: bool = False, today: Columns | None = None) -> Placement | None:
    """The whole gang on chips of one kind, or None.

    recount: count by switch from the nodes, for columns whose `slots_KSG` are not theirs (what a plan would make of
    a state). today: take the switch with the most room in these columns, not the tightest.
    """
    chosen = shape.alternatives[alternative]
    found: tuple[int, Placement] | None = None
    widest = columns.free_milli_NC.shape[1]
    for kind in chosen.kinds if chosen.chips_per_worker <= widest else ():
        capacity = (_exact_capacity(fleet, switches, columns, shape, chosen, kind) if recount else
                    _capacity(switches, columns, shape, chosen, kind))
        room = capacity if today is None else [-open_S for open_S in _exact_capacity(
            fleet, switches, today, shape, chosen, kind)]
        level, placement = _place_on_kind(fleet, switches, columns, shape, alternative, kind, (capacity, room))
        if placement is not None and (found is None or level < found[0]):
            found = level, placement
    return None if found is None else found[1]


def _place_on_kind(fleet: Fleet, switches: Switches, columns: Columns, shape: Shape, alternative: int, kind: int,
                   counts: tuple[list[Counts], list[Counts]]) -> tuple[int, Placement | None]:
    """Innermost level whose one switch holds the gang, and the placement there, under the switch of least `room`."""
    capacity, room = counts
    one = shape.alternatives[alternative]
    unit = max(shape.island_workers, 1)
    needed = one.worker_count // unit
    outermost = shape.level if shape.level_required else switches.level_count - 1
    while (best := _switch(capacity, room, outermost, needed)) is not None:
        rows = _fill(fleet, switches, columns, shape, one, kind, best, needed, capacity)
        if rows is not None:
            return best[0], rows_on(columns, *rows, one, alternative)
        # the chips were there, CPU or memory was not: count again, node by node
        capacity = room = _exact_capacity(fleet, switches, columns, shape, one, kind)
    return -1, None


def _switch(capacity: list[Counts], room: list[Counts], outermost: int, needed: int) -> tuple[int, int] | None:
    """Innermost level with a switch that holds so much, and there the first of least room."""
    for level in range(outermost + 1):
        fits_S = (capacity[level] >= needed).nonzero()[0]
        if len(fits_S):
            return level, int(fits_S[room[level][fits_S].argmin()])
    return None


def _capacity(switches: Switches, columns: Columns, shape: Shape, one: Alternative, kind: int) -> list[Counts]:
    """Units that each switch of each level could take by its chips."""
    grain = one.chips_per_worker - 1
    if shape.island_workers <= 1 and not shape.spread_workers:
        return [slots_KSG[kind, :, grain] for slots_KSG in columns.slots_KSG]
    return _summed(switches, columns.slots_KSG[0][kind, :, grain].astype(np.int64), shape)


def _exact_capacity(fleet: Fleet, switches: Switches, columns: Columns, shape: Shape, one: Alternative,
                    kind: int) -> list[Counts]:
    workers_N = _workers_on(fleet, columns, shape, one, kind, slice(None))
    return _summed(switches, np.add.reduceat(workers_N, switches.first_node[0][:-1]), shape)


def _summed(switches: Switches, workers_S: Counts, shape: Shape) -> list[Counts]:
    """From workers by innermost switch to units by every level, islands kept whole and failure domains kept apart."""
    unit = max(shape.island_workers, 1)
    counts = [workers_S // unit]
    for level in range(switches.level_count):
        if level:
            counts.append(np.add.reduceat(counts[-1], switches.first_child[level][:-1]))
        if shape.spread_workers and shape.spread_level == level:
            counts[level] = np.minimum(counts[level], shape.spread_workers // unit)
    return counts


def _workers_on(fleet: Fleet, columns: Columns, shape: Shape, one: Alternative, kind: int,
                nodes: slice) -> Counts:
    """Workers that each node of a range could take by chips, CPU and memory."""
    workers_N = (columns.open_chips_N[nodes] // max(one.chips_per_worker, 1)).astype(np.int64)
    if shape.cpu_milli:
        workers_N = np.minimum(workers_N, columns.cpu_free_milli_N[nodes] // shape.cpu_milli)
    if shape.memory_bytes:
        workers_N = np.minimum(workers_N, columns.memory_free_bytes_N[nodes] // shape.memory_bytes)
    of_kind_N: Counts = workers_N * (fleet.kind_N[nodes] == kind)
    return of_kind_N


def _fill(fleet: Fleet, switches: Switches, columns: Columns, shape: Shape, one: Alternative, kind: int,
          where: tuple[int, int], needed: int, capacity: list[Counts]) -> tuple[Counts, Counts] | None:
    """Nodes and workers on them for `needed` units under one (level, switch); None when CPU or memory falls short."""
    level, switch = where
    unit = max(shape.island_workers, 1)
    if level == 0:
        first, end = switches.first_node[0][switch:switch + 2]
        chosen, taken = cover(_workers_on(fleet, columns, shape, one, kind, slice(first, end)), needed * unit)
        return None if chosen is None else (chosen + first, taken)
    first, end = switches.first_child[level][switch:switch + 2]
    chosen, taken = cover(capacity[level - 1][first:end], needed)
    if chosen is None:
        return None
    node_parts, worker_parts = [], []
    for child, units in zip((chosen + first).tolist(), taken.tolist(), strict=True):
        rows = _fill(fleet, switches, columns, shape, one, kind, (level - 1, child), units, capacity)
        if rows is None:
            return None
        node_parts.append(rows[0])
        worker_parts.append(rows[1])
    return np.concatenate(node_parts), np.concatenate(worker_parts)


def cover(capacity_X: Counts, needed: int) -> tuple[Counts, Counts] | tuple[None, Counts]:
    """The fewest places that hold `needed`: the largest ones full, and last the tightest that takes the rest.

    Returns the places in ascending order and what each takes, or None when all together hold too little.
    """
    if needed <= np.count_nonzero(capacity_X) and not np.count_nonzero(capacity_X > 1):   # all alike: the first of them
        chosen = capacity_X.nonzero()[0][:needed]
        return chosen, capacity_X[chosen]
    order = (-capacity_X).argsort(kind="stable")
    sorted_X = capacity_X[order]
    reached_X = sorted_X.cumsum()
    if not len(order) or reached_X[-1] < needed:
        return None, reached_X
    full = reached_X.searchsorted(needed).item()   # so many are filled to the brim before the last one
    rest = needed - (reached_X.item(full - 1) if full else 0)
    falling_X = -sorted_X
    last = falling_X.searchsorted(-rest, side="right").item() - 1
    last = falling_X.searchsorted(falling_X[last]).item()   # the first of the equally tight ones
    chosen, taken = order[:full + 1], sorted_X[:full + 1]
    chosen[full], taken[full] = order[max(last, full)], rest
    ascending = chosen.argsort()
    return chosen[ascending], taken[ascending]


def rows_on(columns: Columns, node_R: Counts, workers_R: Counts, one: Alternative, alternative: int) -> Placement:
    """So many workers on each node, on its first idle chips."""
    asked_R, widest = workers_R * one.chips_per_worker, columns.free_milli_NC.shape[1]
    if not np.count_nonzero(asked_R != widest):   # whole nodes
        chips_R = np.full(len(node_R), (1 << widest) - 1, dtype=np.uint64)
    else:
        idle_RC = columns.free_milli_NC[node_R] == WHOLE_MILLI
        idle_RC &= ~chip_bits(columns.broken_chips_N[node_R], widest)
        taken_RC = idle_RC & (idle_RC.cumsum(axis=1) <= asked_R[:, None])
        chips_R = (taken_RC.astype(np.uint64) << np.arange(widest, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
    return Placement(node_R=node_R.astype(np.int32), chips_R=chips_R, workers_R=workers_R.astype(np.int32),
                     alternative=alternative)
