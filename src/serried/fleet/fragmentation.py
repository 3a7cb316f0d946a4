"""How much of what is free nobody can use: the fragmentation measure, and placement that lets it grow the least.

A node's fragmentation is the free shares that a typical worker, drawn from the workload, could not use there: all of
them where it does not fit (too little CPU, too few chips, the wrong kind, or no chips asked for), else those on chips
with less than it asks of each. A worker goes where it adds the least (Weng et al., "Beware of Fragmentation: Scheduling
GPU-Sharing Workloads with Fragmentation Gradient Descent", USENIX ATC 2023).

With p_M the weight of typical workers M and F_M = 1 where they fit, a node with free shares f of total t has
    fragmentation = t - sum over M of p_M F_M (t - sum of f below what M asks of a chip).
F depends on CPU only through which typical workers' CPU is there, so typical workers that differ in nothing else fall
into one group with a step function of CPU, and chips matter only as (kind, free shares): those are remembered.

Axes: M = typical worker, G = group of typical workers, P = step of CPU, S = demand, D = way to take chips (a share, or
whole chips), V = distinct value of free shares on a node, N = node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serried.fleet.demand import Demands, demands_of
from serried.fleet.measures import MOST, first_idle, healthy_free
from serried.fleet.snapshot import Snapshot
from serried.fleet.spec import WHOLE_MILLI, Fleet, Shape

__all__ = ["Fragmentation", "Typical", "typical_of"]

Floats = NDArray[np.float64]
#: The most that is remembered: tables of a few kilobytes each.
_TABLES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Typical:
    """Typical workers: what they ask and how often (weights sum to 1)."""

    demands: Demands
    weight_M: Floats


def typical_of(fleet: Fleet, shapes: Iterable[Shape], *, coverage: float = 0.95) -> Typical:
    """The most frequent workers of a workload, as many as make up `coverage` of its jobs.

    shapes: one per job. Workers are told apart by chips, shares, CPU and kinds; memory is not looked at, as in the
    paper. Among equally frequent ones the larger comes first.
    """
    counts: Counter[tuple[int, int, int, tuple[int, ...]]] = Counter()
    example: dict[tuple[int, int, int, tuple[int, ...]], Shape] = {}
    for shape in shapes:
        first = shape.alternatives[0]
        milli = shape.share_milli if first.chips_per_worker else 0
        key = (shape.cpu_milli, milli, first.chips_per_worker, first.kinds)
        counts[key] += 1
        example.setdefault(key, shape)
    ranked = sorted(counts, key=lambda key: (counts[key], key), reverse=True)
    wanted, kept, total = coverage * counts.total(), [], 0
    for key in ranked:
        if total >= wanted:
            break
        kept.append(key)
        total += counts[key]
    return Typical(demands=demands_of(fleet, [(example[key], 0) for key in kept]),
                   weight_M=np.array([counts[key] / total for key in kept]))


class Fragmentation:
    """The measure as a rule of placement: 100 / (1 + exp(added fragmentation in chips)), truncated as published."""

    by_sums = False

    def __init__(self, fleet: Fleet, typical: Typical) -> None:
        self._fleet = fleet
        demands = typical.demands
        self._step_cpu_milli_P = np.unique(demands.cpu_milli_S)
        keys = np.column_stack([demands.share_milli_S, np.maximum(demands.milli_S // np.maximum(
            demands.share_milli_S, 1), 0), demands.accepts_KS.T])
        groups, group_M = np.unique(keys, axis=0, return_inverse=True)
        self._share_milli_G, self._chips_G = groups[:, 0].astype(np.int64), groups[:, 1].astype(np.int64)
        self._accepts_KG = groups[:, 2:].T.astype(bool) & (self._share_milli_G > 0)
        step_M = np.searchsorted(self._step_cpu_milli_P, demands.cpu_milli_S)
        weight_GP = np.zeros((len(groups), len(self._step_cpu_milli_P) + 1))
        np.add.at(weight_GP, (group_M.ravel(), step_M + 1), typical.weight_M)
        #: weight of the group's workers whose CPU is there once CPU has reached the step
        self._weight_GP = weight_GP.cumsum(axis=1)
        self._before: dict[tuple[int, ...], Floats] = {}
        self._after: dict[tuple[int, ...], tuple[list[int], Floats]] = {}
        self._ways: list[tuple[int, int]] = []
        self._way: dict[tuple[int, int], int] = {}
        self._asked: tuple[Demands, NDArray[np.int64]] | None = None

    def amount_milli(self, snapshot: Snapshot, node: int) -> float:
        """Fragmentation of one node, in shares."""
        step = self._step(np.array([snapshot.columns.cpu_free_milli_N[node]]))[0]
        return float(self._table_before(int(self._fleet.kind_N[node]), healthy_free(snapshot, node))[step])

    def scores_NS(self, snapshot: Snapshot, demands: Demands, nodes: NDArray[np.int32]) -> NDArray[np.int16]:
        """The score of the best chip for each demand on each node; nodes that stand alike are scored once."""
        columns, way_S = snapshot.columns, self._ways_of(demands)
        found = np.empty((nodes.size, len(demands)), dtype=np.int16)
        alike: dict[tuple[int, ...], list[int]] = {}
        for position, node in enumerate(nodes.ravel().tolist()):
            free_C = sorted(healthy_free(snapshot, node))
            alike.setdefault((int(self._fleet.kind_N[node]), int(columns.cpu_free_milli_N[node]), *free_C),
                             []).append(position)
        for (kind, cpu_free_milli, *free_C), positions in alike.items():
            score_SV = self._scores_SV(kind, cpu_free_milli, free_C, demands.cpu_milli_S, way_S)[1]
            found[positions] = score_SV.max(axis=1)
        return found.reshape(*nodes.shape, len(demands))

    def pick(self, snapshot: Snapshot, score_N: NDArray[np.int16]) -> int:
        """The first node of the highest score."""
        node = int(score_N.argmax())
        return node if score_N[node] >= 0 else -1

    def chips(self, snapshot: Snapshot, node: int, shape: Shape, alternative: int) -> int:
        """The first chip of the highest score for a share; the first idle chips for whole ones."""
        free_C, count = healthy_free(snapshot, node), shape.alternatives[alternative].chips_per_worker
        if shape.share_milli == WHOLE_MILLI or count == 0:
            return first_idle(free_C, count)
        way_S = np.array([self._way_of(shape.share_milli, 0)])
        value_V, score_SV = self._scores_SV(
            int(self._fleet.kind_N[node]), int(snapshot.columns.cpu_free_milli_N[node]), sorted(free_C),
            np.array([shape.cpu_milli]), way_S)
        scores = dict(zip(value_V, score_SV[0].tolist(), strict=True))
        return 1 << max(range(len(free_C)), key=lambda chip: (scores[free_C[chip]], -chip))

    def _scores_SV(self, kind: int, cpu_free_milli: int, free_C: Sequence[int], cpu_milli_S: NDArray[np.int64],
                   way_S: NDArray[np.int64]) -> tuple[list[int], NDArray[np.int16]]:
        """Score of taking chips of each distinct free value; -1 where they do not suffice."""
        before = self._table_before(kind, free_C)[self._step(np.array([cpu_free_milli]))[0]]
        value_V, after_DVP = self._table_after(kind, free_C)
        added_SV = after_DVP[way_S, :, self._step(cpu_free_milli - cpu_milli_S)] - before
        with np.errstate(over="ignore"):
            score_SV = (MOST / (1.0 + np.exp(added_SV / WHOLE_MILLI))).astype(np.int16)
        score_SV[added_SV == np.inf] = -1
        return value_V, score_SV

    def _step(self, cpu_milli: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._step_cpu_milli_P, cpu_milli, side="right")

    def _ways_of(self, demands: Demands) -> NDArray[np.int64]:
        if self._asked is None or self._asked[0] is not demands:
            self._asked = demands, np.array([self._way_of(share, whole) for share, whole in zip(
                demands.share_milli_S.tolist(), demands.whole_chips_S.tolist(), strict=True)])
        return self._asked[1]

    def _way_of(self, share_milli: int, whole_chips: int) -> int:
        """Row of the remembered tables for taking a share, whole chips, or none; a new way forgets the tables."""
        way = (0 if whole_chips else share_milli, whole_chips)
        if way not in self._way:
            self._way[way] = len(self._ways)
            self._ways.append(way)
            self._after.clear()
        return self._way[way]

    def _table_before(self, kind: int, free_C: Sequence[int]) -> Floats:
        """Fragmentation over steps of CPU of a node of this kind with these free shares."""
        key = (kind, *sorted(free_C))
        found = self._before.get(key)
        if found is None:
            found = self._before[key] = self._amounts_XP(kind, np.array([key[1:]], dtype=np.int64))[0]
            if len(self._before) > _TABLES:
                self._before.clear()
        return found

    def _table_after(self, kind: int, free_C: Sequence[int]) -> tuple[list[int], Floats]:
        """The same once chips were taken in each way D from each distinct value V; infinite where that cannot be."""
        key = (kind, *free_C)
        found = self._after.get(key)
        if found is None:
            value_V = sorted(set(free_C)) or [0]
            rows, places = [], []
            for way, (share_milli, whole) in enumerate(self._ways):
                for place, value in enumerate(value_V):
                    left_C = _taken(list(free_C), value, share_milli, whole)
                    if left_C is not None:
                        rows.append(left_C)
                        places.append((way, place))
            after_DVP = np.full((len(self._ways), len(value_V), self._weight_GP.shape[1]), np.inf)
            if rows:
                way_X, place_X = np.array(places).T
                after_DVP[way_X, place_X] = self._amounts_XP(kind, np.array(rows, dtype=np.int64))
            if len(self._after) > _TABLES:
                self._after.clear()
            found = self._after[key] = value_V, after_DVP
        return found

    def _amounts_XP(self, kind: int, free_XC: NDArray[np.int64]) -> Floats:
        """Fragmentation over steps of CPU of nodes X of one kind with free shares C."""
        enough_XGC = free_XC[:, None, :] >= self._share_milli_G[:, None]
        usable_XG = (free_XC[:, None, :] * enough_XGC).sum(axis=2)
        fits_XG = (enough_XGC.sum(axis=2) >= self._chips_G) & self._accepts_KG[kind]
        amount_XP: Floats = free_XC.sum(axis=1)[:, None] - (fits_XG * usable_XG) @ self._weight_GP
        return amount_XP


def _taken(free_C: list[int], value: int, share_milli: int, whole: int) -> list[int] | None:
    """Free shares once a share was taken of a chip with `value` free, or whole idle chips; None if that cannot be."""
    if whole:
        enough = value == WHOLE_MILLI and free_C.count(WHOLE_MILLI) >= whole
        return [0] * whole + sorted(free_C)[:len(free_C) - whole] if enough else None
    if value < share_milli:
        return None
    left_C = list(free_C)
    left_C[left_C.index(value)] -= share_milli
    return left_C
