"""In which order should the chunks of a packing of trees travel?

A list schedule: whenever the wire by which an endpoint sends is free, the message goes that is furthest behind: chunk k
of a tree, d steps from where it begins, is due in round k + d, so that all trees work at once and early chunks end
early. Sums are added in the order in which they arrive. Wires are shared as in `serried.weave.timing`.

Axes: M = message, E = directed wire.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serried.weave.timing import Path
from serried.weave.trees import Tree
from serried.weave.wires import Wires

__all__ = ["Pieces", "Pipeline", "pipelined"]

#: Chunks by the tree, or pair of trees, that they take: how many units of the buffer each has.
Pieces = dict[tuple[Tree, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """Messages as (chunk, sender, receiver, adds) in the order in which they begin, and when the last has arrived;
    units_C: the buffer's chunks in proportion."""

    messages: tuple[tuple[int, int, int, bool], ...]
    units_C: tuple[int, ...]
    time_s: float


@dataclass(slots=True, kw_only=True)
class _Messages:
    """Columns by message: what it is; its round, and its turn in it; how many it waits for; who waits for it."""

    told: list[tuple[int, int, int, bool]]
    due: list[tuple[int, int]]
    needs: list[int]
    frees: list[list[int]]


def pipelined(graph: Wires, routes: Mapping[tuple[int, int], Path], pieces: Pieces, payload_bytes: float, *,
              step_s: float = 0.0) -> Pipeline:
    """The list schedule of `pieces`."""
    messages, units_C = _messages(pieces)
    unit_bytes = payload_bytes / sum(units_C)
    bandwidth, latency = graph.bandwidth_bytes_per_s_E.tolist(), graph.latency_s_E.tolist()
    free_s, chooses, busy_s = [0.0] * len(bandwidth), [False] * len(bandwidth), [0.0] * graph.endpoint_count
    waiting: list[list[tuple[int, int, int]]] = [[] for _ in bandwidth]
    # Events: first what is ready at a moment (0, message), then the wires that choose among it (1, wire).
    events = [(0.0, 0, number) for number, needs in enumerate(messages.needs) if not needs]
    begun: list[int] = []
    last_s = 0.0
    while events:
        now_s, is_choice, number = heapq.heappop(events)
        if not is_choice:
            wire = routes[messages.told[number][1:3]][0]
            heapq.heappush(waiting[wire], (*messages.due[number], number))
            if not chooses[wire]:
                chooses[wire] = True
                heapq.heappush(events, (max(now_s, free_s[wire]), 1, wire))
            continue
        if not waiting[number]:
            chooses[number] = False
            continue
        sent = heapq.heappop(waiting[number])[2]
        begun.append(sent)
        chunk, sender = messages.told[sent][:2]
        chunk_bytes = units_C[chunk] * unit_bytes
        begin_s = arrive_s = busy_s[sender] = max(now_s, busy_s[sender]) + step_s / 2
        for wire in routes[messages.told[sent][1:3]]:
            begin_s = max(begin_s, free_s[wire])
            free_s[wire] = begin_s + chunk_bytes / bandwidth[wire]
            begin_s += latency[wire]
            arrive_s = max(arrive_s, free_s[wire] + latency[wire])
        heapq.heappush(events, (free_s[number], 1, number))
        arrive_s += step_s / 2
        last_s = max(last_s, arrive_s)
        for freed in messages.frees[sent]:
            messages.needs[freed] -= 1
            if not messages.needs[freed]:
                heapq.heappush(events, (arrive_s, 0, freed))
    assert len(begun) == len(messages.told), "trees cannot deadlock"
    return Pipeline(messages=tuple(messages.told[number] for number in begun), units_C=units_C, time_s=last_s)


def _messages(pieces: Pieces) -> tuple[_Messages, tuple[int, ...]]:
    """Every hop of every chunk, and units by chunk; roots in order, so that chunks are numbered by their root."""
    found, units_C = _Messages(told=[], due=[], needs=[], frees=[]), list[int]()
    for way, cut in sorted(pieces.items(), key=lambda item: item[0][0].root):
        depths = [tree.depth_V() for tree in way]
        for turn, units in enumerate(cut):
            begin, into_root = turn, list[int]()
            for tree, depth_V in zip(way, depths, strict=True):
                into_root = _tree(found, tree, depth_V, len(units_C), begin, into_root)
                begin += max(depth_V)
            units_C.append(units)
    return found, tuple(units // math.gcd(*units_C) for units in units_C)


def _tree(found: _Messages, tree: Tree, depth_V: Sequence[int], chunk: int, begin: int, before: Sequence[int]
          ) -> list[int]:
    """Append one tree's messages for a chunk, its root waiting for `before`; returns the messages into its root."""
    count, height = len(depth_V), max(depth_V)
    number_V = [-1] * count                # the message between an endpoint and its parent
    for node, parent in enumerate(tree.parent_V):
        if parent >= 0:
            number_V[node] = len(found.told)
            ends = (node, parent) if tree.gathers else (parent, node)
            turn = height - depth_V[node] if tree.gathers else depth_V[node] - 1
            found.told.append((chunk, *ends, tree.gathers))
            # Of messages due in one round the nearest goes first, each counting from itself: nobody is everyone's
            # target.
            found.due.append((begin + turn, (ends[1] - ends[0]) % count))
            found.needs.append(0)
            found.frees.append([])
    into_root = []
    for node, parent in enumerate(tree.parent_V):
        if parent < 0:
            continue
        mine, above = number_V[node], number_V[parent]
        if above >= 0:
            early, late = (mine, above) if tree.gathers else (above, mine)
            found.frees[early].append(late)
            found.needs[late] += 1
            continue
        if tree.gathers:
            into_root.append(mine)
        for early in before:
            found.frees[early].append(mine)
            found.needs[mine] += 1
    return into_root
