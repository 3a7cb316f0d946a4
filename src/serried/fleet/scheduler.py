"""The scheduler."""

from __future__ import annotations

from collections.abc import Sequence

from serried.fleet.measures import Measure
from serried.fleet.node_scores import NodeScores
from serried.fleet.snapshot import Snapshot
from serried.fleet.spec import Event, EventKind, Fleet, Plan, Shape

__all__ = ["Scheduler"]


class Scheduler:
    """One."""

    def __init__(self, fleet: Fleet, measure: Measure) -> None:
        self._scores = NodeScores(fleet, measure)

    def learn(self, snapshot: Snapshot, shapes: Sequence[Shape]) -> None:
        """Meet shapes."""
        self._scores.learn(snapshot, list(dict.fromkeys(shapes)))

    def plan(self, snapshot: Snapshot) -> Plan:
        """One decision."""
        for queue in snapshot.pending.values():
            for number in queue:
                placement = self._scores.spot(snapshot, snapshot.job(number).shape, 0)
                if placement is not None:
                    return Plan(version=snapshot.version, events=(Event(
                        time_ns=snapshot.time_ns, kind=EventKind.PLACE, job=number, placement=placement),))
        return Plan(version=snapshot.version)
