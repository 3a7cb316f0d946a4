"""Requests through time on a cluster of engines: one conservative event loop, exact for a seed.

Events are the ends of runs of engines, the ends of transfers, and arrivals; at equal times runs end first, then
transfers, then requests arrive, each in the order of their number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from heapq import heappop, heappush

import numpy as np

from serried.engine.batch import Engine, Task
from serried.engine.spec import Cluster, EnginePool, SimulationLog
from serried.engine.speculation import decode_steps
from serried.engine.transfer import Transfers
from serried.errors import BadInput
from serried.traffic.spec import Requests

__all__ = ["ROUTERS", "simulate"]

Progress = Callable[[int, int], None]
_REPORT_EVERY = 256
_RUN, _TRANSFER, _ARRIVAL = 0, 1, 2


def simulate(requests: Requests, cluster: Cluster, *, seed: int = 0, progress: Progress | None = None,
             keep_spans: bool = False) -> SimulationLog:
    """When every request was scheduled, saw its first and its last token, and what the engines did meanwhile.

    A request that no engine can ever hold is refused (reason 1) and takes no time. seed: of drafts that are accepted.
    progress: called with (requests that ended, all); whatever it raises ends the simulation, except that on
    KeyboardInterrupt the log of what has ended is returned, -1 where nothing has happened yet.
    """
    simulation = _Simulation(requests, cluster, seed, keep_spans)
    with contextlib.suppress(KeyboardInterrupt):
        simulation.run(progress)
    return simulation.log()


class _Simulation:
    """The loop and its books; engines tell it what becomes of tasks."""

    def __init__(self, requests: Requests, cluster: Cluster, seed: int, keep_spans: bool) -> None:
        self.requests, self.cluster = requests, cluster
        count = len(requests)
        self.arrival_ns: list[int] = requests.arrival_ns_R.tolist()
        self.input: list[int] = requests.input_tokens_R.tolist()
        self.output: list[int] = requests.output_tokens_R.tolist()
        self.scheduled_ns, self.first_ns, self.last_ns = [-1] * count, [-1] * count, [-1] * count
        self.cached, self.preempted, self.engine_of, self.reason = [0] * count, [0] * count, [-1] * count, [0] * count
        steps_R = decode_steps(requests.output_tokens_R - 1, cluster.serve.engine.settings.acceptance, seed)
        self.steps: list[int] = steps_R.tolist()
        self.starts: list[int] = requests.block_start_R.tolist()
        self.hashes: list[int] = requests.block_hash_H.tolist()
        self.events: list[tuple[int, int, int, int]] = []   # (time, kind, number, run)
        self.think_ns: list[int] = requests.think_ns_R.tolist() or [0] * count
        self.ended = 0
        units = -(-requests.hash_block_tokens // cluster.serve.engine.settings.block_tokens) or 1
        pool = cluster.prefill
        self.front = [] if pool is None else [
            Engine(pool.engine, number, self, unit_blocks=units, keep_spans=keep_spans, prefill_only=True)
            for number in range(pool.count)]
        self.back = [Engine(cluster.serve.engine, len(self.front) + number, self, unit_blocks=units,
                            keep_spans=keep_spans) for number in range(cluster.serve.count)]
        self.engines = self.front + self.back
        self.router = _Router(pool or cluster.serve, self.front or self.back)
        self.back_router = _Router(cluster.serve, self.back)
        self.transfers = None if cluster.transfer is None else Transfers(cluster.transfer)
        if (pool is None) != (self.transfers is None):
            raise BadInput(field="cluster", value="prefill without transfer" if pool else "transfer without prefill",
                           expected="a prefill pool and a transfer, or neither", remedy="Give both or none.")
        self.sent: dict[int, tuple[Task, Engine, Engine]] = {}
        self.limits = [(one.engine.kv_blocks, one.engine.settings.block_tokens, one is cluster.serve)
                       for one in (pool, cluster.serve) if one is not None]
        self._sessions()

    def _sessions(self) -> None:
        """Who follows whom, and what of a session's past can be found again."""
        previous_R = self.requests.previous_R.tolist()
        self.follower: dict[int, int] = {}
        self.past: dict[int, tuple[int, ...]] = {}
        self.has_previous = previous_R
        hashed = bool(self.requests.hash_block_tokens)
        for number, before in enumerate(previous_R):
            if before >= 0:
                self.follower[before] = number
                if not hashed:
                    self.past[number] = (*self.past.get(before, ()), -before - 2)

    # the loop

    def run(self, progress: Progress | None) -> None:
        count, in_flight = len(self.requests), self.requests.in_flight
        if in_flight:
            self.waiting_loop = iter(range(min(in_flight, count), count))
            for number in range(min(in_flight, count)):
                self._arrive_at(number, self.arrival_ns[number])
        elif not self.has_previous:
            self._run_open(progress)
            return
        else:
            for number, before in enumerate(self.has_previous):
                if before < 0:
                    self._arrive_at(number, self.arrival_ns[number])
        reported, events = 0, self.events
        while events:
            self._happen(*heappop(events))
            if progress is not None and self.ended - reported >= _REPORT_EVERY:
                reported = self.ended
                progress(self.ended, count)
        if progress is not None:
            progress(self.ended, count)

    def _run_open(self, progress: Progress | None) -> None:
        """Arrivals are known beforehand and sorted: no need to pass them through the heap."""
        events, arrival_ns, reported, count = self.events, self.arrival_ns, 0, len(self.requests)
        for number in range(count):
            now_ns = arrival_ns[number]
            while events and (events[0][0] < now_ns or (events[0][0] == now_ns and events[0][1] < _ARRIVAL)):
                self._happen(*heappop(events))
            self._arrive(number, now_ns)
            if progress is not None and self.ended - reported >= _REPORT_EVERY:
                reported = self.ended
                progress(self.ended, count)
        while events:
            self._happen(*heappop(events))
        if progress is not None:
            progress(self.ended, count)

    def _happen(self, now_ns: int, kind: int, number: int, run: int) -> None:
        if kind == _RUN:
            engine = self.engines[number]
            if engine.run == run:   # else it was cut, and its new end stands in the heap
                engine.advance()
                if engine.next_ns >= 0:
                    heappush(self.events, (engine.next_ns, _RUN, number, engine.run))
        elif kind == _ARRIVAL:
            self._arrive(number, now_ns)
        elif self.transfers is not None and self.transfers.next_ns == now_ns:
            for request in self.transfers.finish(now_ns):
                self._received(request, now_ns)
            self._await_transfers()

    def _arrive_at(self, number: int, time_ns: int) -> None:
        heappush(self.events, (time_ns, _ARRIVAL, number, 0))

    def _await_transfers(self) -> None:
        if self.transfers is not None and self.transfers.next_ns >= 0:
            heappush(self.events, (self.transfers.next_ns, _TRANSFER, 0, 0))

    def _arrive(self, number: int, now_ns: int) -> None:
        self.arrival_ns[number] = now_ns
        tokens, output = self.input[number], self.output[number]
        for blocks, block, decodes in self.limits:
            if -(-(tokens + (output if decodes else 0)) // block) > blocks:
                self.reason[number] = 1
                self._over(number, now_ns)
                return
        units = self.past.get(number, ())
        if self.requests.hash_block_tokens:
            units = tuple(self.hashes[self.starts[number]:self.starts[number + 1]])
        follows = number in self.follower and not self.requests.hash_block_tokens
        task = Task(number, tokens, self.steps[number], output - 1, units, -number - 2 if follows else 0)
        self._give(self.router.choose(task), task, now_ns)

    def _give(self, engine: Engine, task: Task, now_ns: int) -> None:
        self.engine_of[task.request] = engine.number
        if engine.submit(task, now_ns):
            heappush(self.events, (engine.next_ns, _RUN, engine.number, engine.run))

    def _received(self, request: int, now_ns: int) -> None:
        """A cache has come: its blocks are free where it came from, and it waits for a seat where it is."""
        task, sender, receiver = self.sent.pop(request)
        was_idle = sender.next_ns < 0
        if sender.release(task, now_ns) and was_idle:
            heappush(self.events, (sender.next_ns, _RUN, sender.number, sender.run))
        self._give(receiver, Task(request, task.prompt, self.steps[request], self.output[request] - 1,
                                  is_prefilled=True), now_ns)

    # what engines tell

    def scheduled(self, task: Task, time_ns: int) -> None:
        """The task began to be computed."""
        number = task.request
        if self.scheduled_ns[number] < 0:
            self.scheduled_ns[number] = time_ns
            self.cached[number] = task.cached

    def first_token(self, task: Task, time_ns: int) -> None:
        """Its prompt is computed."""
        if self.first_ns[task.request] < 0:
            self.first_ns[task.request] = time_ns

    def done(self, task: Task, time_ns: int) -> None:
        """It has all its tokens; on a prefill engine, its first."""
        number = task.request
        self.preempted[number] += task.preemptions
        sender = self.engines[self.engine_of[number]]
        if not sender.prefill_only or self.output[number] == 1:
            if sender.prefill_only:
                sender.release(task, time_ns)
            self.last_ns[number] = time_ns
            self._over(number, time_ns)
            return
        assert self.transfers is not None, "a prefill pool has wires behind it"
        receiver = self.back_router.choose(task)
        self.sent[number] = task, sender, receiver
        self.transfers.begin(number, sender.number, receiver.number, task.prompt, time_ns)
        self._await_transfers()

    def _over(self, number: int, time_ns: int) -> None:
        """A request is over: the next of its session, or of a closed loop, may come."""
        self.ended += 1
        following = self.follower.get(number)
        if following is not None:
            self._arrive_at(following, max(self.arrival_ns[following],
                                           time_ns + self.think_ns[following]))
        elif self.requests.in_flight and (following := next(self.waiting_loop, None)) is not None:
            self._arrive_at(following, time_ns + self.think_ns[following])

    def log(self) -> SimulationLog:
        """The books as columns."""
        columns: dict[str, list[int]] = {
            "arrival_ns_R": self.arrival_ns, "scheduled_ns_R": self.scheduled_ns, "first_token_ns_R": self.first_ns,
            "last_token_ns_R": self.last_ns, "cached_tokens_R": self.cached, "preemptions_R": self.preempted,
            "engine_R": self.engine_of, "reason_R": self.reason,
            "busy_ns_E": [engine.busy_ns for engine in self.engines],
            "steps_E": [engine.steps for engine in self.engines],
            "tokens_E": [engine.tokens for engine in self.engines],
            "peak_blocks_E": [max(group.pool.peak for group in engine.groups) for engine in self.engines],
            "prefill_ns_E": [engine.prefill_ns for engine in self.engines],
            "brought_ns_E": [engine.brought_ns for engine in self.engines],
            "evicted_blocks_E": [sum(group.pool.evicted for group in engine.groups) for engine in self.engines]}
        spans = sorted(span for engine in self.engines for span in engine.spans)
        return SimulationLog(**{name: np.array(column, dtype=np.int64) for name, column in columns.items()},
                             end_ns=max(self.last_ns, default=0), spans=tuple(spans))


class _Router:
    """Chooses an engine of a pool for a task."""

    def __init__(self, pool: EnginePool, engines: list[Engine]) -> None:
        if pool.router not in ROUTERS:
            raise BadInput(field="router", value=pool.router, expected=f"one of {', '.join(ROUTERS)}",
                           remedy="least_loaded is the usual one.")
        self.engines, self.choice, self.turn = engines, ROUTERS[pool.router], -1

    def choose(self, task: Task) -> Engine:
        """The engine that the task goes to."""
        self.turn += 1
        if len(self.engines) == 1:
            return self.engines[0]
        return self.choice(self.engines, task, self.turn)


def _least_loaded(engines: list[Engine], task: Task, turn: int) -> Engine:
    return min(engines, key=lambda engine: (engine.outstanding, engine.number))


def _round_robin(engines: list[Engine], task: Task, turn: int) -> Engine:
    return engines[turn % len(engines)]


def _prefix(engines: list[Engine], task: Task, turn: int) -> Engine:
    """The engine that has most of the prompt already; among equals the one with least to do."""
    if not task.units:
        return _least_loaded(engines, task, turn)
    return min(engines, key=lambda engine: (-max(group.pool.found(task.units)[0] for group in engine.groups),
                                            engine.outstanding, engine.number))


ROUTERS: dict[str, Callable[[list[Engine], Task, int], Engine]] = {
    "least_loaded": _least_loaded, "prefix": _prefix, "round_robin": _round_robin}
