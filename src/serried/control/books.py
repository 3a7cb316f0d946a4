"""What the ledger adds up to: the state of the fleet, the attempts that are not over, and what became of every job.

`Books` is a fold over records, the same when they are written and when they are read again. Nothing else changes it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from serried.control.amending import Numbering, comings
from serried.control.charter import Charter, charter_from
from serried.control.ledger import Ledger, LedgerTaken
from serried.control.records import CHARTER, CLOSED, EVENT, FAILED, NOTE, RUNNING, Record, spec_from
from serried.control.spec import JobSpec
from serried.errors import BadInput
from serried.fleet import EventKind, JobStatus, Placement, Shape, State
from serried.fleet.log_text import event_from
from serried.runners import AttemptId

__all__ = ["Attempt", "Books", "Story"]


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One attempt that is not closed. not_before_ns: when it may start at the earliest. running_ns: since when all of
    its ranks run, -1 = not yet. is_gentle: whether its ranks are given time to save when they are stopped; those of an
    attempt that lost some of its ranks would only wait for them."""

    id: AttemptId
    placement: Placement
    called_ns: int
    not_before_ns: int = 0
    restarts: int = 0
    running_ns: int = -1
    is_gentle: bool = True


@dataclass(slots=True, kw_only=True)
class Story:
    """What became of one job so far. epoch: of its last attempt, -1 = none. failures: of its own, that count.

    ending: "succeeded", "failed", "cancelled", or "" before its end. outcome: why, or why its last attempt ended.
    seqs: the records that speak of it.
    """

    spec: JobSpec
    key: str
    submitted_ns: int
    epoch: int = -1
    restarts: int = 0
    failures: int = 0
    first_running_ns: int = -1
    ended_ns: int = -1
    ending: str = ""
    outcome: str = ""
    exit_codes: tuple[int | None, ...] = ()
    stragglers: set[int] = field(default_factory=set)
    seqs: list[int] = field(default_factory=list)


class Books:
    """Everything that follows from the records so far."""

    def __init__(self, charter: Charter) -> None:
        """charter: the last one of the ledger; the records tell how it came to that."""
        self.charter = charter
        self.fleet = charter.fleet()
        self.state = State(self.fleet)
        self.shapes: dict[Shape, Shape] = {}
        self.stories: list[Story] = []
        self.by_key: dict[str, int] = {}
        self.attempts: dict[int, Attempt] = {}   # by epoch
        self.open_of: dict[int, set[int]] = {}   # job -> epochs of its attempts that are not closed
        self.endings: Counter[str] = Counter()   # how many jobs ended in which way
        self.next_seq = 0
        self.time_ns = 0
        self._so_far: tuple[Charter, Numbering] | None = None   # the charter in force, and what its numbers are now

    @classmethod
    def read(cls, ledger: Ledger) -> Books | None:
        """The books of a ledger; None of an empty one. Raises BadInput for records that cannot be."""
        return cls._of(ledger.charters()[-1:], ledger.read())

    @classmethod
    def of(cls, records: Sequence[Record]) -> Books | None:
        """The books of records, from the first on."""
        return cls._of([record for record in records if record.kind == CHARTER][-1:], records)

    @classmethod
    def _of(cls, last: Sequence[Record], records: Iterable[Record]) -> Books | None:
        books: Books | None = None
        for record in records:
            try:
                if books is None:
                    if record.kind != CHARTER:
                        raise ValueError("a ledger begins with its charter")
                    books = cls(charter_from(last[0].fields()))
                books.fold(record)
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise BadInput(field=f"record {record.seq}", value=record.body[:80], expected="a record of a ledger",
                               remedy=f"The ledger is damaged ({type(error).__name__}: {error}); restore a copy of "
                                      "it.") from None
        return books

    def fold(self, record: Record) -> None:
        """What one record changes. Raises LedgerTaken for a number that is not the next."""
        if record.seq != self.next_seq:
            raise LedgerTaken(f"Record {record.seq} follows {self.next_seq - 1}.", remedy="Read the ledger again.")
        job = _FOLDS[record.kind](self, record)
        if job >= 0:
            self.stories[job].seqs.append(record.seq)
        self.next_seq, self.time_ns = record.seq + 1, record.time_ns

    def is_wanted(self, attempt: Attempt) -> bool:
        """Whether the attempt shall run: it is its job's last, and the job holds its chips and none of them failed."""
        job = attempt.id.job
        return (self.stories[job].epoch == attempt.id.epoch and job in self.state.placements
                and self.state.status_J[job] == JobStatus.RUNNING)

    def digest(self) -> str:
        """SHA-256 over everything that is in the books."""
        words = [[one.epoch, one.restarts, one.failures, one.first_running_ns, one.ended_ns, one.ending, one.outcome,
                  one.key, one.exit_codes, sorted(one.stragglers)] for one in self.stories]
        tries = [[epoch, one.called_ns, one.not_before_ns, one.running_ns,
                  one.is_gentle] for epoch, one in sorted(self.attempts.items())]
        text = json.dumps([self.state.digest(), self.next_seq, self.time_ns, words, tries])
        return hashlib.sha256(text.encode()).hexdigest()

    # folds: each returns the job that the record speaks of, -1 = none

    def _charter(self, record: Record) -> int:
        charter = charter_from(record.fields())
        before = self._so_far[0] if self._so_far else None
        self.state.apply_all(comings(before, charter, self.fleet, record.time_ns))
        self._so_far = charter, Numbering(charter, self.fleet)
        return -1

    def _event(self, record: Record) -> int:
        assert self._so_far is not None, "a ledger begins with its charter"
        event = self._so_far[1].event(event_from(record.body, self.shapes))
        number = self.state.apply(event)
        if event.kind == EventKind.SUBMIT:
            spec = spec_from(record.fields()["spec"])
            self.stories.append(Story(spec=spec, key=record.key, submitted_ns=event.time_ns))
            if record.key:
                self.by_key[record.key] = number
        elif event.placement is not None:
            self._call(record, event.job, record.time_ns)
        elif event.kind in (EventKind.FINISH, EventKind.CANCEL):
            story = self.stories[event.job]
            fields = record.fields()
            story.ended_ns, story.ending = event.time_ns, event.cause
            self.endings[event.cause] += 1
            story.outcome, story.exit_codes = fields["why"], tuple(fields["exit_codes"])
        elif event.kind == EventKind.EVICT:
            self.stories[event.job].outcome = event.cause
        elif event.kind == EventKind.FAIL:
            for job in self.state.broken:
                self._harden(job)
        return number

    def _harden(self, job: int) -> None:
        for epoch in self.open_of.get(job, ()):
            self.attempts[epoch].is_gentle = False

    def _call(self, record: Record, job: int, not_before_ns: int) -> None:
        story = self.stories[job]
        story.restarts += story.epoch >= 0
        story.epoch = record.seq
        self.attempts[record.seq] = Attempt(id=AttemptId(job, record.seq), placement=self.state.placements[job],
                                            called_ns=record.time_ns, not_before_ns=not_before_ns,
                                            restarts=story.restarts)
        self.open_of.setdefault(job, set()).add(record.seq)

    def _running(self, record: Record) -> int:
        fields = record.fields()
        self.attempts[fields["epoch"]].running_ns = record.time_ns
        story = self.stories[fields["job"]]
        if story.first_running_ns < 0:
            story.first_running_ns = record.time_ns
        return int(fields["job"])

    def _failed(self, record: Record) -> int:
        fields = record.fields()
        story = self.stories[fields["job"]]
        story.failures += bool(fields["counts"])
        story.outcome, story.exit_codes = fields["why"], tuple(fields["exit_codes"])
        story.stragglers.clear()
        self._harden(fields["job"])
        self._call(record, fields["job"], fields["not_before_ns"])
        return int(fields["job"])

    def _closed(self, record: Record) -> int:
        fields = record.fields()
        del self.attempts[fields["epoch"]]
        self.open_of[fields["job"]].discard(fields["epoch"])
        if not self.open_of[fields["job"]]:
            del self.open_of[fields["job"]]
        return int(fields["job"])

    def _note(self, record: Record) -> int:
        fields = record.fields()
        if "straggler" in fields:
            self.stories[fields["job"]].stragglers.add(fields["straggler"])
        return int(fields["job"])


_FOLDS = {CHARTER: Books._charter, EVENT: Books._event, RUNNING: Books._running, FAILED: Books._failed,
          CLOSED: Books._closed, NOTE: Books._note}
