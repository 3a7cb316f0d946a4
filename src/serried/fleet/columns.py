"""The columns of a fleet's state, and per-switch counts of what is free.

Axes: N = node, C = chip of a node, K = kind, S = switch of one level, G = chips that a worker asks of one node (1..C).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serried.fleet.spec import WHOLE_MILLI, Fleet, Ints, NodeFlag

__all__ = ["DOWN", "DRAINING", "NOBODY", "RESERVED", "SHARED", "SPARE", "Columns", "bits_of", "chip_bits",
           "columns_of", "slot_rows_NL", "slots_of"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """State of every node and chip.

    free_milli_NC: shares of each chip that nobody holds; 0 where a node has no such chip. owner_NC: the job that holds
    the whole chip, NOBODY, or SHARED. flags_N: `NodeFlag`. broken_chips_N: bit c set = chip c has failed.
    idle_chips_N: healthy chips that nobody holds any share of. open_chips_N: the same where the node takes new work,
    else 0. open_share_milli_N: largest share that is free on one healthy chip of a node that takes new work, else -1.
    open_sum_milli_N: free shares of all its healthy chips, else 0.
    busy_until_ns_N: when the last job there is expected to end; 0 = idle, FAR_NS = nobody knows.
    slots_KSG: per level, innermost first, and at last the whole fleet as one switch: how many workers of G chips each
    could start there, sum over nodes of floor(open chips / G). It makes finding a switch for a gang one comparison.
    """

    free_milli_NC: NDArray[np.int16]
    owner_NC: NDArray[np.int32]
    cpu_free_milli_N: Ints
    memory_free_bytes_N: Ints
    flags_N: NDArray[np.uint8]
    broken_chips_N: NDArray[np.uint64]
    idle_chips_N: NDArray[np.int16]
    open_chips_N: NDArray[np.int16]
    open_share_milli_N: NDArray[np.int16]
    open_sum_milli_N: NDArray[np.int32]
    busy_until_ns_N: Ints
    slots_KSG: tuple[NDArray[np.int32], ...]

    def read_only(self) -> Columns:
        """The same columns, which this view cannot write."""
        views: dict[str, Any] = {one.name: _frozen(getattr(self, one.name)) for one in fields(self)
                                 if one.name != "slots_KSG"}
        return Columns(**views, slots_KSG=tuple(_frozen(level) for level in self.slots_KSG))

    def arrays(self) -> Sequence[NDArray[np.generic]]:
        """Every column, in a fixed order."""
        return [*(getattr(self, one.name) for one in fields(self) if one.name != "slots_KSG"), *self.slots_KSG]


#: `owner_NC` of a chip that no job holds, and of one that several share.
NOBODY, SHARED = -1, -2
#: `NodeFlag` in the type of `flags_N`.
DOWN, DRAINING, SPARE, RESERVED = (np.uint8(flag) for flag in NodeFlag)


def columns_of(fleet: Fleet) -> Columns:
    """The columns of an empty fleet in which everything works."""
    chips_C = np.arange(int(fleet.chip_count_N.max(initial=1)))
    exists_NC = chips_C < fleet.chip_count_N[:, None]
    idle_N = fleet.chip_count_N.astype(np.int16)
    count = fleet.node_count
    return Columns(
        free_milli_NC=np.where(exists_NC, WHOLE_MILLI, 0).astype(np.int16),
        owner_NC=np.full(exists_NC.shape, NOBODY, dtype=np.int32), cpu_free_milli_N=fleet.cpu_milli_N.copy(),
        memory_free_bytes_N=fleet.memory_bytes_N.copy(), flags_N=np.zeros(count, dtype=np.uint8),
        broken_chips_N=np.zeros(count, dtype=np.uint64), idle_chips_N=idle_N, open_chips_N=idle_N.copy(),
        open_share_milli_N=np.where(idle_N > 0, WHOLE_MILLI, 0).astype(np.int16),
        open_sum_milli_N=idle_N * np.int32(WHOLE_MILLI), busy_until_ns_N=np.zeros(count, dtype=np.int64),
        slots_KSG=slots_of(fleet, idle_N))


def slots_of(fleet: Fleet, open_chips_N: NDArray[np.int16]) -> tuple[NDArray[np.int32], ...]:
    """Count from scratch what `Columns.slots_KSG` keeps: parts of one array, row by row as `slot_rows_NL` says."""
    widest = int(fleet.chip_count_N.max(initial=1))
    rows_NL, counts_L = slot_rows_NL(fleet)
    slots_XG = np.zeros((len(fleet.kinds) * sum(counts_L), widest), dtype=np.int32)
    np.add.at(slots_XG, rows_NL, (open_chips_N[:, None] // np.arange(1, widest + 1))[:, None])
    ends = np.cumsum(counts_L)[:-1] * len(fleet.kinds)
    return tuple(part_XG.reshape(len(fleet.kinds), count, widest)
                 for part_XG, count in zip(np.split(slots_XG, ends), counts_L, strict=True))


def slot_rows_NL(fleet: Fleet) -> tuple[NDArray[np.int32], list[int]]:
    """Which rows of all levels' slots, laid end to end, a node counts in; and how many switches each level has."""
    switches_LN = (*fleet.switch_LN, np.zeros(fleet.node_count, dtype=np.int32))
    counts_L = [int(switch_N.max(initial=0)) + 1 for switch_N in switches_LN]
    starts_L = (np.cumsum([0, *counts_L[:-1]]) * len(fleet.kinds)).tolist()
    rows_NL = np.array([start + fleet.kind_N.astype(np.int32) * count + switch_N
                        for start, count, switch_N in zip(starts_L, counts_L, switches_LN, strict=True)])
    return np.ascontiguousarray(rows_NL.T.astype(np.int32)), counts_L


def chip_bits(chips_R: NDArray[np.uint64], chip_count: int) -> NDArray[np.bool_]:
    """Bits of each row as booleans RC."""
    found: NDArray[np.bool_] = (chips_R[:, None] >> np.arange(chip_count, dtype=np.uint64) & np.uint64(1)).astype(bool)
    return found


def bits_of(mask: int) -> tuple[int, ...]:
    """Positions of the bits of a mask, lowest first."""
    if mask < len(_BITS):
        return _BITS[mask]
    return tuple([bit for bit in range(mask.bit_length()) if mask >> bit & 1])


#: The same of every mask of up to eight bits: most nodes have no more chips.
_BITS = tuple(tuple(bit for bit in range(8) if mask >> bit & 1) for mask in range(256))


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
