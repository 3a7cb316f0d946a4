"""The control plane as it lives: one thread that owns the reconciler, and a door for everybody else.

Requests wait in a queue and are taken together into the next step, so that one transaction serves many of them. Reads
are answered between steps, from the same books. When the ledger is lost, everybody who waits is told so, and the loop
takes the ledger up again, as after a crash.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import structlog

from serried.clock import SECOND_NS
from serried.control.charter import Charter
from serried.control.ledger import Ledger, LedgerLost
from serried.control.reconciler import Cancel, Command, Drain, Open, Reconciler, Submit, unknown_job
from serried.control.records import record_line
from serried.control.spec import JobSpec, JobView, NodeView, Terms, Usage
from serried.control.views import attempt_of, job_view, node_view, phase_of, usage_of
from serried.errors import BadInput, SerriedError
from serried.fleet import Why
from serried.runners import Engine

__all__ = ["ControlLoop", "SteadyClock"]

Value = TypeVar("Value")
#: Requests that one step takes in; the others wait for the next.
_MOST_REQUESTS = 256
#: Records that are sent at once.
_MOST_RECORDS = 10_000


class SteadyClock:
    """Nanoseconds since the Unix epoch that never go back, whatever becomes of the wall clock while we live: a wait of
    a second must not take an hour because somebody set the time."""

    def __init__(self) -> None:
        self._ahead_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """What it is by now."""
        return time.monotonic_ns() + self._ahead_ns

    def reach(self, time_ns: int) -> None:
        """Be no earlier than this: a ledger may have been written under a clock that was ahead."""
        self._ahead_ns = max(self._ahead_ns, time_ns - time.monotonic_ns())


@dataclass(slots=True)
class _Request(Generic[Value]):
    """What somebody waits for. command: to be written first; None for a read."""

    command: Command | None
    answer: Callable[[int], Value]
    future: Future[Value]


class ControlLoop:
    """Runs from `start` to `stop`. Every question answers a future at once; it fails with what went wrong."""

    def __init__(self, ledger: Ledger, engine: Engine, charter: Charter, terms: Terms | None = None, *,
                 clock: SteadyClock | None = None) -> None:
        self.engine, self.terms = engine, terms or Terms()
        self._ledger, self._charter, self._clock = ledger, charter, clock or SteadyClock()
        self._requests: queue.SimpleQueue[_Request[Any] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="serried-control", daemon=True)
        self._log = structlog.get_logger("serried.control")
        self._counts: Counter[str] = Counter()
        self._step_s = 0.0
        self.on_idle: Callable[[], None] = lambda: None   # called when a step found nothing to do
        self._reconciler: Reconciler | None = self._take_up()

    def start(self) -> None:
        """Begin to live. The ledger was read when the object was made."""
        self._thread.start()

    def stop(self) -> None:
        """End; what waits is told so. The jobs go on."""
        self._stopping.set()
        self._requests.put(None)
        self._thread.join()

    def wake(self) -> None:
        """Something was heard: look now. Any thread may call it."""
        self._requests.put(None)

    # questions

    def submit(self, spec: JobSpec, key: str = "") -> Future[int]:
        """The number of the job, once it is written and will survive anything."""
        return self._ask(Submit(spec=spec, key=key), lambda number: number)

    def cancel(self, number: int) -> Future[JobView]:
        """End a job."""
        return self._ask(Cancel(job=number), lambda job: job_view(self._now, job))

    def drain(self, node: str, why: str = "") -> Future[NodeView]:
        """Empty a node and let nothing new start there."""
        return self._ask(Drain(node=node, why=why), lambda number: node_view(self._now, number))

    def open(self, node: str) -> Future[NodeView]:
        """Let a node take work again."""
        return self._ask(Open(node=node), lambda number: node_view(self._now, number))

    def job(self, number: int) -> Future[JobView]:
        """One job, with its ranks."""
        return self._read(lambda: job_view(self._now, self._known(number)))

    def jobs(self, *, phase: str = "", tenant: str = "", after: int = -1, limit: int = 100) -> Future[list[JobView]]:
        """Jobs of a number above `after`, in the order of submission."""
        def found() -> list[JobView]:
            books, views = self._now.books, []
            for number in range(max(after + 1, 0), len(books.stories)):
                name = books.fleet.tenants[books.state.jobs[number].tenant].name
                if (not tenant or name == tenant) and (not phase or phase_of(self._now, number) == phase):
                    views.append(job_view(self._now, number, ranks=False))
                    if len(views) >= limit:
                        break
            return views
        return self._read(found)

    def why(self, number: int) -> Future[Why]:
        """Why a job waits, as the fleet stands now."""
        return self._read(lambda: self._now.policy.why(
            self._now.books.state.snapshot(self._now.now_ns), self._known(number)))

    def nodes(self) -> Future[list[NodeView]]:
        """Every node."""
        return self._read(lambda: [node_view(self._now, node) for node in range(self._now.books.fleet.node_count)])

    def usage(self) -> Future[Usage]:
        """The fleet at a glance."""
        return self._read(lambda: usage_of(self._now))

    def log_path(self, number: int, rank: int, epoch: int | None = None) -> Future[str]:
        """Where the output of a rank is, of the last attempt or that of an epoch."""
        def found() -> str:
            attempt = attempt_of(self._now, self._known(number), epoch)
            workers = self._now.books.stories[number].spec.workers
            if attempt.epoch < 0:
                raise BadInput(field="job", value=number, expected="a job that was started at least once",
                               remedy=f"`serried why {number}` says what it waits for.")
            if not 0 <= rank < workers:
                raise BadInput(field="rank", value=rank, expected=f"0 to {workers - 1}", remedy="Choose one of these.")
            return self.engine.log_path(attempt, rank)
        return self._read(found)

    def history(self, number: int) -> Future[list[dict[str, Any]]]:
        """What happened to a job: every record that speaks of it."""
        def found() -> list[dict[str, Any]]:
            records = [next(self._ledger.read(seq - 1)) for seq in self._now.books.stories[self._known(number)].seqs]
            return [{"seq": record.seq, "time_s": record.time_ns / SECOND_NS, "record": record.kind,
                     **record.fields()} for record in records]
        return self._read(found)

    def records(self, after: int = -1, limit: int = _MOST_RECORDS) -> Future[list[str]]:
        """Lines of the ledger, as JSON, for export and for replaying."""
        def found() -> list[str]:
            lines = []
            for record in self._ledger.read(after):
                lines.append(record_line(record))
                if len(lines) >= min(limit, _MOST_RECORDS):
                    break
            return lines
        return self._read(found)

    def counters(self) -> Future[dict[str, float]]:
        """Figures for a monitor: totals since the start, and the last step's time."""
        return self._read(lambda: {**self._counts, **self._now.counts, "step_s": self._step_s,
                                   "open_attempts": len(self._now.books.attempts),
                                   "pending_jobs": self._now.books.state.pending_count})

    # the thread

    @property
    def _now(self) -> Reconciler:
        if self._reconciler is None:
            raise LedgerLost("The ledger cannot be reached now.", remedy="Ask again in a moment, with the same key.")
        return self._reconciler

    def _known(self, number: int) -> int:
        count = len(self._now.books.stories)
        if not 0 <= number < count:
            raise unknown_job(number, count)
        return number

    def _read(self, answer: Callable[[], Value]) -> Future[Value]:
        return self._ask(None, lambda _: answer())

    def _ask(self, command: Command | None, answer: Callable[[int], Value]) -> Future[Value]:
        future: Future[Value] = Future()
        if self._stopping.is_set():
            future.set_exception(LedgerLost("The control plane is stopping.", remedy="Ask again when it is back."))
        else:
            self._requests.put(_Request(command, answer, future))
        return future

    def _take_up(self) -> Reconciler:
        found = Reconciler(self._ledger, self.engine, self._charter, self.terms, now_ns=self._clock.now_ns())
        self._clock.reach(found.books.time_ns)
        return found

    def _run(self) -> None:
        while not self._stopping.is_set():
            asked = self._collect()
            began_s = time.perf_counter()
            try:
                if self._reconciler is None:
                    self._reconciler = self._take_up()
                    self._log.info("ledger taken up again", records=self._reconciler.books.next_seq)
                if not self._step(self._reconciler, asked) and not asked:
                    self.on_idle()
            except LedgerLost as error:
                self._lose(asked, error)
            except Exception as error:
                self._log.exception("a step failed")
                self._lose(asked, LedgerLost(f"The control plane failed: {type(error).__name__}: {error}.",
                                             remedy="Its log says more; ask again with the same key."))
            self._step_s = time.perf_counter() - began_s
        for request in self._collect(wait=False):
            request.future.set_exception(LedgerLost("The control plane is stopping.",
                                                    remedy="Ask again when it is back."))

    def _collect(self, *, wait: bool = True) -> list[_Request[Any]]:
        """What was asked since the last step; waits for something to do, at most a tick."""
        found: list[_Request[Any]] = []
        pause_s = self._pause_s() if wait else 0.0
        try:
            first = self._requests.get(timeout=pause_s) if pause_s > 0 else self._requests.get_nowait()
            while True:
                if first is not None and first.future.set_running_or_notify_cancel():
                    found.append(first)
                    if len(found) >= _MOST_REQUESTS:
                        break
                first = self._requests.get_nowait()
        except queue.Empty:
            pass
        return found

    def _pause_s(self) -> float:
        """Until the next tick, or until something is due before."""
        pause_ns = self.terms.tick_ns
        if self._reconciler is not None and self._reconciler.next_ns >= 0:
            pause_ns = min(pause_ns, max(self._reconciler.next_ns - self._clock.now_ns(), 1_000_000))
        return pause_ns / SECOND_NS

    def _step(self, reconciler: Reconciler, asked: list[_Request[Any]]) -> bool:
        """Whether anything was written."""
        known = reconciler.books.next_seq
        commands = [request for request in asked if request.command is not None]
        answers = reconciler.step(self._clock.now_ns(), [cast(Command, request.command) for request in commands])
        self._counts["steps"] += 1
        for request, answer in zip(commands, answers, strict=True):
            self._answer(request, answer)
        for request in asked:
            if request.command is None:
                self._answer(request, 0)
        return reconciler.books.next_seq > known

    def _answer(self, request: _Request[Any], answer: int | SerriedError) -> None:
        try:
            if isinstance(answer, SerriedError):
                raise answer
            request.future.set_result(request.answer(answer))
        except SerriedError as error:
            request.future.set_exception(error)

    def _lose(self, asked: list[_Request[Any]], error: LedgerLost) -> None:
        """Nobody knows whether the last transaction took place: forget everything, and read the ledger again."""
        self._counts["ledger_lost"] += 1
        self._log.error("ledger lost", why=str(error))
        self._reconciler = None
        for request in asked:
            if not request.future.done():
                request.future.set_exception(error)
        self._stopping.wait(self.terms.tick_ns / SECOND_NS)
