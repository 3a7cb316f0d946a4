"""Which spanning trees, with how much of the data each, use the wires best?

A packing by column generation: trees are grown along the wires that are cheapest at present prices, a linear programme
(HiGHS) mixes the trees found so far so that the fullest wire is least full, and its dual values are the next prices.
The cut bound of `serried.weave.bound` says when to stop.

Axes: E = directed wire, T = tree, V = endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog
from scipy.sparse import csr_array, hstack, vstack

from serried.weave.timing import Ways, paths
from serried.weave.wires import Wires

__all__ = ["Packing", "Tree", "pack_trees"]

Floats = npt.NDArray[np.float64]
#: Prices grow by this factor over the whole range of loads while the first trees are grown.
_STEEPNESS = 8.0
#: While the first trees are grown, each step further from the root makes a wire dearer by this part: shallow trees fill
#: a pipeline sooner. Later ones answer the dual prices alone, so that the packing still reaches its bound.
_DEPTH_PRICE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """parent_V: the endpoint that each one hears from (-1 at the root), or tells when `gathers`; load_E: messages."""

    root: int
    gathers: bool
    parent_V: tuple[int, ...]
    load_E: tuple[int, ...]


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
    trees = {(tree.root, tree.gathers, tree.parent_V): tree for tree in _stars(graph, roots, kinds)}
    if trees:
        packing, _ = _mix(graph, list(trees.values()), share_V, kinds)
        if packing.time_s_per_byte <= bound_s_per_byte * (1 + gap):
            return packing
    load_E = np.zeros(len(graph.source_E))
    for _ in range(first_rounds):
        for root in roots:
            weight_E = load_E / graph.bandwidth_bytes_per_s_E
            price_E = np.exp(_STEEPNESS * weight_E / max(weight_E.max(), 1e-300)) / graph.bandwidth_bytes_per_s_E
            for tree in _grow(graph, price_E, [root], kinds, chance, depth_price=_DEPTH_PRICE):
                trees[(root, tree.gathers, tree.parent_V)] = tree
                np.add.at(load_E, list(tree.load_E), 1.0)
    packing, price_E = _mix(graph, list(trees.values()), share_V, kinds)
    for _ in range(rounds):
        if packing.time_s_per_byte <= bound_s_per_byte * (1 + gap):
            break
        before = len(trees)
        floor = 1e-4 * price_E.sum() / np.maximum(graph.bandwidth_bytes_per_s_E.sum(), 1e-300)
        for tree in _grow(graph, price_E + floor, roots, kinds, chance):
            trees[(tree.root, tree.gathers, tree.parent_V)] = tree
        if len(trees) == before:
            break
        packing, price_E = _mix(graph, list(trees.values()), share_V, kinds)
    return packing


def _stars(graph: Wires, roots: Sequence[int], kinds: Sequence[bool]) -> list[Tree]:
    """Everybody straight to everybody, where wires allow: nothing is shorter, and often nothing is better."""
    routes = paths(graph)
    count = graph.endpoint_count
    if len(routes) < count * (count - 1):
        return []
    return [Tree(root=root, gathers=gathers, parent_V=tuple(-1 if node == root else root for node in range(count)),
                 load_E=tuple(wire for node in range(count) if node != root
                              for wire in routes[(node, root) if gathers else (root, node)]))
            for gathers in kinds for root in roots]


def _grow(graph: Wires, price_E: Floats, roots: Sequence[int], kinds: Sequence[bool],
          chance: np.random.Generator, *, depth_price: float = 0.0) -> list[Tree]:
    """A cheap tree per root and direction (Prim's rule): the next endpoint is the one that is cheapest to reach."""
    ways = Ways(graph, price_E * (1 + 1e-3 * chance.random(len(price_E))))
    count = graph.endpoint_count
    grown = []
    for gathers in kinds:
        step = ways.cost_VV.T if gathers else ways.cost_VV
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
                load += ways.path(node, parent[node]) if gathers else ways.path(parent[node], node)
                outside[node] = False
                depth_V[node] = depth_V[parent[node]] + 1
                reached = dear[node] * (1 + depth_price * depth_V[node])
                nearer = reached < best
                via[nearer], best[nearer] = node, reached[nearer]
            grown.append(Tree(root=root, gathers=gathers, parent_V=tuple(parent), load_E=tuple(load)))
    return grown


def _mix(graph: Wires, trees: Sequence[Tree], share_V: Floats | None, kinds: Sequence[bool]) -> tuple[Packing, Floats]:
    """The mixture whose fullest wire is least full, and the price of each wire (dual value of its capacity)."""
    wire_count, count = len(graph.source_E), graph.endpoint_count
    bandwidth_E = graph.bandwidth_bytes_per_s_E / graph.bandwidth_bytes_per_s_E.mean()
    column = np.repeat(np.arange(len(trees)), [len(tree.load_E) for tree in trees])
    load = csr_array((np.ones(len(column)), (np.concatenate([tree.load_E for tree in trees]), column)),
                     shape=(wire_count, len(trees)))
    capacity = hstack([load, csr_array(-bandwidth_E[:, None])])
    row = np.asarray([tree.root + count * kinds.index(tree.gathers) for tree in trees])
    owned = csr_array((np.ones(len(trees)), (row, np.arange(len(trees)))), shape=(count * len(kinds), len(trees) + 1))
    if share_V is not None:
        equal, wanted = owned, np.tile(share_V, len(kinds))
    else:                                            # what is gathered at a root is spread from it, all of it once
        once = csr_array((np.ones(int((row < count).sum())), (np.zeros(int((row < count).sum()), dtype=int),
                                                              np.flatnonzero(row < count))), shape=(1, len(trees) + 1))
        equal = vstack([owned[:count] - owned[count:], once])
        wanted = np.append(np.zeros(count), 1.0)
    cost = np.append(np.zeros(len(trees)), 1.0)
    solved = linprog(cost, A_ub=capacity, b_ub=np.zeros(wire_count), A_eq=equal, b_eq=wanted, method="highs")
    used = solved.x[:-1] > 1e-9
    return Packing(trees=tuple(tree for tree, wanted_tree in zip(trees, used, strict=True) if wanted_tree),
                   share_T=solved.x[:-1][used],
                   time_s_per_byte=float(solved.fun) / float(graph.bandwidth_bytes_per_s_E.mean())), np.maximum(
        -solved.ineqlin.marginals, 0.0)
