"""Paged memory of one attention group: blocks in use, and prompts of the past that are found again.

A unit is a run of blocks that is kept or evicted whole: one hashed block of a trace's prompt, or all that a finished
request of a session leaves behind. Units that a running request holds are pinned; the others wait in the order of their
last use, and the longest unused are evicted when room is needed (to the host's memory where there is such a tier).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["BlockPool"]


class BlockPool:
    """Blocks of one group. used: private blocks of running requests and pinned units; the rest is free or evictable.
    taken: private blocks ever taken."""

    __slots__ = ("capacity", "evicted", "host", "host_capacity", "host_used", "idle", "idle_blocks", "peak", "pinned",
                 "taken", "unit_blocks", "unit_sizes", "used")

    def __init__(self, capacity: int, host_capacity: int, unit_blocks: int, unit_sizes: Mapping[int, int]) -> None:
        """unit_blocks: of a unit; unit_sizes: of those that have another number of them."""
        self.unit_blocks, self.unit_sizes = unit_blocks, unit_sizes
        self.capacity, self.host_capacity = capacity, host_capacity
        self.used = self.idle_blocks = self.host_used = self.evicted = self.peak = self.taken = 0
        self.pinned: dict[int, list[int]] = {}          # unit -> [holders, blocks]
        self.idle: OrderedDict[int, int] = OrderedDict()    # unit -> blocks, longest unused first
        self.host: OrderedDict[int, int] = OrderedDict()

    def room(self) -> int:
        """Blocks that can be taken, at the cost of what nobody holds."""
        return self.capacity - self.used

    def take(self, blocks: int) -> None:
        """Take private blocks; evict what nobody holds where nothing is free. There must be room."""
        self.used += blocks
        self.taken += blocks
        over = self.used + self.idle_blocks - self.capacity
        while over > 0:
            unit, blocks = self.idle.popitem(last=False)
            self.idle_blocks -= blocks
            self.evicted += blocks
            over -= blocks
            if self.host_capacity:
                self._offload(unit, blocks)
        self.peak = max(self.peak, self.used)

    def give(self, blocks: int) -> None:
        """Give private blocks back."""
        self.used -= blocks

    def found(self, units: Sequence[int]) -> tuple[int, int]:
        """How many leading units are here, and how many more after them are in the host's memory."""
        pinned, idle, host = self.pinned, self.idle, self.host
        here = 0
        for unit in units:
            if unit not in pinned and unit not in idle:
                break
            here += 1
        below = here
        if host:
            while below < len(units) and units[below] in host:
                below += 1
        return here, below - here

    def blocks_of(self, units: Iterable[int]) -> int:
        """Blocks of units that are here or in the host's memory."""
        pinned, idle, host = self.pinned, self.idle, self.host
        return sum(pinned[unit][1] if unit in pinned else idle[unit] if unit in idle else host[unit]
                   for unit in units)

    def idle_of(self, units: Iterable[int]) -> int:
        """Blocks of units that nobody holds: pinning them takes that much room."""
        return sum(self.idle.get(unit, 0) for unit in units)

    def pin(self, units: Iterable[int]) -> None:
        """Hold units that are here."""
        for unit in units:
            holders = self.pinned.get(unit)
            if holders is not None:
                holders[0] += 1
            else:
                blocks = self.idle.pop(unit)
                self.idle_blocks -= blocks
                self.used += blocks
                self.pinned[unit] = [1, blocks]
        self.peak = max(self.peak, self.used)

    def share(self, units: Iterable[int]) -> int:
        """Private blocks just computed become units that their request holds; how many blocks these are. Doubles of
        what was here already are free again."""
        shared = 0
        for unit in units:
            blocks = self.unit_sizes.get(unit, self.unit_blocks)
            shared += blocks
            if unit in self.pinned:
                self.pinned[unit][0] += 1
                self.used -= blocks
            elif unit in self.idle:
                self.idle_blocks -= self.idle.pop(unit)
                self.pinned[unit] = [1, blocks]
            else:
                self.pinned[unit] = [1, blocks]   # its blocks were private and stay used
        return shared

    def unpin(self, units: Sequence[int]) -> None:
        """Let go of units; the last of a prompt are evicted first, for they are the least likely to be shared."""
        for unit in reversed(units):
            holders = self.pinned[unit]
            holders[0] -= 1
            if not holders[0]:
                del self.pinned[unit]
                self.used -= holders[1]
                self.idle[unit] = holders[1]
                self.idle_blocks += holders[1]

    def forget_host(self, units: Iterable[int]) -> None:
        """Units that were brought up from the host's memory are not there any more."""
        for unit in units:
            self.host_used -= self.host.pop(unit, 0)

    def _offload(self, unit: int, blocks: int) -> None:
        if blocks > self.host_capacity:
            return
        self.host_used += blocks - self.host.pop(unit, 0)
        self.host[unit] = blocks
        while self.host_used > self.host_capacity:
            _, gone = self.host.popitem(last=False)
            self.host_used -= gone
