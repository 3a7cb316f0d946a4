"""Chips change hands: what a placement takes or gives back, and what that leaves idle and open.

Most jobs stand on one node, and most of the others on whole nodes; so one node is counted in plain numbers, whole nodes
by what they were and have become, and anything else row by row.

A stretch is nodes side by side of one kind under the same switches: they count in the same rows of slots.

Axes: N = node, C = chip of a node, R = row, G = chips that a worker asks of one node (1..C), W = open chips (0..C).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serried.fleet.columns import NOBODY, SHARED, Columns, bits_of, chip_bits, slot_rows_NL
from serried.fleet.spec import WHOLE_MILLI, Fleet, Placement, Shape, Span

__all__ = ["Hands", "exchanged", "part_of"]


def exchanged(old: Placement, new: Placement) -> NDArray[np.int64] | None:
    """Rows in which two placements of one gang differ; None where they have nothing to do with each other.

    A gang of thousands of nodes exchanges a few of them when those fail: only these change hands.
    """
    if len(old.node_R) != len(new.node_R) or old.alternative != new.alternative:
        return None
    return np.flatnonzero((old.node_R != new.node_R) | (old.chips_R != new.chips_R) | (old.workers_R != new.workers_R))


def part_of(placement: Placement, rows: NDArray[np.int64]) -> Placement:
    """Some rows of a placement."""
    return Placement(node_R=placement.node_R[rows], chips_R=placement.chips_R[rows],
                     workers_R=placement.workers_R[rows], alternative=placement.alternative)


class Hands:
    """Writes the columns of nodes whose chips are taken (sign 1) or given back (sign -1)."""

    def __init__(self, fleet: Fleet, columns: Columns) -> None:
        self._columns = columns
        self._widest = int(columns.free_milli_NC.shape[1])
        self._all_chips = (1 << self._widest) - 1
        slots_WG = (np.arange(self._widest + 1)[:, None] // np.arange(1, self._widest + 1)).astype(np.int32)
        self._more_WWG = slots_WG - slots_WG[:, None]   # slots that a node gains from so many open chips to so many
        slots_XG = columns.slots_KSG[0].base
        assert slots_XG is not None, "all levels are counted in one array"
        self._slots_XG: NDArray[np.int32] = slots_XG
        self._rows_NL, _ = slot_rows_NL(fleet)
        begins_N = (self._rows_NL != np.roll(self._rows_NL, 1, axis=0)).any(axis=1)
        begins_N[0] = True
        self._stretch_N = np.cumsum(begins_N) - 1
        slots = list(slots_XG)   # a view of each row
        self._slots_of = [[slots[row] for row in rows] for rows in self._rows_NL[begins_N].tolist()]

    def change(self, number: int, shape: Shape, placement: Placement, sign: int) -> None:
        """Everything that a placement of a job names changes hands."""
        if not len(placement.node_R):
            return
        if len(placement.node_R) == 1:
            self._change_one(number, shape, placement, sign)
            return
        columns, nodes = self._columns, placement.nodes
        if shape.cpu_milli:
            columns.cpu_free_milli_N[nodes] -= sign * shape.cpu_milli * placement.workers_R.astype(np.int64)
        if shape.memory_bytes:
            columns.memory_free_bytes_N[nodes] -= sign * shape.memory_bytes * placement.workers_R.astype(np.int64)
        if shape.share_milli == WHOLE_MILLI and self._swaps_whole(placement, sign):
            self._change_whole(number, nodes, sign)
        else:
            self._change_rows(number, shape, placement, sign)

    def recount(self, node_R: NDArray[np.int32]) -> None:
        """What is idle and open on nodes, from chips and flags, and what that means to the switches above them."""
        columns = self._columns
        free_RC = columns.free_milli_NC[node_R]
        broken_R = columns.broken_chips_N[node_R]
        if np.count_nonzero(broken_R):
            free_RC[chip_bits(broken_R, self._widest)] = 0
        idle_R = np.count_nonzero(free_RC == WHOLE_MILLI, axis=1)
        takes_R = columns.flags_N[node_R] == 0
        columns.idle_chips_N[node_R] = idle_R
        columns.open_share_milli_N[node_R] = np.where(takes_R, free_RC.max(axis=1), -1)
        columns.open_sum_milli_N[node_R] = np.where(takes_R, free_RC.sum(axis=1), 0)
        open_R = np.where(takes_R, idle_R, 0)
        delta_RG = self._more_WWG[columns.open_chips_N[node_R], open_R]
        columns.open_chips_N[node_R] = open_R
        np.add.at(self._slots_XG, self._rows_NL[node_R], delta_RG[:, None])

    def _swaps_whole(self, placement: Placement, sign: int) -> bool:
        """Whether all chips of every node were open and are no more, or the reverse: then nothing need be counted.

        What is given back whole was not open, and is if its node takes work and its chips are sound.
        """
        columns, nodes = self._columns, placement.nodes
        if np.count_nonzero(placement.chips_R != self._all_chips):
            return False
        if sign > 0:
            return not np.count_nonzero(columns.open_chips_N[nodes] != self._widest)
        return not (np.count_nonzero(columns.flags_N[nodes]) or np.count_nonzero(columns.broken_chips_N[nodes]))

    def _change_whole(self, number: int, nodes: Span, sign: int) -> None:
        columns, idle = self._columns, 0 if sign > 0 else self._widest
        columns.owner_NC[nodes] = number if sign > 0 else NOBODY
        columns.idle_chips_N[nodes] = columns.open_chips_N[nodes] = idle
        columns.free_milli_NC[nodes] = columns.open_share_milli_N[nodes] = WHOLE_MILLI if idle else 0
        columns.open_sum_milli_N[nodes] = idle * WHOLE_MILLI
        stretch_R, delta_G = self._stretch_N[nodes], self._more_WWG[self._widest - idle, idle]
        begin = 0
        for end in (*((stretch_R[1:] != stretch_R[:-1]).nonzero()[0] + 1).tolist(), len(stretch_R)):
            gained_G, begin, stretch = (end - begin) * delta_G, end, stretch_R.item(begin)
            for slots_G in self._slots_of[stretch]:
                slots_G += gained_G

    def _change_rows(self, number: int, shape: Shape, placement: Placement, sign: int) -> None:
        columns, node_R = self._columns, placement.node_R
        held_RC = chip_bits(placement.chips_R, self._widest)
        columns.free_milli_NC[node_R] -= (held_RC * np.int16(sign * shape.share_milli)).astype(np.int16)
        owner_RC = columns.owner_NC[node_R]
        if shape.share_milli == WHOLE_MILLI:
            owner_RC[held_RC] = number if sign > 0 else NOBODY
        else:
            owner_RC[held_RC] = np.where(columns.free_milli_NC[node_R][held_RC] == WHOLE_MILLI, NOBODY, SHARED)
        columns.owner_NC[node_R] = owner_RC
        self.recount(node_R)

    def _change_one(self, number: int, shape: Shape, placement: Placement, sign: int) -> None:
        columns, share_milli = self._columns, sign * shape.share_milli
        node, chips, workers = placement.node_R.item(), placement.chips_R.item(), placement.workers_R.item()
        free_row_C, owner_C = columns.free_milli_NC[node], columns.owner_NC[node]
        free_C: list[int] = free_row_C.tolist()
        if shape.share_milli == WHOLE_MILLI and chips == self._all_chips:
            free_C = [0 if sign > 0 else WHOLE_MILLI] * self._widest
            free_row_C.fill(free_C[0])
            owner_C.fill(number if sign > 0 else NOBODY)
        else:
            whole, owner = shape.share_milli == WHOLE_MILLI, number if sign > 0 else NOBODY
            for chip in bits_of(chips):
                free_row_C[chip] = free_C[chip] = free_C[chip] - share_milli
                owner_C[chip] = owner if whole else NOBODY if free_C[chip] == WHOLE_MILLI else SHARED
        if shape.cpu_milli:
            columns.cpu_free_milli_N[node] -= sign * workers * shape.cpu_milli
        if shape.memory_bytes:
            columns.memory_free_bytes_N[node] -= sign * workers * shape.memory_bytes
        self._recount_one(node, free_C)

    def _recount_one(self, node: int, free_C: list[int]) -> None:
        """The same as `recount` in plain numbers."""
        columns = self._columns
        broken = columns.broken_chips_N.item(node)
        if broken:
            free_C = [0 if broken >> chip & 1 else free for chip, free in enumerate(free_C)]
        idle = free_C.count(WHOLE_MILLI)
        takes = not columns.flags_N.item(node)
        before, after = columns.open_chips_N.item(node), idle if takes else 0
        columns.idle_chips_N[node] = idle
        columns.open_share_milli_N[node] = max(free_C) if takes else -1
        columns.open_sum_milli_N[node] = sum(free_C) if takes else 0
        if after != before:
            columns.open_chips_N[node] = after
            gained_G = self._more_WWG[before, after]
            for slots_G in self._slots_of[self._stretch_N.item(node)]:
                slots_G += gained_G
