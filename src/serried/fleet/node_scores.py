"""Scores of every worker on every node, kept: an event changes a few nodes, and only their scores are taken again.

Nodes that stand alike score alike. Where a rule looks at sums alone, and nobody asks for CPU or memory, there are few
ways to stand, so each is scored once and looked up from then on.

Axes: S = demand, N = node.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serried.fleet.demand import Demands, demands_of, feasible_NS
from serried.fleet.measures import Measure
from serried.fleet.snapshot import Snapshot
from serried.fleet.spec import Fleet, Placement, Shape

__all__ = ["NodeScores"]

_UNFIT = np.int16(-1)
#: So many changed nodes are looked up one by one; more are scored together.
_FEW = 48
#: So many ways to stand are remembered.
_MOST_STANDINGS = 2**14


class NodeScores:
    """Where a worker that stands alone goes. What it remembers follows from the snapshot: forgetting changes no answer.

    Shapes are told apart by identity, so jobs of one kind should share one `Shape`.
    """

    def __init__(self, fleet: Fleet, measure: Measure) -> None:
        self._fleet, self._measure = fleet, measure
        self._row: dict[tuple[int, int], int] = {}
        self._asked: list[tuple[Shape, int]] = []
        self._demands: Demands = demands_of(fleet, ())
        self._score_SN = np.empty((0, fleet.node_count), dtype=np.int16)
        self._standings: dict[tuple[int, ...], NDArray[np.int16]] = {}   # how a node stands -> score of each demand
        self._version = 0

    def spot(self, snapshot: Snapshot, shape: Shape, alternative: int) -> Placement | None:
        """The best node for one worker, and chips on it; None where it fits nowhere."""
        self._catch_up(snapshot)
        row = self._row.get((id(shape), alternative))
        if row is None:
            row = self._learn(snapshot, shape, alternative)
        score_N = self._score_SN[row]
        node = self._measure.pick(snapshot, score_N)
        if node < 0:
            return None
        chips = self._measure.chips(snapshot, node, shape, alternative)
        return Placement(node_R=np.array([node], dtype=np.int32), chips_R=np.array([chips], dtype=np.uint64),
                         workers_R=_ONE, alternative=alternative)

    def learn(self, snapshot: Snapshot, shapes: list[Shape]) -> None:
        """Meet many shapes at once; `spot` would meet them one by one."""
        self._catch_up(snapshot)
        fresh = [(shape, one) for shape in shapes for one in range(len(shape.alternatives))
                 if (id(shape), one) not in self._row]
        for shape, one in fresh:
            self._row[id(shape), one] = len(self._asked)
            self._asked.append((shape, one))
        self._demands = demands_of(self._fleet, self._asked)
        self._standings.clear()
        everywhere = np.arange(self._fleet.node_count, dtype=np.int32)
        scores = self._scored(snapshot, demands_of(self._fleet, fresh), everywhere)
        self._score_SN = np.ascontiguousarray(np.concatenate([self._score_SN, scores.T]))   # rows are searched

    def _learn(self, snapshot: Snapshot, shape: Shape, alternative: int) -> int:
        self.learn(snapshot, [shape])
        return self._row[id(shape), alternative]

    def _catch_up(self, snapshot: Snapshot) -> None:
        if self._version < snapshot.version:
            touched = snapshot.touched_since(self._version) if self._asked else ()
            if touched and self._measure.by_sums and not self._demands.ask_host and len(touched) <= _FEW:
                for node in touched:
                    self._score_SN[:, node] = self._standing_S(snapshot, node)
            elif touched:
                nodes = np.array(touched.pop() if len(touched) == 1 else list(touched), dtype=np.int32)
                self._score_SN[:, nodes] = self._scored(snapshot, self._demands, nodes).T
            self._version = snapshot.version

    def _standing_S(self, snapshot: Snapshot, node: int) -> NDArray[np.int16]:
        """Scores of one node by everything that a rule of sums and `feasible_NS` look at."""
        columns = snapshot.columns
        standing = (self._fleet.kind_N.item(node), columns.cpu_free_milli_N.item(node),
                    columns.open_chips_N.item(node), columns.open_share_milli_N.item(node),
                    columns.open_sum_milli_N.item(node))
        found = self._standings.get(standing)
        if found is None:
            if len(self._standings) >= _MOST_STANDINGS:
                self._standings.clear()
            found = self._standings[standing] = self._scored(snapshot, self._demands, np.array(node, dtype=np.int32))
        return found

    def _scored(self, snapshot: Snapshot, demands: Demands, nodes: NDArray[np.int32]) -> NDArray[np.int16]:
        scores = self._measure.scores_NS(snapshot, demands, nodes)
        np.putmask(scores, ~feasible_NS(demands, self._fleet, snapshot.columns, nodes), _UNFIT)
        return scores


_ONE = np.ones(1, dtype=np.int32)
_ONE.flags.writeable = False
