"""One step of the control plane: hear, decide, write, act.

What it hears and decides becomes records; the records are written in one transaction; only then is anybody answered
and the engine told. What the engine is told follows from the books and from what is seen, never from what was done
before: a control plane that died takes up where the ledger ends. It reads no clock: time is an argument.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serried.clock import SECOND_NS
from serried.control.amending import check_follows
from serried.control.books import Attempt, Books
from serried.control.charter import Charter, charter_fields, job_of
from serried.control.health import Watch, hanging
from serried.control.launching import launch_of, occupied
from serried.control.ledger import Ledger
from serried.control.records import CHARTER, CLOSED, EVENT, FAILED, NOTE, RUNNING, Record, spec_text
from serried.control.sight import Ending, Sight, ending_of
from serried.control.spec import JobSpec, Terms
from serried.errors import BadInput, SerriedError, nearest
from serried.fleet import Event, EventKind, JobStatus, NodeFlag
from serried.fleet.log_text import event_text
from serried.runners import Engine
from serried.simulation.deciding import decide

__all__ = ["Answer", "Cancel", "Command", "Drain", "Open", "Reconciler", "Submit", "unknown_job"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Take a job. The same key again is the same job."""

    spec: JobSpec
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """End a job. Of one that has ended already nothing changes."""

    job: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Empty a node, and let nothing new start there."""

    node: str
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Let a drained node take work again."""

    node: str


Command = Submit | Cancel | Drain | Open
#: The number of the job or of the node, or why not.
Answer = int | SerriedError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempts:
    """Open attempts as the books have them after `seq` records. unwanted: to be ended. watched: wanted, and either not
    all of it runs yet or its ranks are asked for beats, so that time alone may change what is to be done about it."""

    seq: int
    unwanted: tuple[Attempt, ...]
    watched: tuple[Attempt, ...]

    @classmethod
    def of(cls, books: Books) -> _Attempts:
        unwanted, watched = [], []
        for attempt in books.attempts.values():
            if not books.is_wanted(attempt):
                unwanted.append(attempt)
            elif attempt.running_ns < 0 or books.stories[attempt.id.job].spec.health.heartbeat_s > 0:
                watched.append(attempt)
        return cls(seq=books.next_seq, unwanted=tuple(unwanted), watched=tuple(watched))


class Reconciler:
    """Drives an engine by a ledger. After LedgerLost it must be thrown away: its books may be ahead of the ledger."""

    def __init__(self, ledger: Ledger, engine: Engine, charter: Charter, terms: Terms, *, now_ns: int) -> None:
        """Take up a ledger, or begin it; with another charter than its last one, that is written. Raises BadInput when
        the one does not follow from the other."""
        self.ledger, self.engine, self.terms = ledger, engine, terms
        self.books = _taken_up(ledger, charter, now_ns)
        books = self.books
        self.policy = charter.scheduler(books.fleet)
        self.node_number = {name: number for number, name in enumerate(books.fleet.node_names)}
        self.sight = Sight(began_ns=max(now_ns, books.time_ns), silence_ns=terms.silence_ns)
        self.counts: Counter[str] = Counter()
        self.now_ns = books.time_ns
        self._watches: dict[int, Watch] = {}
        self._ordered: dict[tuple[str, int, str], int] = {}   # (verb, epoch, node) -> when it was last said
        self._staged: list[Record] = []
        self._asked_version, self._wake_ns = -1, -1
        self._attempts = _Attempts.of(books)

    def step(self, now_ns: int, commands: Sequence[Command] = ()) -> list[Answer]:
        """Hear, decide, write, act; the answers to the commands, in their order, are true for ever.

        Raises LedgerLost when it could not be written: nobody was answered, and the engine was told nothing.
        """
        self.now_ns = max(now_ns, self.books.time_ns + 1)   # no two steps share a time: replaying tells them apart
        self.sight.look(self.engine.observe(self.now_ns), self.now_ns)
        answers = [self._obey(command) for command in commands]
        self._hear_nodes()
        for attempt in self._with_news():
            if self.books.is_wanted(attempt):
                self._hear_attempt(attempt)
        self._close()
        self._decide()
        if self._staged:
            self.ledger.append(self._staged)
            self.counts["records"] += len(self._staged)
            self._staged = []
        self._act()
        return answers

    @property
    def next_ns(self) -> int:
        """When something is due though nothing be heard; -1 = nothing is."""
        due = [attempt.not_before_ns for attempt in self._sorted().watched if attempt.not_before_ns > self.now_ns]
        return min([*due, self._wake_ns] if self._wake_ns > self.now_ns else due, default=-1)

    def _sorted(self) -> _Attempts:
        """The open attempts by what is to be done about them; the same until the next record."""
        if self._attempts.seq != self.books.next_seq:
            self._attempts = _Attempts.of(self.books)
        return self._attempts

    # writing

    def _write(self, kind: str, body: str, key: str = "") -> None:
        record = Record(seq=self.books.next_seq, time_ns=self.now_ns, kind=kind, body=body, key=key)
        self.books.fold(record)
        self._staged.append(record)

    def _write_event(self, event: Event, key: str = "", **more: Any) -> None:
        text = event_text(event)
        self._write(EVENT, f"{text[:-1]}, {json.dumps(more)[1:]}" if more else text, key)

    # hearing

    def _obey(self, command: Command) -> Answer:
        """Do as people ask. A request that cannot be is refused before anything is written for it."""
        try:
            if isinstance(command, Submit):
                return self._submit(command)
            if isinstance(command, Cancel):
                return self._cancel(command.job)
            node = self._node(command.node)
            flags = NodeFlag(int(self.books.state.columns.flags_N[node]))
            if isinstance(command, Drain) and not flags & NodeFlag.DRAINING:
                self._write_event(Event(time_ns=self.now_ns, kind=EventKind.DRAIN, nodes=(node,), cause="operator"),
                                  why=command.why)
            elif isinstance(command, Open) and flags & (NodeFlag.DRAINING | NodeFlag.SPARE):
                self._write_event(Event(time_ns=self.now_ns, kind=EventKind.OPEN, nodes=(node,), cause="operator"))
            return node
        except SerriedError as error:
            return error

    def _submit(self, command: Submit) -> int:
        books = self.books
        if command.key in books.by_key:
            number = books.by_key[command.key]
            if books.stories[number].spec != command.spec:
                raise BadInput(field="key", value=command.key, expected=f"the very submission that became job {number}",
                               remedy="Use a new key for a new job.")
            return number
        job = job_of(command.spec, books.fleet, books.shapes)
        event = Event(time_ns=self.now_ns, kind=EventKind.SUBMIT, request=job)
        self._write_event(event, command.key, spec=spec_text(command.spec))
        self.counts["submissions"] += 1
        return len(books.stories) - 1

    def _cancel(self, number: int) -> int:
        if not 0 <= number < len(self.books.stories):
            raise unknown_job(number, len(self.books.stories))
        if self.books.state.status_J[number] != JobStatus.DONE:
            self._write_event(Event(time_ns=self.now_ns, kind=EventKind.CANCEL, job=number, cause="cancelled"),
                              why="cancelled", exit_codes=[])
        return number

    def _node(self, name: str) -> int:
        if name not in self.node_number:
            near = nearest(name, self.node_number, count=1)
            raise BadInput(field="node", value=name, expected="the name of a node of this fleet",
                           remedy=f"Perhaps {near[0]!r} is meant." if near else "`serried top` lists them.")
        return self.node_number[name]

    def _hear_nodes(self) -> None:
        """Nodes that were cut off have failed; those that are heard again are mended.

        Nodes that fall silent together are cut off one by one, and are told as one failure, so that a gang that lost
        several of them is mended once: the first waits for the others, but no longer than a silence takes.
        """
        flags_N = self.books.state.columns.flags_N
        lost, back = [], []
        for name, seen in self.sight.nodes.items():
            number = self.node_number[name]
            down = bool(flags_N[number] & NodeFlag.DOWN)
            if seen.fenced and not down:
                lost.append(number)
            elif down and self.sight.is_fresh(name):
                back.append(number)
        if lost and not any(self.sight.silence_ns(name) <= 2 * self.terms.silence_ns for name in self.sight.silent()):
            self._write_event(Event(time_ns=self.now_ns, kind=EventKind.FAIL, nodes=tuple(sorted(lost)),
                                    cause="silent"))
        if back:
            self._write_event(Event(time_ns=self.now_ns, kind=EventKind.REPAIR, nodes=tuple(sorted(back)),
                                    cause="heard"))

    def _with_news(self) -> list[Attempt]:
        """Attempts that may have become something else since the last step: those of which a row or a node has news,
        and those that time alone may end. The others are what they were."""
        books, state = self.books, self.books.state
        epochs = {attempt.id.epoch for attempt in self._sorted().watched}
        epochs.update(attempt.epoch for attempt in self.sight.stirred_tasks if attempt.epoch in books.attempts)
        for name in self.sight.stirred_nodes:
            epochs.update(books.stories[job].epoch for job in state.jobs_on(self.node_number[name]))
        return [books.attempts[epoch] for epoch in sorted(epochs) if epoch in books.attempts]

    def _hear_attempt(self, attempt: Attempt) -> None:
        """What became of an attempt that shall run: it ended well, or it failed, or all of it runs by now."""
        nodes = self._names(attempt)
        ending = ending_of(self.sight, attempt, nodes)
        if ending is None:
            why = self._unwell(attempt, nodes)
            ending = Ending(why=why) if why else None
        if ending is None:
            if attempt.running_ns >= 0:
                self._note_stragglers(attempt, nodes)
            elif self.sight.all_run(attempt.id, nodes):
                self._write(RUNNING, json.dumps({"job": attempt.id.job, "epoch": attempt.id.epoch}))
        elif ending.succeeded:
            self._write_event(Event(time_ns=self.now_ns, kind=EventKind.FINISH, job=attempt.id.job, cause="succeeded"),
                              why="", exit_codes=ending.exit_codes)
        else:
            self._fail(attempt, ending.why, ending.exit_codes, counts=ending.counts)

    def _unwell(self, attempt: Attempt, nodes: Sequence[str]) -> str:
        """Why an attempt must be given up though none of its ranks has failed; "" = it need not."""
        if attempt.running_ns >= 0:
            health = self.books.stories[attempt.id.job].spec.health
            return hanging(health, self.sight.ranks(attempt.id, nodes), attempt.running_ns, self.now_ns)
        ordered_ns = self._ordered.get(("first", attempt.id.epoch, ""), self.now_ns)
        if self.now_ns - ordered_ns > self.terms.start_ns:
            return f"not all of its ranks ran within {self.terms.start_ns / SECOND_NS:g} s"
        return ""

    def _note_stragglers(self, attempt: Attempt, nodes: Sequence[str]) -> None:
        story = self.books.stories[attempt.id.job]
        watch = self._watches.setdefault(attempt.id.epoch, Watch())
        for rank in watch.stragglers(story.spec.health, self.sight.ranks(attempt.id, nodes)):
            if rank not in story.stragglers:
                self._write(NOTE, json.dumps({"job": attempt.id.job, "epoch": attempt.id.epoch, "straggler": rank}))

    def _fail(self, attempt: Attempt, why: str, exit_codes: Sequence[int | None], *, counts: bool) -> None:
        """Give an attempt up: the next one follows, after a time that doubles, or there have been enough of them."""
        job = attempt.id.job
        story = self.books.stories[job]
        self.counts["attempts_failed"] += 1
        failures = story.failures + counts
        if failures > story.spec.retries:
            self._write_event(Event(time_ns=self.now_ns, kind=EventKind.FINISH, job=job, cause="failed"), why=why,
                              exit_codes=list(exit_codes))
            return
        backoff_ns = round(story.spec.backoff_s * SECOND_NS) * 2 ** min(max(failures - 1, 0), 30) if counts else 0
        self._write(FAILED, json.dumps({
            "job": job, "epoch": attempt.id.epoch, "why": why, "counts": counts, "exit_codes": list(exit_codes),
            "not_before_ns": self.now_ns + min(backoff_ns, self.terms.most_backoff_ns)}))

    def _close(self) -> None:
        """Attempts that shall not run and of which nothing is left are over."""
        for attempt in self._sorted().unwanted:
            names = self._names(attempt)
            if all(self.sight.is_gone(attempt, name) for name in names):
                self._write(CLOSED, json.dumps({"job": attempt.id.job, "epoch": attempt.id.epoch}))
                self.sight.forget(attempt.id, names)

    # deciding

    def _decide(self) -> None:
        """Ask the policy until it has nothing more to say. It is asked after every change, as in the simulator."""
        state = self.books.state
        if state.version == self._asked_version and not 0 <= self._wake_ns <= self.now_ns:
            return
        known = state.version
        self._wake_ns = decide(state, self.policy, self.now_ns, self._write_event)
        self._asked_version = state.version
        self.counts["decisions"] += state.version - known

    # acting: everything here may be lost, repeated, or cut short by our own death

    def _act(self) -> None:
        books, sight = self.books, self.sight
        for name in sight.silent():
            if self._is_due("fence", -1, name):
                self.engine.fence(name)
                self.counts["fences"] += 1
        for over in sight.ended():
            if over.epoch < books.next_seq and over.epoch not in books.attempts:
                self.engine.forget(over)
        attempts = self._sorted()
        for attempt in attempts.unwanted:
            self._stop(attempt)
        taken = occupied(books.fleet, attempts.unwanted)
        for attempt in attempts.watched:
            if attempt.running_ns < 0 and attempt.not_before_ns <= self.now_ns:
                self._start(attempt, taken)
        if len(self._ordered) > 4 * len(books.attempts) + 1024:
            self._ordered = {key: said for key, said in self._ordered.items() if key[1] in books.attempts}
            self._watches = {epoch: watch for epoch, watch in self._watches.items() if epoch in books.attempts}

    def _start(self, attempt: Attempt, taken: set[tuple[str, int]]) -> None:
        """Order an attempt, once all of its nodes are there, whoever had its chips before is closed, and so is the
        job's attempt before, wherever it ran: two of them must never write to one checkpoint."""
        story, sight = self.books.stories[attempt.id.job], self.sight
        if len(self.books.open_of[attempt.id.job]) > 1:
            return
        names = self._names(attempt)
        if not all(map(sight.is_fresh, names)):
            return
        launch = launch_of(attempt, story, self.books, {name: sight.nodes[name].incarnation for name in names})
        if taken and any((row.node, chip) in taken for row in launch.rows for chip in row.chips):
            return
        unseen = [name for name in names if (attempt.id, name) not in sight.tasks]
        due = [name for name in unseen if self._is_due("start", attempt.id.epoch, name)]
        if due:
            self._ordered.setdefault(("first", attempt.id.epoch, ""), self.now_ns)
            self.engine.start(launch, due)
            self.counts["starts"] += 1

    def _stop(self, attempt: Attempt) -> None:
        """End what is left of an attempt, with time to save unless it has failed anyway."""
        due = [name for name in self._names(attempt) if not self.sight.is_gone(attempt, name)
               and self._is_due("stop", attempt.id.epoch, name)]
        if due:
            story = self.books.stories[attempt.id.job]
            self.engine.stop(attempt.id, due, round(story.spec.grace_s * SECOND_NS) if attempt.is_gentle else 0)

    def _names(self, attempt: Attempt) -> list[str]:
        """Nodes of an attempt, in the order of its rows."""
        return [self.books.fleet.node_name(node) for node in attempt.placement.node_R.tolist()]

    def _is_due(self, verb: str, epoch: int, node: str) -> bool:
        """Whether to say something (again)."""
        key = verb, epoch, node
        if self.now_ns - self._ordered.get(key, -self.terms.repeat_ns) < self.terms.repeat_ns:
            return False
        self._ordered[key] = self.now_ns
        return True


def _taken_up(ledger: Ledger, charter: Charter, now_ns: int) -> Books:
    """The books of a ledger, its last charter being this one."""
    books = Books.read(ledger)
    if books is not None:
        if books.charter == charter:
            return books
        check_follows(books, charter)
        charter.fleet()                      # what is no fleet must not be written
    seq, time_ns = (0, now_ns) if books is None else (books.next_seq, max(now_ns, books.time_ns + 1))
    ledger.append([Record(seq=seq, time_ns=time_ns, kind=CHARTER, body=json.dumps(charter_fields(charter)))])
    found = Books.read(ledger)
    assert found is not None, "it was written"
    return found


def unknown_job(number: int, count: int) -> BadInput:
    """The error of a job that was never submitted."""
    return BadInput(field="job", value=number, expected=f"the number of a job, 0 to {count - 1}" if count else
                    "a job; none was submitted yet", remedy="`serried jobs` lists them.")
