"""An event queue on whole nanoseconds: the earliest first; of equal times, the one that was asked for first."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

__all__ = ["DAY_NS", "FOREVER_NS", "HOUR_NS", "SECOND_NS", "EventQueue", "nanoseconds"]

SECOND_NS = 1_000_000_000
HOUR_NS = 3600 * SECOND_NS
DAY_NS = 24 * HOUR_NS
#: Later than anything that happens (146 years).
FOREVER_NS = 2**62

What = TypeVar("What")


class EventQueue(Generic[What]):
    """What shall happen, by time. It never goes back: what is asked for in the past is our fault, not the world's."""

    __slots__ = ("_asked", "_heap", "now_ns")

    def __init__(self, now_ns: int = 0) -> None:
        self.now_ns = now_ns
        self._heap: list[tuple[int, int, What]] = []
        self._asked = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next_ns(self) -> int:
        """When the next thing happens; FOREVER_NS when nothing does."""
        return self._heap[0][0] if self._heap else FOREVER_NS

    def push(self, time_ns: int, what: What) -> None:
        """Let `what` happen at `time_ns`, after everything already asked for at that time."""
        assert time_ns >= self.now_ns, "nothing happens in the past"
        heapq.heappush(self._heap, (time_ns, self._asked, what))
        self._asked += 1

    def pop(self) -> tuple[int, What]:
        """The next thing and its time, which is now; IndexError when there is none."""
        self.now_ns, _, what = heapq.heappop(self._heap)
        return self.now_ns, what


def nanoseconds(time_s: float) -> int:
    """Seconds as whole nanoseconds, the nearest; at most FOREVER_NS."""
    return round(min(time_s * SECOND_NS, FOREVER_NS))
