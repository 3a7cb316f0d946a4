"""Requests through time on a cluster of engines: one conservative event loop, exact for a seed.

Events are the ends of runs of engines, the ends of transfers and of their latency, and arrivals; at equal times runs
end first, then transfers, then requests arrive, each in the order of their number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from heapq import heappop, heappush
from math import lcm

import numpy as np

from serried.engine.batch import Engine
from serried.engine.group import Task
from serried.engine.legality import refuse_illegal
from serried.engine.spec import Cluster, EnginePool, SimulationLog
from serried.engine.speculation import decode_steps
from serried.engine.transfer import Transfers
from serried.errors import BadInput
from serried.traffic.spec import Requests

__all__ = ["ROUTERS", "simulate"]

Progress = Callable[[int, int], None]
_REPORT_EVERY = 256
_RUN, _TRANSFER, _DELIVERY, _ARRIVAL = 0, 1, 2, 3


def simulate(requests: Requests, cluster: Cluster, *, seed: int = 0, progress: Progress | None = None,
             keep_spans: bool = False) -> SimulationLog:
    """When every request was scheduled, saw its first and its last token, and what the engines did meanwhile.

    A request that no engine can ever hold is refused (reason 1) and takes no time. In a closed loop requests come in
    their order, whatever session they belong to. seed: of drafts that are accepted.
    progress: called with (requests that ended, all); whatever it raises ends the simulation, except that on
    KeyboardInterrupt the log of what has ended is returned, -1 where nothing has happened yet. Raises BadInput where
    columns or settings make no sense (see `legality`).
    """
    refuse_illegal(requests, cluster)
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
        pool = cluster.prefill
        self._prefixes((pool or cluster.serve).engine.settings.block_tokens)
        self.front = [] if pool is None else [
            Engine(pool.engine, number, self, unit_blocks=self.unit_blocks, unit_sizes=self.unit_sizes,
                   keep_spans=keep_spans, prefill_only=True) for number in range(pool.count)]
        self.back = [Engine(cluster.serve.engine, len(self.front) + number, self, unit_blocks=self.unit_blocks,
                            unit_sizes=self.unit_sizes, keep_spans=keep_spans)
                     for number in range(cluster.serve.count)]
        self.engines = self.front + self.back
        self.router = _Router(pool or cluster.serve, self.front or self.back)
        self.back_router = _Router(cluster.serve, self.back)
        self.transfers = None if cluster.transfer is None else Transfers(cluster.transfer)
        self.moving: dict[int, tuple[Task, Engine, Engine]] = {}   # task, sender, receiver

    def _prefixes(self, block_tokens: int) -> None:
        """What of a prompt can be found again, as units of whole blocks: so many hashed blocks that they fill blocks of
        the engine, or what each earlier turn of the session added to the cache."""
        requests = self.requests
        self.unit_tokens = lcm(requests.hash_block_tokens, block_tokens) if requests.hash_block_tokens else 0
        self.unit_blocks = self.unit_tokens // block_tokens
        self.unit_sizes: dict[int, int] = {}
        self.followers: dict[int, list[int]] = {}
        self.past: dict[int, tuple[int, ...]] = {}   # request -> units of the turns before it
        self.previous: list[int] = requests.previous_R.tolist()
        whole: dict[int, int] = {}   # blocks that a request leaves full
        for number, before in enumerate(self.previous):
            if before < 0:
                continue
            self.followers.setdefault(before, []).append(number)
            if not self.unit_tokens:
                kept = self.input[before] + (0 if self.cluster.prefill else self.output[before] - 1)
                earlier = self.previous[before]
                whole[before] = kept // block_tokens
                self.unit_sizes[-before - 2] = whole[before] - (whole[earlier] if self.past.get(before) else 0)
                if self.input[number] >= kept:   # else it does not go on from there
                    self.past[number] = (*self.past.get(before, ()), -before - 2)

    def _units(self, number: int) -> tuple[int, ...]:
        if not self.unit_tokens:
            return self.past.get(number, ())
        stride, start = self.unit_tokens // self.requests.hash_block_tokens, self.starts[number]
        end = min(start + self.input[number] // self.unit_tokens * stride, self.starts[number + 1])
        return tuple(self.hashes[start + stride - 1:end:stride])

    # the loop

    def run(self, progress: Progress | None) -> None:
        count, in_flight = len(self.requests), self.requests.in_flight
        if in_flight:
            self.waiting_loop = iter(range(min(in_flight, count), count))
            for number in range(min(in_flight, count)):
                self._arrive_at(number, self.arrival_ns[number])
        elif not self.followers:
            self._run_open(progress)
            return
        else:
            for number, before in enumerate(self.previous):
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
        elif kind == _DELIVERY:
            self._received(number, now_ns)
        elif self.transfers is not None and self.transfers.next_ns == now_ns:
            for request in self.transfers.finish(now_ns):
                self._sent(request, now_ns)
            self._await_transfers()

    def _arrive_at(self, number: int, time_ns: int) -> None:
        heappush(self.events, (time_ns, _ARRIVAL, number, 0))

    def _await_transfers(self) -> None:
        if self.transfers is not None and self.transfers.next_ns >= 0:
            heappush(self.events, (self.transfers.next_ns, _TRANSFER, 0, 0))

    def _arrive(self, number: int, now_ns: int) -> None:
        self.arrival_ns[number] = now_ns
        tokens, output = self.input[number], self.output[number]
        if not (self.back[0].can_hold(tokens, output - 1) and (not self.front or self.front[0].can_hold(tokens, 0))):
            self.reason[number] = 1
            self._over(number, now_ns)
            return
        leaves = number in self.followers and not self.unit_tokens
        task = Task(number, tokens, self.steps[number], output - 1, self._units(number), -number - 2 if leaves else 0)
        self._give(self.router.choose(task), task, now_ns)

    def _give(self, engine: Engine, task: Task, now_ns: int) -> None:
        self.engine_of[task.request] = engine.number
        if engine.submit(task, now_ns):
            heappush(self.events, (engine.next_ns, _RUN, engine.number, engine.run))

    def _sent(self, request: int, now_ns: int) -> None:
        """A cache is on its way as a whole: its blocks are free where it came from."""
        task, sender, _ = self.moving[request]
        was_idle = sender.next_ns < 0
        if sender.release(task, now_ns) and was_idle:
            heappush(self.events, (sender.next_ns, _RUN, sender.number, sender.run))
        assert self.cluster.transfer is not None, "what was sent had wires"
        heappush(self.events, (now_ns + round(self.cluster.transfer.latency_s * 1e9), _DELIVERY, request, 0))

    def _received(self, request: int, now_ns: int) -> None:
        """A cache has come, and its request waits for a seat where it is."""
        task, _, receiver = self.moving.pop(request)
        receiver.outstanding -= 1   # it is counted again as it is queued
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
        """The task's first token is there. What a prefill engine computes travels with the cache: who asked hears it
        from the engine that decodes, when that has taken the request in."""
        number = task.request
        if self.engines[self.engine_of[number]].prefill_only and self.output[number] > 1:
            return
        if self.first_ns[number] < 0:
            self.first_ns[number] = time_ns

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
        receiver.outstanding += 1
        self.moving[number] = task, sender, receiver
        self.transfers.begin(number, sender.number, receiver.number, task.prompt, time_ns)
        self._await_transfers()

    def _over(self, number: int, time_ns: int) -> None:
        """A request is over: the next of its session, or of a closed loop, may come."""
        self.ended += 1
        if self.requests.in_flight:
            following = next(self.waiting_loop, None)
            if following is not None:
                self._arrive_at(following, time_ns + self.think_ns[following])
            return
        for following in self.followers.get(number, ()):
            self._arrive_at(following, max(self.arrival_ns[following], time_ns + self.think_ns[following]))

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
