"""Which spanning trees, with how much of the data each, use the wires best?

A packing by column generation: trees are grown along the wires that are cheapest at present prices, a linear programme
(HiGHS) mixes the trees found so far so that the fullest wire is least full, and its dual values are the next prices.
The cut bound of `serried.weave.bound` says when to stop. Of the many mixtures that load the fullest wires alike that is
taken which loads the others least, the fullest of them first: a wire that need not be full is no second bottleneck when
messages share it unfairly.

Axes: E = directed wire, T = tree, V = endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog
from scipy.sparse import csr_array, hstack, vstack

from serried.weave.timing import paths
from serried.weave.wires import Wires

__all__ = ["Packing", "Tree", "pack_trees"]

Floats = npt.NDArray[np.float64]
#: Prices grow by this factor over the whole range of loads while the first trees are grown.
_STEEPNESS = 8.0
#: While the first trees are grown, each step further from the root makes a wire dearer by this part: shallow trees fill
#: a pipeline sooner. Later ones answer the dual prices alone, so that the packing still reaches its bound.
_DEPTH_PRICE = 0.05
#: Kinds of wires that are relieved one after the other.
_LEVELS = 4
#: Rounds of new trees that may bring nothing, before no more are looked for.
_PATIENCE = 3
#: Wires whose price is below this part of the dearest are not what holds a mixture back; loads may differ by as much.
_SLACK = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """parent_V: the endpoint that each one hears from (-1 at the root), or tells when `gathers`; load_E: messages."""

    root: int
    gathers: bool
    parent_V: tuple[int, ...]
    load_E: tuple[int, ...]

    def depth_V(self) -> list[int]:
        """Steps from the root to each endpoint."""
        depth = [-1] * len(self.parent_V)
        for node in range(len(self.parent_V)):
            trail = []
            while depth[node] < 0 and self.parent_V[node] >= 0:
                trail.append(node)
                node = self.parent_V[node]
            depth[node] = max(depth[node], 0)
            for step, passed in enumerate(reversed(trail), depth[node] + 1):
                depth[passed] = step
        return depth


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """Trees and the share of the whole buffer that each carries; time_s_per_byte of the fullest wire."""

    trees: tuple[Tree, ...]
    share_T: Floats
    time_s_per_byte: float


def pack_trees(graph: Wires, share_V: Floats | None, *, spreads: bool, gathers: bool, bound_s_per_byte: float,
               seed: int = 0, first_rounds: int = 4, rounds: int = 24, gap: float = 2e-3) -> Packing:
    """Trees from (`spreads`) and to (`gathers`) the roots, mixed so that the fullest wire takes least time.

    share_V: part of the buffer rooted at each endpoint; None = as suits the wires best, alike in both directions.
    """
    chance = np.random.default_rng(seed)
    kinds = [kind for kind, wanted in ((False, spreads), (True, gathers)) if wanted]
    roots = [root for root in range(graph.endpoint_count) if share_V is None or share_V[root] > 0]
    routes = _Routes(graph)
    mixer = _Mixer(graph, share_V, kinds)
    trees = {_key(tree): tree for tree in _stars(graph, routes, roots, kinds)}
    enough = bound_s_per_byte * (1 + gap)
    if trees:
        mixture = mixer.mix(list(trees.values()))
        if mixture.time_s_per_byte <= enough:
            return _relieved(mixer, list(trees.values()), mixture)
    load_E = np.zeros(len(graph.source_E))
    for _ in range(first_rounds):
        for root in roots:
            weight_E = load_E / graph.bandwidth_bytes_per_s_E
            price_E = np.exp(_STEEPNESS * weight_E / max(weight_E.max(), 1e-300)) / graph.bandwidth_bytes_per_s_E
            for tree in _grow(graph, routes, price_E, [root], kinds, chance, depth_price=_DEPTH_PRICE):
                trees[_key(tree)] = tree
                np.add.at(load_E, list(tree.load_E), 1.0)

    def grown(price_E: Floats) -> list[Tree]:
        floor = 1e-4 * price_E.sum() / np.maximum(graph.bandwidth_bytes_per_s_E.sum(), 1e-300)
        return _grow(graph, routes, price_E + floor, roots, kinds, chance)

    mixture, idle = mixer.mix(list(trees.values())), 0
    for _ in range(rounds):
        if mixture.time_s_per_byte <= enough or idle >= _PATIENCE or not _taken_in(trees, grown(mixture.price_E)):
            break
        before, mixture = mixture, mixer.mix(list(trees.values()))
        idle = 0 if mixture.fullest < before.fullest * (1 - gap / 4) else idle + 1
    return _relieved(mixer, *_shallow(mixer, list(trees.values()), mixture, gap))


def _shallow(mixer: _Mixer, trees: Sequence[Tree], mixture: _Mixture, gap: float) -> tuple[Sequence[Tree], _Mixture]:
    """The shallowest of the trees that do as well, within `gap`: shallow ones fill a pipeline sooner."""
    height_T = np.asarray([max(tree.depth_V()) for tree in trees])
    heights = np.unique(height_T)
    found, low, high = (trees, mixture), 0, len(heights) - 1      # trees up to heights[high] do
    while low < high:
        middle = (low + high) // 2
        few = [tree for tree, height in zip(trees, height_T, strict=True) if height <= heights[middle]]
        mixed = mixer.mix(few) if mixer.is_whole(few) else None
        if mixed is not None and mixed.fullest <= mixture.fullest * (1 + gap):
            found, high = (few, mixed), middle
        else:
            low = middle + 1
    return found


def _relieved(mixer: _Mixer, trees: Sequence[Tree], mixture: _Mixture) -> Packing:
    """The mixture that loads no wire more than the given one loads its fullest, and others as little as can be: what
    holds the fullest back is kept to its load, the fullest of the rest are relieved, and so on."""
    time_s_per_byte, most_E = mixture.time_s_per_byte, np.full(len(mixture.price_E), np.inf)
    for _ in range(_LEVELS):
        fullest_E = np.isinf(most_E) & (mixture.price_E > _SLACK * mixture.price_E.max())
        most_E[fullest_E] = mixture.fullest * (1 + _SLACK)
        if np.isfinite(most_E).all():
            break
        mixture = mixer.mix(trees, most_E)
    return Packing(trees=mixture.trees, share_T=mixture.share_T, time_s_per_byte=time_s_per_byte)


def _key(tree: Tree) -> object:
    return tree.root, tree.gathers, tree.parent_V


def _taken_in(trees: dict[object, Tree], grown: Sequence[Tree]) -> bool:
    """Whether any of these trees is new."""
    before = len(trees)
    trees.update((_key(tree), tree) for tree in grown)
    return len(trees) > before


class _Routes:
    """The paths of `serried.weave.timing`: a schedule says who tells whom, and the network by which wires."""

    def __init__(self, graph: Wires) -> None:
        self.path = paths(graph)
        self._count = graph.endpoint_count
        pairs = np.repeat([source * self._count + target for source, target in self.path],
                          [len(path) for path in self.path.values()])
        wires_P = np.fromiter(chain.from_iterable(self.path.values()), np.int64, len(pairs))
        self._crosses = csr_array((np.ones(len(pairs)), (pairs, wires_P)), shape=(self._count**2, len(graph.source_E)))
        self._joined_VV = np.zeros((self._count, self._count), dtype=bool)
        self._joined_VV.flat[pairs] = True

    def cost_VV(self, price_E: Floats) -> Floats:
        """What a message from one endpoint to another costs; infinite where only endpoints lead."""
        cost_VV = (self._crosses @ price_E).reshape(self._count, self._count)
        return np.where(self._joined_VV, cost_VV, np.inf)


def _stars(graph: Wires, routes: _Routes, roots: Sequence[int], kinds: Sequence[bool]) -> list[Tree]:
    """Everybody straight to everybody, where wires allow: nothing is shorter, and often nothing is better."""
    count = graph.endpoint_count
    if len(routes.path) < count * (count - 1):
        return []
    return [Tree(root=root, gathers=gathers, parent_V=tuple(-1 if node == root else root for node in range(count)),
                 load_E=tuple(wire for node in range(count) if node != root
                              for wire in routes.path[(node, root) if gathers else (root, node)]))
            for gathers in kinds for root in roots]


def _grow(graph: Wires, routes: _Routes, price_E: Floats, roots: Sequence[int], kinds: Sequence[bool],
          chance: np.random.Generator, *, depth_price: float = 0.0) -> list[Tree]:
    """A cheap tree per root and direction (Prim's rule): the next endpoint is the one that is cheapest to reach."""
    count = graph.endpoint_count
    cost_VV = routes.cost_VV(price_E * (1 + 1e-3 * chance.random(len(price_E))))
    grown = []
    for gathers in kinds:
        step = cost_VV.T if gathers else cost_VV
        for root in roots:
            dear = step * (1 + 1e-2 * chance.random(step.shape))
            parent, best, via = [-1] * count, dear[root].copy(), np.full(count, root)
            depth_V = np.zeros(count)
            outside = np.ones(count, dtype=bool)
            outside[root] = False
            load: list[int] = []
            for _ in range(count - 1):
                node = int(np.argmin(np.where(outside, best, np.inf)))
                parent[node] = int(via[node])
                load += routes.path[(node, parent[node]) if gathers else (parent[node], node)]
                outside[node] = False
                depth_V[node] = depth_V[parent[node]] + 1
                reached = dear[node] * (1 + depth_price * depth_V[node])
                nearer = reached < best
                via[nearer], best[nearer] = node, reached[nearer]
            grown.append(Tree(root=root, gathers=gathers, parent_V=tuple(parent), load_E=tuple(load)))
    return grown


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mixture:
    """Trees in use and their shares; fullest: load of the fullest wire that is not held, in time by the byte and mean
    bandwidth; price_E: dual values, what a little more of each wire would bring."""

    trees: tuple[Tree, ...]
    share_T: Floats
    fullest: float
    price_E: Floats
    time_s_per_byte: float


class _Mixer:
    """The linear programme: which shares of which trees. share_V and kinds as of `pack_trees`."""

    def __init__(self, graph: Wires, share_V: Floats | None, kinds: Sequence[bool]) -> None:
        self._count, self._share_V, self._kinds = graph.endpoint_count, share_V, kinds
        self._mean = float(graph.bandwidth_bytes_per_s_E.mean())
        self._bandwidth_E = graph.bandwidth_bytes_per_s_E / self._mean

    def is_whole(self, trees: Sequence[Tree]) -> bool:
        """Whether everybody who must be a root has a tree of each kind; anybody will do where that is free."""
        roots = [{tree.root for tree in trees if tree.gathers == kind} for kind in self._kinds]
        return bool(set.intersection(*roots)) if self._share_V is None else all(
            len(each) == np.count_nonzero(self._share_V) for each in roots)

    def mix(self, trees: Sequence[Tree], most_E: Floats | None = None) -> _Mixture:
        """The mixture whose fullest wire is least full. most_E: loads that some wires are held to, infinite for those
        that are to be as little full as can be."""
        wire_count = len(self._bandwidth_E)
        held_E = np.zeros(wire_count, dtype=bool) if most_E is None else np.isfinite(most_E)
        allowed_E = np.zeros(wire_count) if most_E is None else np.where(held_E, most_E * self._bandwidth_E, 0.0)
        column = np.repeat(np.arange(len(trees)), [len(tree.load_E) for tree in trees])
        load = csr_array((np.ones(len(column)), (np.concatenate([tree.load_E for tree in trees]), column)),
                         shape=(wire_count, len(trees)))
        capacity = hstack([load, csr_array(np.where(held_E, 0.0, -self._bandwidth_E)[:, None])])
        equal, wanted = self._owned(trees)
        solved = linprog(np.append(np.zeros(len(trees)), 1.0), A_ub=capacity, b_ub=allowed_E, A_eq=equal, b_eq=wanted,
                         method="highs")
        used = solved.x[:-1] > 1e-9
        return _Mixture(trees=tuple(tree for tree, wanted_tree in zip(trees, used, strict=True) if wanted_tree),
                        share_T=solved.x[:-1][used], fullest=float(solved.fun),
                        time_s_per_byte=float(solved.fun) / self._mean,
                        price_E=np.maximum(-solved.ineqlin.marginals, 0.0))

    def _owned(self, trees: Sequence[Tree]) -> tuple[csr_array, Floats]:
        """What the trees of each root carry together."""
        count, kinds = self._count, self._kinds
        row = np.asarray([tree.root + count * kinds.index(tree.gathers) for tree in trees])
        owned = csr_array((np.ones(len(trees)), (row, np.arange(len(trees)))),
                          shape=(count * len(kinds), len(trees) + 1))
        if self._share_V is not None:
            return owned, np.tile(self._share_V, len(kinds))
        first = np.flatnonzero(row < count)          # what is gathered at a root is spread from it, all of it once
        once = csr_array((np.ones(len(first)), (np.zeros(len(first), dtype=int), first)), shape=(1, len(trees) + 1))
        return vstack([owned[:count] - owned[count:], once]), np.append(np.zeros(count), 1.0)
