"""Chips change hands: what a placement takes or gives back, and what that leaves idle and open.

Most jobs stand on one node, and most of the others on whole nodes; so one node is counted in plain numbers, whole nodes
by what they were and have become, and anything else row by row.

Axes: N = node, C = chip of a node, R = row, G = chips that a worker asks of one node (0..C).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serried.fleet.columns import NOBODY, SHARED, Columns, bits_of, chip_bits, slot_rows_NL
from serried.fleet.spec import WHOLE_MILLI, Fleet, Placement, Shape

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
        self._slots_WG = (np.arange(self._widest + 1)[:, None] // np.arange(1, self._widest + 1)).astype(np.int32)
        slots_XG = columns.slots_KSG[0].base
        assert slots_XG is not None, "all levels are counted in one array"
        self._slots_XG: NDArray[np.int32] = slots_XG
        self._rows_NL, _ = slot_rows_NL(fleet)

    def change(self, number: int, shape: Shape, placement: Placement, sign: int) -> None:
        """Everything that a placement of a job names changes hands."""
        node_R, chips_R = placement.node_R, placement.chips_R
        if not len(node_R):
            return
        if len(node_R) == 1:
            self._change_one(number, shape, placement, sign)
            return
        columns = self._columns
        if shape.cpu_milli:
            columns.cpu_free_milli_N[node_R] -= sign * shape.cpu_milli * placement.workers_R.astype(np.int64)
        if shape.memory_bytes:
            columns.memory_free_bytes_N[node_R] -= sign * shape.memory_bytes * placement.workers_R.astype(np.int64)
        if shape.share_milli == WHOLE_MILLI and not np.count_nonzero(chips_R != self._all_chips) and (
                not np.count_nonzero(columns.broken_chips_N[node_R])):
            self._change_whole(number, node_R, sign)
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
        delta_RG = self._slots_WG[open_R] - self._slots_WG[columns.open_chips_N[node_R]]
        columns.open_chips_N[node_R] = open_R
        np.add.at(self._slots_XG, self._rows_NL[node_R], delta_RG[:, None])

    def _change_whole(self, number: int, node_R: NDArray[np.int32], sign: int) -> None:
        """Sound nodes, all chips of each: where they were open and are no more, or the reverse, nothing is counted."""
        columns, idle = self._columns, 0 if sign > 0 else self._widest
        first, count = node_R.item(0), len(node_R)
        side_by_side = node_R.item(-1) - first + 1 == count and not np.count_nonzero(node_R[1:] <= node_R[:-1])
        nodes: slice | NDArray[np.int32] = slice(first, first + count) if side_by_side else node_R
        columns.free_milli_NC[nodes] = 0 if sign > 0 else WHOLE_MILLI
        columns.owner_NC[nodes] = number if sign > 0 else NOBODY
        if np.count_nonzero(columns.flags_N[nodes]) or np.count_nonzero(columns.open_chips_N[nodes] == idle):
            self.recount(node_R)
            return
        columns.idle_chips_N[nodes] = columns.open_chips_N[nodes] = idle
        columns.open_share_milli_N[nodes] = WHOLE_MILLI if idle else 0
        columns.open_sum_milli_N[nodes] = idle * WHOLE_MILLI
        delta_G, rows_RL = -sign * self._slots_WG[self._widest], self._rows_NL[nodes]
        if np.count_nonzero(rows_RL != rows_RL[0]):
            np.add.at(self._slots_XG, rows_RL, delta_G)
        else:   # of one kind, under the same switches
            self._slots_XG[rows_RL[0]] += count * delta_G

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
        free_C: list[int] = columns.free_milli_NC[node].tolist()
        owner_C = columns.owner_NC[node]
        if shape.share_milli == WHOLE_MILLI and chips == self._all_chips:
            free_C = [0 if sign > 0 else WHOLE_MILLI] * self._widest
            owner_C[:] = number if sign > 0 else NOBODY
        else:
            whole, owner = shape.share_milli == WHOLE_MILLI, number if sign > 0 else NOBODY
            for chip in _BITS[chips] if chips < len(_BITS) else bits_of(chips):
                free_C[chip] -= share_milli
                owner_C[chip] = owner if whole else NOBODY if free_C[chip] == WHOLE_MILLI else SHARED
        columns.free_milli_NC[node] = free_C
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
            delta_G = self._slots_WG[after] - self._slots_WG[before]
            for row in self._rows_NL[node].tolist():   # a few levels: quicker one by one
                self._slots_XG[row] += delta_G


#: Chips of every mask of up to eight.
_BITS = tuple(bits_of(mask) for mask in range(256))
