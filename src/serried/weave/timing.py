"""How long does a schedule take on explicit wires?

Every message takes its path's latency and queues at each wire of the path for as long as the wire needs for it
(cut-through, first come first served): what shares a wire adds up, what does not runs beside it, and chunks pipeline.
A message starts when both its lanes are ready; a lane that sends goes on when its first wire is free again. Messages
land in places of their own: what their receiver waits for, they wait for only when they have come. The software of a
rank handles one message at a time, half of its cost at either end: many small messages keep it busy.

Axes: K = step, E = directed wire.
"""

from __future__ import annotations

import heapq

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from serried.errors import BadInput
from serried.weave.legality import message_pairs
from serried.weave.order import lane_edges
from serried.weave.spec import RECEIVE, RECEIVE_REDUCE, SEND, Schedule, place
from serried.weave.wires import Wires

__all__ = ["Ways", "message_bytes_K", "paths", "schedule_time_s"]

Path = tuple[int, ...]


class Ways:
    """The cheapest paths between endpoints through switches alone; cost_VV is infinite where only endpoints lead.

    price_E: by default the time of a megabyte. A path is walked when it is asked for: few of all pairs ever are.
    """

    def __init__(self, graph: Wires, price_E: np.ndarray | None = None) -> None:
        count, nodes = graph.endpoint_count, graph.node_count
        priced_E = 1e6 / graph.bandwidth_bytes_per_s_E + graph.latency_s_E if price_E is None else price_E
        # An endpoint is left from its own number and reached at nodes + number, so that no path leads through it.
        reached_E = np.where(graph.target_E < count, nodes + graph.target_E, graph.target_E)
        matrix = csr_array((priced_E, (graph.source_E, reached_E)), shape=(nodes + count,) * 2)
        cost, self._before = dijkstra(matrix, indices=np.arange(count), return_predecessors=True)
        self.cost_VV: np.ndarray = cost[:, nodes:nodes + count]
        self._wire = dict(zip(zip(graph.source_E.tolist(), reached_E.tolist(), strict=True), range(len(reached_E)),
                              strict=True))
        self._nodes = nodes

    def path(self, source: int, target: int) -> Path:
        """The wires from one endpoint to another that it can reach."""
        node, found = self._nodes + target, []
        while node != source:
            before = int(self._before[source, node])
            found.append(self._wire[(before, node)])
            node = before
        return tuple(reversed(found))


def paths(graph: Wires) -> dict[tuple[int, int], Path]:
    """The wires of the cheapest path between every two endpoints that switches join."""
    ways = Ways(graph)
    return {(source, target): ways.path(source, target) for source, target in zip(
        *(ends.tolist() for ends in np.nonzero(np.isfinite(ways.cost_VV))), strict=True) if source != target}


def message_bytes_K(schedule: Schedule, payload_bytes: float) -> np.ndarray:
    """Bytes of each step's chunks; scratch counts the mean chunk. payload_bytes: of the whole buffer."""
    steps = schedule.steps
    share = schedule.chunk_count
    total = np.concatenate([[0], np.cumsum(schedule.chunk_weight_C)])
    sends = steps.kind_K == SEND
    first_K = np.where(steps.source_buffer_K == 2, 0, steps.source_chunk_K)
    if schedule.operation == "all_gather":   # its input is the rank's own share of the whole
        first_K = first_K + np.where(steps.source_buffer_K == 0, place(schedule, steps.rank_K)[0], 0)
    weight_K = total[np.minimum(first_K + steps.count_K, share)] - total[np.minimum(first_K, share)]
    weight_K = np.where(steps.source_buffer_K == 2, steps.count_K * total[-1] / share, weight_K)
    return np.where(sends, weight_K / total[-1] * payload_bytes, 0.0)


def schedule_time_s(schedule: Schedule, graph: Wires, payload_bytes: float, *, step_s: float = 0.0) -> float:
    """Seconds until the last step is over; rank i is endpoint i. step_s: software cost of every message."""
    if schedule.rank_count != graph.endpoint_count or schedule.switch_count:
        raise BadInput(field=schedule.name, value=schedule.rank_count + schedule.switch_count,
                       expected=f"a schedule for the {graph.endpoint_count} endpoints of {graph.name}",
                       remedy="Rank i runs on endpoint i; switches that add have no place on explicit wires.")
    routes = paths(graph)
    steps, count = schedule.steps, len(schedule.steps)
    bytes_K = message_bytes_K(schedule, payload_bytes).tolist()
    sends, receives = message_pairs(schedule)
    partner = dict(zip(sends.tolist(), receives.tolist(), strict=True))
    before, after = lane_edges(schedule)
    # A message begins at its send, which waits for the receiver's lane too.
    event = np.arange(count)
    event[receives] = sends
    waited = np.arange(len(after)) >= len(after) - len(steps.after_D)
    after = np.where(waited & (event[after] != after), after, event[after])
    waits = np.bincount(np.concatenate([after, receives]), minlength=count).tolist()
    order = np.argsort(before, kind="stable")
    targets = after[order].tolist()
    first = np.searchsorted(before[order], np.arange(count + 1)).tolist()
    ready_s, free_s, busy_s = [0.0] * count, [0.0] * len(graph.source_E), [0.0] * schedule.rank_count
    receives_K = np.isin(steps.kind_K, (RECEIVE, RECEIVE_REDUCE)).tolist()
    bandwidth, latency = graph.bandwidth_bytes_per_s_E.tolist(), graph.latency_s_E.tolist()
    ends = list(zip(steps.rank_K.tolist(), steps.peer_K.tolist(), strict=True))
    # Of messages that are ready at once the nearest goes first, each counting from itself: nobody is everyone's target.
    turn = np.where(steps.peer_K < 0, 0, (steps.peer_K - steps.rank_K) % schedule.rank_count).tolist()
    queue = [(0.0, turn[step], step) for step in range(count) if not waits[step]]
    heapq.heapify(queue)
    last_s = 0.0
    while queue:
        now_s, _, step = heapq.heappop(queue)
        ends_s, over, rank = now_s, targets[first[step]:first[step + 1]], ends[step][0]
        if receives_K[step]:
            ends_s = busy_s[rank] = max(now_s, busy_s[rank]) + step_s / 2
        last_s = max(last_s, ends_s)
        if step in partner:
            if ends[step] not in routes:
                raise BadInput(field=schedule.name, value=ends[step], expected="a path through switches alone",
                               remedy="Choose a schedule that follows the wires, or synthesise one.")
            begin_s = arrive_s = busy_s[rank] = max(now_s, busy_s[rank]) + step_s / 2
            for position, wire in enumerate(routes[ends[step]]):
                begin_s = max(begin_s, free_s[wire])
                free_s[wire] = begin_s + bytes_K[step] / bandwidth[wire]
                if position == 0:
                    ends_s = free_s[wire]
                begin_s += latency[wire]
                arrive_s = max(arrive_s, free_s[wire] + latency[wire])
            _tell([partner[step]], max(arrive_s, begin_s), ready_s, waits, turn, queue)
        _tell(over, ends_s, ready_s, waits, turn, queue)
    return last_s


def _tell(targets: list[int], at_s: float, ready_s: list[float], waits: list[int], turn: list[int],
          queue: list[tuple[float, int, int]]) -> None:
    """One of the things that each target waits for is over."""
    for target in targets:
        ready_s[target] = max(ready_s[target], at_s)
        waits[target] -= 1
        if not waits[target]:
            heapq.heappush(queue, (ready_s[target], turn[target], target))
