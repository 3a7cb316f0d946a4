"""Where a job goes, whatever its form: alone on a node by a rule of placement, or as a gang by switches.

Axes: X = (alternative, kind) of a known shape, S = shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serried.fleet.columns import Columns
from serried.fleet.gang import place_gang, switches_of
from serried.fleet.measures import Measure
from serried.fleet.node_scores import NodeScores
from serried.fleet.snapshot import Snapshot
from serried.fleet.spec import WHOLE_MILLI, Fleet, Placement, Shape

__all__ = ["Placer", "by_worth", "stands_alone"]


#: More workers than any fleet has room for.
_NEVER = 2**30


class Placer:
    """Finds placements; what it remembers are scores and the forms of shapes."""

    def __init__(self, fleet: Fleet, measure: Measure) -> None:
        self.fleet, self.switches = fleet, switches_of(fleet)
        self._scores = NodeScores(fleet, measure)
        self._widest = int(fleet.chip_count_N.max(initial=1))
        #: row, ways by worth, fewest chips, and the shape itself, so that its identity stays its own
        self._shapes: dict[int, tuple[int, tuple[int, ...], int, Shape]] = {}
        self._asked_X: list[tuple[int, int, int]] = []   # kind, chips per worker less one, workers
        self._first_S: list[int] = []
        self._columns: tuple[int, NDArray[np.int64], NDArray[np.int64]] = (0, np.empty((3, 0), int), np.empty(0, int))

    def learn(self, snapshot: Snapshot, shapes: Sequence[Shape]) -> None:
        """Meet shapes before they come."""
        self._scores.learn(snapshot, [shape for shape in shapes if any(
            stands_alone(shape, one) for one in range(len(shape.alternatives)))])

    def place(self, snapshot: Snapshot, shape: Shape, barred: frozenset[int] = frozenset()) -> Placement | None:
        """The placement on the most worthwhile alternative, but for `barred` ones, that fits now; or None."""
        for alternative in self._known(shape)[1]:
            if alternative in barred:
                continue
            if stands_alone(shape, alternative):
                placement = self._scores.spot(snapshot, shape, alternative)
            else:
                placement = place_gang(self.fleet, self.switches, snapshot.columns, shape, alternative)
            if placement is not None:
                return placement
        return None

    def place_on(self, columns: Columns, shape: Shape, barred: frozenset[int] = frozenset(), *,
                 today: Columns | None = None) -> Placement | None:
        """The same on what a plan would make of the columns, whose counts by switch are not looked at; whole chips
        only. today: see `place_gang`."""
        if shape.share_milli < WHOLE_MILLI:
            return None
        for alternative in self._known(shape)[1]:
            if alternative in barred or not shape.alternatives[alternative].chips_per_worker:
                continue
            placement = place_gang(self.fleet, self.switches, columns, shape, alternative, recount=True,
                                   today=today)
            if placement is not None:
                return placement
        return None

    def hopeful_S(self, snapshot: Snapshot) -> list[bool]:
        """By known shape, whether the fleet as a whole has chips enough now: false is final, true is not."""
        if not self._asked_X:
            return []
        if self._columns[0] < len(self._asked_X):
            self._columns = len(self._asked_X), np.array(self._asked_X).T.copy(), np.array(self._first_S)
        _, (kind_X, grain_X, needed_X), first_S = self._columns
        enough_X = snapshot.columns.slots_KSG[-1][kind_X, 0, grain_X] >= needed_X
        found: list[bool] = np.logical_or.reduceat(enough_X, first_S).tolist()
        return found

    def best_way(self, shape: Shape) -> int:
        """The most worthwhile alternative."""
        return self._known(shape)[1][0]

    def row(self, shape: Shape) -> int:
        """A shape's place in `hopeful_S`."""
        return self._known(shape)[0]

    def fewest_chips(self, shape: Shape) -> int:
        """Chips of the smallest way to run a job."""
        return self._known(shape)[2]

    def _known(self, shape: Shape) -> tuple[int, tuple[int, ...], int, Shape]:
        known = self._shapes.get(id(shape))
        if known is None:
            fewest = min(one.chip_count for one in shape.alternatives)
            known = self._shapes[id(shape)] = len(self._shapes), by_worth(shape), fewest, shape
            self._first_S.append(len(self._asked_X))
            for one in shape.alternatives:
                whole = shape.share_milli == WHOLE_MILLI and one.chips_per_worker > 0
                fits = one.chips_per_worker <= self._widest
                self._asked_X += [(kind, one.chips_per_worker - 1 if whole and fits else 0,
                                   (one.worker_count if fits else _NEVER) if whole else 0) for kind in one.kinds]
        return known


def stands_alone(shape: Shape, alternative: int) -> bool:
    """Whether one worker is all there is to place."""
    return shape.alternatives[alternative].worker_count == 1


def by_worth(shape: Shape) -> tuple[int, ...]:
    """Alternatives, the one with the most work per dollar first."""
    return tuple(sorted(range(len(shape.alternatives)), key=lambda one: -shape.alternatives[one].worth))
