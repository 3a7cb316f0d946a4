"""One gang from getting its chips until it gives them up or exchanges some: where that time went.

A stint begins with a restart. Then the gang works for an interval, saves, works, saves; at its own pace, which is less
than one beside a slow node. A fault under it stops everything at once; work since the last save is then lost. Every
nanosecond goes to exactly one phase.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from serried.clock import FOREVER_NS

__all__ = ["Phases", "Stint"]


@dataclass(slots=True, kw_only=True)
class Phases:
    """Nanoseconds of one stint by what they were; they add up to its length.

    saved_ns: work that will not be done again. lost_ns: work that will. slow_ns: behind the pace of sound nodes.
    hung_ns: on a fault that nobody knew of yet. broken_ns: until replacements were found or the chips given up.
    """

    restart_ns: int
    saved_ns: int
    write_ns: int
    lost_ns: int
    slow_ns: int
    hung_ns: int
    broken_ns: int


@dataclass(slots=True, kw_only=True)
class Stint:
    """work_ns: what is left to do, at full pace; needed_ns: the same with its saves. elapsed_ns: of that, done."""

    milli: int
    began_ns: int
    restart_ns: int
    work_ns: int
    interval_ns: int
    write_ns: int
    first: bool = True
    pace: float = 1.0
    elapsed_ns: int = 0
    slow_ns: int = 0
    seen_ns: int = 0
    hung_since_ns: int = -1
    broken_since_ns: int = -1
    needed_ns: int = 0
    speed_ratio: float = 1.0
    kind: int = 0

    def __post_init__(self) -> None:
        self.seen_ns = self.began_ns + self.restart_ns
        saves = (self.work_ns - 1) // self.interval_ns if self.interval_ns < self.work_ns else 0
        self.needed_ns = min(self.work_ns + saves * self.write_ns, FOREVER_NS)

    def advance(self, now_ns: int) -> None:
        """Let time pass until now."""
        gone_ns = now_ns - self.seen_ns
        if gone_ns <= 0 or self.hung_since_ns >= 0:
            return
        done_ns = gone_ns if self.pace >= 1.0 else int(gone_ns * self.pace)
        self.elapsed_ns += done_ns
        self.slow_ns += gone_ns - done_ns
        self.seen_ns = now_ns

    def end_ns(self) -> int:
        """When it will be done at the present pace."""
        left_ns = self.needed_ns - self.elapsed_ns
        return min(self.seen_ns + (left_ns if self.pace >= 1.0 else math.ceil(left_ns / self.pace)), FOREVER_NS)

    def hang(self, now_ns: int) -> None:
        """A fault strikes."""
        self.advance(now_ns)
        self.hung_since_ns = now_ns

    def close(self, now_ns: int, *, intact: bool = False) -> Phases:
        """Where its time went, until now. intact: nothing is lost (it is done, or merely not done yet)."""
        self.advance(now_ns)
        stopped_ns = self.hung_since_ns if self.hung_since_ns >= 0 else now_ns
        known_ns = self.broken_since_ns if self.broken_since_ns >= 0 else now_ns
        ready_ns = self.began_ns + self.restart_ns
        cycle_ns = self.interval_ns + self.write_ns
        saves, rest_ns = divmod(self.elapsed_ns, cycle_ns)
        lost_ns = min(rest_ns, self.interval_ns)
        write_ns = saves * self.write_ns + rest_ns - lost_ns
        saved_ns = saves * self.interval_ns + (lost_ns if intact else 0)
        return Phases(restart_ns=min(stopped_ns, ready_ns) - self.began_ns, saved_ns=saved_ns, write_ns=write_ns,
                      lost_ns=0 if intact else lost_ns, slow_ns=self.slow_ns, hung_ns=known_ns - stopped_ns,
                      broken_ns=now_ns - known_ns)
