"""Is a running gang well? From the beats of its ranks: who hangs, who straggles."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from serried.clock import SECOND_NS
from serried.control.spec import Health
from serried.runners import RankSeen

__all__ = ["Watch", "hanging"]

#: So many slow steps in a row make a straggler; one may be chance.
_SLOW_STEPS = 3


def hanging(health: Health, ranks: Mapping[int, RankSeen], running_ns: int, now_ns: int) -> str:
    """Which rank has been silent for too long, as a sentence; "" when none has.

    running_ns: since when all ranks run; a rank that never gave a beat has `start_s` from then on.
    """
    if health.heartbeat_s <= 0:
        return ""
    for rank, seen in sorted(ranks.items()):
        since_ns, allowed_s = (running_ns, health.start_s) if seen.beat is None else (
            max(seen.beat.heard_ns, running_ns), health.heartbeat_s)
        if now_ns - since_ns > allowed_s * SECOND_NS:
            return f"rank {rank} gave no beat for {(now_ns - since_ns) / SECOND_NS:.1f} s: it hangs"
    return ""


@dataclass(slots=True, kw_only=True)
class Watch:
    """What was seen of one attempt's steps. slow: rank -> steps in a row that took it too long."""

    steps: dict[int, int] = field(default_factory=dict)
    slow: dict[int, int] = field(default_factory=dict)

    def stragglers(self, health: Health, ranks: Mapping[int, RankSeen]) -> list[int]:
        """Ranks whose own work has for several steps taken `straggler_ratio` times the gang's median.

        A rank's own work (`Beat.busy_s`) and not its step: in a step all ranks wait for the slowest.
        """
        beats = {rank: seen.beat for rank, seen in ranks.items() if seen.beat is not None and seen.beat.busy_s > 0}
        if len(beats) < max(len(ranks), 2) or health.straggler_ratio <= 0:
            return []
        usual_s = statistics.median(beat.busy_s for beat in beats.values())
        for rank, beat in beats.items():
            if beat.step > self.steps.get(rank, -1):
                self.steps[rank] = beat.step
                self.slow[rank] = self.slow.get(rank, 0) + 1 if beat.busy_s > health.straggler_ratio * usual_s else 0
        return sorted(rank for rank, count in self.slow.items() if count >= _SLOW_STEPS)
