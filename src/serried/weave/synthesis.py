"""Which schedule fits these wires, and how close is it to the best that any schedule could do?

Bound by cuts, trees by packing, then chunks: every tree carries its share, cut into chunks that are as alike as can be,
and chunk k of a tree runs one step behind chunk k - 1, so that all trees work at once.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serried.errors import BadInput
from serried.weave.bound import all_reduce_bound, broadcast_bound, gather_bound, reverse
from serried.weave.loom import Loom
from serried.weave.pipeline import Pieces, Pipeline, pipelined
from serried.weave.spec import SEND, Operation, Schedule
from serried.weave.stock import ALGORITHMS, stock_schedule
from serried.weave.timing import message_bytes_K, paths, schedule_time_s
from serried.weave.trees import Packing, Tree, pack_trees
from serried.weave.wires import Wires

__all__ = ["Synthesis", "stock_times_s", "synthesise"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
#: Steps that a fitted schedule may have, and the chunks per root that are tried within them.
_MOST_STEPS = 70_000
_GRAINS = (1, 2, 4, 8, 16, 32, 64, 128)
#: Shares are rounded to whole units: of the buffer at least so many, and so many a chunk.
_UNITS, _UNITS_A_CHUNK = 4096, 4
#: On graphs of so few endpoints every chunking is timed in full; list schedules within 1/_ALIKE are alike.
_FEW, _ALIKE = 16, 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesis:
    """A fitted schedule. bound_s: no schedule is faster for long buffers; packed_s: its trees on the fullest wire;
    chunked_s: the same in whole chunks; time_s: predicted with latency and pipelining."""

    schedule: Schedule
    bound_s: float
    packed_s: float
    chunked_s: float
    time_s: float
    tree_count: int


def synthesise(operation: Operation, graph: Wires, payload_bytes: float, *, root: int = 0, step_s: float = 0.0,
               seed: int = 0, grain: int | None = None) -> Synthesis:
    """The fitted schedule of an operation for a buffer of payload_bytes on explicit wires.

    step_s: software cost of a message. grain: chunks per root, by default the best of a few by predicted time.
    """
    if operation == "all_to_all":
        raise BadInput(field="operation", value=operation, expected="an operation that trees can do",
                       remedy="All-to-all has no data in common to pack; compare its stock algorithms instead.")
    bound, packing = _packing(operation, graph, root, seed)
    schedules = [_weave(operation, graph, found, root)
                 for found in _pipelines(operation, graph, packing, payload_bytes, root, step_s, grain)]
    times_s = [schedule_time_s(schedule, graph, payload_bytes, step_s=step_s) for schedule in schedules]
    best = int(np.argmin(times_s))
    return Synthesis(schedule=schedules[best], bound_s=bound * payload_bytes, time_s=times_s[best],
                     packed_s=packing.time_s_per_byte * payload_bytes,
                     chunked_s=_fullest_s_per_byte(graph, schedules[best]) * payload_bytes,
                     tree_count=len(packing.trees))


def _pipelines(operation: Operation, graph: Wires, packing: Packing, payload_bytes: float, root: int, step_s: float,
               grain: int | None) -> list[Pipeline]:
    """All chunkings of a small graph, coarsest first; of a large one that which the quick list schedule finds best, the
    finest of those that it finds alike."""
    count, routes = graph.endpoint_count, paths(graph)
    found: list[Pipeline] = []
    for each in _GRAINS if grain is None else (grain,):
        pieces = _pieces(operation, packing, each, count, root)
        if 2 * sum(len(units) * len(way) for way, units in pieces.items()) * (count - 1) > _MOST_STEPS and found:
            break
        found.append(pipelined(graph, routes, pieces, payload_bytes, step_s=step_s))
        least_s = min(each.time_s for each in found)
        if found[-1].time_s > 1.2 * least_s or (count > _FEW and least_s <= 1.01 * packing.time_s_per_byte *
                                                payload_bytes):
            break
    if count <= _FEW:
        return found
    return [min(reversed(found), key=lambda pipeline: round(math.log(pipeline.time_s) * _ALIKE))]


def stock_times_s(operation: Operation, graph: Wires, payload_bytes: float, *, tiers: Sequence[int] = (),
                  step_s: float = 0.0, root: int = 0) -> dict[str, float]:
    """Predicted time of every stock algorithm that can run on these wires, best chunk count each."""
    found: dict[str, float] = {}
    for algorithm in ALGORITHMS[operation]:
        if algorithm == "in_switch" or (algorithm in ("hierarchical", "rail_aligned", "two_level") and not tiers):
            continue
        for chunks in (1, 4, 16):
            try:
                made = stock_schedule(operation, algorithm, graph.endpoint_count, chunks=chunks, root=root,
                                      tiers=tiers if algorithm in ("hierarchical", "rail_aligned", "two_level") else ())
                if len(made.steps) > _MOST_STEPS // 4 and algorithm in found:
                    break
                time_s = schedule_time_s(made, graph, payload_bytes, step_s=step_s)
            except BadInput:          # this algorithm wants other counts, or wires that are not there
                break
            found[algorithm] = min(time_s, found.get(algorithm, np.inf))
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _packing(operation: Operation, graph: Wires, root: int, seed: int) -> tuple[float, Packing]:
    count = graph.endpoint_count
    alike_V = np.full(count, 1.0 / count)
    if operation == "all_reduce":
        bound = all_reduce_bound(graph)
        return bound, pack_trees(graph, None, spreads=True, gathers=True, bound_s_per_byte=bound, seed=seed)
    if operation == "broadcast":
        bound = broadcast_bound(graph, root)
        return bound, pack_trees(graph, np.eye(count)[root], spreads=True, gathers=False, bound_s_per_byte=bound,
                                 seed=seed, first_rounds=4 * count)
    gathers = operation == "reduce_scatter"
    bound = gather_bound(reverse(graph) if gathers else graph)
    return bound, pack_trees(graph, alike_V, spreads=not gathers, gathers=gathers, bound_s_per_byte=bound, seed=seed)


def _pieces(operation: Operation, packing: Packing, grain: int, count: int, root: int) -> Pieces:
    """The chunks that go through each tree, or through each pair of trees to and from one root."""
    ways: dict[tuple[Tree, ...], float] = {}
    by_root: dict[tuple[int, bool], list[tuple[Tree, float]]] = {}
    for tree, share in zip(packing.trees, packing.share_T.tolist(), strict=True):
        by_root.setdefault((tree.root, tree.gathers), []).append((tree, share))
    for (owner, gathers), listed in sorted(by_root.items(), key=lambda item: item[0]):
        if operation != "all_reduce":
            ways |= {(tree,): share for tree, share in listed}
        elif not gathers:
            ways |= _paired(by_root[(owner, True)], listed)
    if operation in ("all_reduce", "broadcast"):
        return _cut(ways, grain * count)
    found: Pieces = {}
    for owner in range(count):             # shares of ranks must be cut alike: their chunks are equal
        mine = {way: share for way, share in ways.items() if way[0].root == owner}
        given_W = _rounded(np.asarray(list(mine.values())), grain).tolist()
        found |= {way: (1,) * given for way, given in zip(mine, given_W, strict=True) if given}
    return found


def _paired(up: Sequence[tuple[Tree, float]], down: Sequence[tuple[Tree, float]]) -> dict[tuple[Tree, ...], float]:
    """Both lists cut the root's share; laid over each other, every stretch has one tree of each."""
    pairs: dict[tuple[Tree, ...], float] = {}
    left = [list(each) for each in (up, down)]
    while left[0] and left[1]:
        (one, first), (other, second) = left[0][0], left[1][0]
        length = min(first, second)
        if length > 1e-9:
            pairs[(one, other)] = length
        for side, share in ((left[0], first), (left[1], second)):
            side[0] = (side[0][0], share - length)
            if side[0][1] <= 1e-9:
                side.pop(0)
    return pairs


def _cut(ways: dict[tuple[Tree, ...], float], chunks: int) -> Pieces:
    """Every way's share in chunks as alike as can be, `chunks` in all; of too many ways the least are left out."""
    kept = sorted(sorted(ways, key=lambda way: -ways[way])[:chunks], key=list(ways).index)
    units = chunks * max(-(-_UNITS // chunks), _UNITS_A_CHUNK)
    units_W = _rounded(np.asarray([ways[way] for way in kept]), units)
    given_W = np.minimum(units_W, 1)
    queue = [(-units, place) for place, units in enumerate(units_W.tolist())]
    heapq.heapify(queue)
    for _ in range(chunks - given_W.sum()):          # the way of the largest chunks is cut once more
        place = queue[0][1]
        given_W[place] += 1
        heapq.heapreplace(queue, (-units_W[place] / given_W[place], place))
    return {way: tuple(np.diff(np.arange(given + 1) * units // given).tolist())
            for way, given, units in zip(kept, given_W.tolist(), units_W.tolist(), strict=True) if given}


def _rounded(share_T: Floats, whole: int) -> Ints:
    """Shares of a whole in whole numbers: the largest remainders are rounded up."""
    exact_T = share_T / share_T.sum() * whole
    given_T: Ints = np.floor(exact_T + 1e-9).astype(np.int64)
    given_T[np.argsort(given_T - exact_T, kind="stable")[:whole - given_T.sum()]] += 1
    return given_T


def _fullest_s_per_byte(graph: Wires, schedule: Schedule) -> float:
    """What the fullest wire takes for each byte of the buffer, in whole chunks."""
    routes, load_E = paths(graph), np.zeros(len(graph.source_E))
    steps, part_K = schedule.steps, message_bytes_K(schedule, 1.0)
    for sender, receiver, part in zip(*(column[steps.kind_K == SEND].tolist() for column in (
            steps.rank_K, steps.peer_K, part_K)), strict=True):
        load_E[list(routes[(sender, receiver)])] += part
    return float((load_E / graph.bandwidth_bytes_per_s_E).max())


def _weave(operation: Operation, graph: Wires, found: Pipeline, root: int) -> Schedule:
    """The messages in the order in which they begin; what is gathered and what is spread have a channel each."""
    loom = Loom(operation, graph.endpoint_count, found.units_C, root=root)
    for chunk, sender, receiver, adds in found.messages:
        loom.move(sender, receiver, [chunk], reduce=adds, channel=0 if adds else 1)
    return loom.schedule(f"{operation} fitted to {graph.name}")
