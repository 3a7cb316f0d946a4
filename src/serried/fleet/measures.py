"""How good a node is for a worker: the packing rules that the fragmentation study compares, score 0 to 100.

Each rule scores every demand on every node asked about (NS) with whole numbers, as the published scheduler framework
does, and then picks the chips of the chosen node. Ties between nodes go to the lower number: who wants them broken at
random numbers the nodes at random. Rules and rounding: "Beware of Fragmentation" (USENIX ATC 2023) and its simulator.

Axes: S = demand, N = node asked about, C = chip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from serried.fleet.demand import Demands
from serried.fleet.snapshot import Snapshot
from serried.fleet.spec import WHOLE_MILLI, Fleet, Shape

__all__ = ["MOST", "BestFit", "Clustering", "DotProduct", "Measure", "Packing", "Random", "scramble"]

Scores = NDArray[np.int16]
Floats = NDArray[np.float64]
#: The best score there is.
MOST = 100
#: What rounding may take from a score that is a whole number.
_GRACE = 1e-9


class Measure(Protocol):
    """A rule for choosing a node and chips on it. by_sums: whether a node's kind and what is free of its CPU and of all
    its chips together say all that a score depends on."""

    by_sums: bool

    def scores_NS(self, snapshot: Snapshot, demands: Demands, nodes: NDArray[np.int32]) -> Scores:
        """Score of each demand on each node, 0 (worst) to 100; anything where it does not fit. `nodes` may be 0-d."""
        ...

    def pick(self, snapshot: Snapshot, score_N: Scores) -> int:
        """The node to take, given the scores of all nodes (-1 where the demand does not fit); -1 where none fits."""
        ...

    def chips(self, snapshot: Snapshot, node: int, shape: Shape, alternative: int) -> int:
        """Which chips of the node to take, as a mask."""
        ...


class _HighestScore:
    """The common part: the first node of the highest score, and there the fullest chip that still fits."""

    by_sums = False

    def pick(self, snapshot: Snapshot, score_N: Scores) -> int:
        """The first node of the highest score."""
        node = int(score_N.argmax())
        return node if score_N[node] >= 0 else -1

    def chips(self, snapshot: Snapshot, node: int, shape: Shape, alternative: int) -> int:
        """The fullest chip that can take the share; the first idle chips for whole ones."""
        free_C = healthy_free(snapshot, node)
        if shape.share_milli == WHOLE_MILLI:
            return first_idle(free_C, shape.alternatives[alternative].chips_per_worker)
        return 1 << min((free, chip) for chip, free in enumerate(free_C) if free >= shape.share_milli)[1]


class BestFit(_HighestScore):
    """Least is left: 1 - (CPU left / largest CPU + chips left / most chips) / 2."""

    by_sums = True

    def __init__(self, fleet: Fleet) -> None:
        self._most_cpu_milli, self._most_milli = _largest(fleet)
        self._offset: tuple[Demands, Floats] | None = None

    def scores_NS(self, snapshot: Snapshot, demands: Demands, nodes: NDArray[np.int32]) -> Scores:
        """The published rule, truncated to whole numbers: what is free, less what is asked, counts against a node."""
        columns = snapshot.columns
        if self._offset is None or self._offset[0] is not demands:
            self._offset = demands, MOST + _GRACE + self._weighed(demands.cpu_milli_S, demands.milli_S)
        cpu_N, milli_N = columns.cpu_free_milli_N[nodes], columns.open_sum_milli_N[nodes]
        free_N1 = self._weighed(cpu_N, milli_N)[:, None] if nodes.ndim else self._weighed(cpu_N.item(), milli_N.item())
        scores: Scores = (self._offset[1] - free_N1).astype(np.int16)
        return scores

    def _weighed(self, cpu_milli: Any, milli: Any) -> Any:
        """Numbers or columns alike."""
        return cpu_milli * (MOST / 2 / self._most_cpu_milli) + milli * (MOST / 2 / self._most_milli)


class DotProduct(_HighestScore):
    """What is asked and what is free point apart: 1 - (CPU asked x CPU free + chips asked x chips free) / 2."""

    by_sums = True

    def __init__(self, fleet: Fleet) -> None:
        self._most_cpu_milli, self._most_milli = _largest(fleet)

    def scores_NS(self, snapshot: Snapshot, demands: Demands, nodes: NDArray[np.int32]) -> Scores:
        """The published rule, with all chips of a node as one dimension and norms by the largest node."""
        columns = snapshot.columns
        cpu_N = columns.cpu_free_milli_N[nodes] / self._most_cpu_milli
        chips_N = columns.open_sum_milli_N[nodes] / self._most_milli
        cpu_NS = cpu_N[..., None] * (demands.cpu_milli_S / self._most_cpu_milli)
        chips_NS = chips_N[..., None] * (demands.milli_S / self._most_milli)
        return ((1.0 - (cpu_NS + chips_NS) / 2) * MOST).astype(np.int16)


class Packing(_HighestScore):
    """Used chips before idle chips of used nodes before idle nodes."""

    def __init__(self, fleet: Fleet) -> None:
        self._chip_count_N = fleet.chip_count_N

    def scores_NS(self, snapshot: Snapshot, demands: Demands, nodes: NDArray[np.int32]) -> Scores:
        """Idle node: 33 - idle chips. Else 50 - idle chips that must be broken into, else 100 - tenths free of the chip
        to be shared, each kept above the tier below."""
        columns = snapshot.columns
        free_NC = columns.free_milli_NC[nodes].astype(np.int32)
        idle_N1 = (free_NC == WHOLE_MILLI).sum(axis=-1)[..., None]
        shares_S = (demands.milli_S > 0) & (demands.whole_chips_S == 0)
        fits_NSC = (free_NC[..., None, :] >= demands.share_milli_S[:, None]) & (
            free_NC[..., None, :] < WHOLE_MILLI)
        tightest_NS = np.where(fits_NSC, free_NC[..., None, :], WHOLE_MILLI).min(axis=-1)
        joins_NS = shares_S & (tightest_NS < WHOLE_MILLI)
        broken_NS = np.maximum(demands.whole_chips_S, shares_S & ~joins_NS)
        score_NS = np.where(joins_NS, np.maximum(MOST - tightest_NS * MOST // WHOLE_MILLI // 10, MOST // 2),
                            np.maximum(MOST // 2 - broken_NS, MOST // 3))
        score_NS = np.where(idle_N1 == self._chip_count_N[nodes][..., None], np.maximum(MOST // 3 - idle_N1, idle_N1),
                            score_NS)
        return np.where(demands.milli_S > 0, score_NS, 0).astype(np.int16)


class Clustering(_HighestScore):
    """Beside workers of the same size: nodes that host only such, then nodes that also do, idle nodes, others; among
    those, the fuller one."""

    def __init__(self, fleet: Fleet) -> None:
        self._most_milli = _largest(fleet)[1]

    def scores_NS(self, snapshot: Snapshot, demands: Demands, nodes: NDArray[np.int32]) -> Scores:
        """Tier (0 to 3) x 25 + 25 x shares in use / most shares of a node; 0 for a worker without chips."""
        used_N1 = 25 * (self._most_milli - snapshot.columns.open_sum_milli_N[nodes][..., None]) // self._most_milli
        tier_NG = np.array([[_tier(chips, sizes) for chips in range(_SIZES)] for sizes in (
            _sizes_on(snapshot, node) for node in nodes.ravel().tolist())]).reshape(*nodes.shape, _SIZES)
        return np.where(demands.milli_S > 0, tier_NG[..., demands.whole_chips_S] * 25 + used_N1, 0).astype(np.int16)


#: Sizes of workers: shared (0) and every number of whole chips that one node may have.
_SIZES = 65


def _sizes_on(snapshot: Snapshot, node: int) -> set[int]:
    """Sizes of the workers with chips on a node: their whole chips, 0 for those that share."""
    found = set()
    for number in snapshot.residents(node):
        shape, placement = snapshot.job(number).shape, snapshot.placement(number)
        assert placement is not None, "a resident stands somewhere"
        chips = shape.alternatives[placement.alternative].chips_per_worker
        if chips:
            found.add(chips if shape.share_milli == WHOLE_MILLI else 0)
    return found


def _tier(chips: int, sizes: set[int]) -> int:
    if chips in sizes:
        return 3 if len(sizes) == 1 else 2
    return 0 if sizes else 1


class Random:
    """Any node that fits, any chip that fits, each as likely; the draw depends on seed and version alone."""

    by_sums = True

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def scores_NS(self, snapshot: Snapshot, demands: Demands, nodes: NDArray[np.int32]) -> Scores:
        """All alike."""
        return np.zeros((*nodes.shape, len(demands)), dtype=np.int16)

    def pick(self, snapshot: Snapshot, score_N: Scores) -> int:
        """One of the nodes that fit."""
        fitting = np.flatnonzero(score_N >= 0)
        return -1 if not len(fitting) else int(fitting[scramble(self._seed, snapshot.version, 0) % len(fitting)])

    def chips(self, snapshot: Snapshot, node: int, shape: Shape, alternative: int) -> int:
        """One of the chips that can take the share; the first idle chips for whole ones."""
        free_C = healthy_free(snapshot, node)
        if shape.share_milli == WHOLE_MILLI:
            return first_idle(free_C, shape.alternatives[alternative].chips_per_worker)
        fitting = [chip for chip, free in enumerate(free_C) if free >= shape.share_milli]
        return 1 << fitting[scramble(self._seed, snapshot.version, 1) % len(fitting)]


def scramble(*words: int) -> int:
    """A number below 2**64 that looks random and depends on the words alone (splitmix64, Steele et al. 2014)."""
    mixed = 0
    for word in words:
        mixed = (mixed ^ word) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return mixed


def healthy_free(snapshot: Snapshot, node: int) -> list[int]:
    """Free shares of each chip of a node; none of a broken one."""
    free_C: list[int] = snapshot.columns.free_milli_NC[node].tolist()
    broken = int(snapshot.columns.broken_chips_N[node])
    return [0 if broken >> chip & 1 else free for chip, free in enumerate(free_C)] if broken else free_C


def first_idle(free_C: Sequence[int], count: int) -> int:
    """Mask of the first `count` chips that nobody holds; the caller knows that there are so many."""
    chips = 0
    for chip, free in enumerate(free_C):
        if count == 0:
            break
        if free == WHOLE_MILLI:
            chips |= 1 << chip
            count -= 1
    assert count == 0, "the node was said to have so many idle chips"
    return chips


def _largest(fleet: Fleet) -> tuple[int, int]:
    """CPU and chip shares of the largest node of each."""
    return max(int(fleet.cpu_milli_N.max(initial=1)), 1), max(int(fleet.chip_count_N.max(initial=1)), 1) * WHOLE_MILLI
