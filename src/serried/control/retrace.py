"""A live run, run again by the simulator: the world's events from the ledger, the decisions made afresh.

One scheduler core decides live and in simulation. Here is the proof, for any ledger: the simulator's own loop is given
what the world did and when, decides by itself, and must come to the same decisions, byte for byte. Under every charter
the fleet and the policy are those of that charter; what was before is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from serried.control.amending import Numbering, comings
from serried.control.charter import Charter, charter_from
from serried.control.records import CHARTER, EVENT, Record
from serried.errors import NoAnswer
from serried.fleet import Event, EventKind, Fleet, Shape
from serried.fleet.log_text import event_from, lines_of
from serried.simulation.retold import retold

__all__ = ["retrace"]

#: What the world and people do. DRAIN, OPEN and SPARE are theirs when a person is the cause.
_WORLD = frozenset({EventKind.SUBMIT, EventKind.FINISH, EventKind.CANCEL, EventKind.FAIL, EventKind.REPAIR})
_OPERATOR = "operator"
#: A charter, when it came into force, and the events under it, in its own node numbers.
_Chapter = tuple[Charter, int, list[Event]]


def retrace(records: Iterable[Record]) -> int:
    """How many decisions of a ledger the simulator makes in the same way. Raises NoAnswer at the first that differs."""
    shapes: dict[Shape, Shape] = {}
    chapters: list[_Chapter] = []
    for record in records:
        if record.kind == CHARTER:
            chapters.append((charter_from(record.fields()), record.time_ns, []))
        elif record.kind == EVENT:
            chapters[-1][2].append(event_from(record.body, shapes))
    return sum(_decided(chapters[:count]) for count in range(1, len(chapters) + 1))


def _decided(chapters: Sequence[_Chapter]) -> int:
    """Decisions in the last of these chapters, all of them made again in the same way."""
    charter, _, events = chapters[-1]
    fleet = charter.fleet()
    log = retold(fleet, charter.scheduler(fleet), [event for event in events if _is_given(event)],
                 sorted({event.time_ns for event in events}), before=list(_before(chapters, fleet)))
    for number, (live, simulated) in enumerate(zip(lines_of(events), lines_of(log), strict=False)):
        if live != simulated:
            raise NoAnswer(f"line {number} of the log differs: live {live}, simulated {simulated}.", binding="replay",
                           remedy="The policy remembers what it should not, or was not asked when it should have been.")
    if len(events) != len(log):
        raise NoAnswer(f"the live run has {len(events)} events, the simulated one {len(log)}.", binding="replay",
                       remedy="The policy remembers what it should not, or was not asked when it should have been.")
    return sum(not _is_given(event) for event in events)


def _before(chapters: Sequence[_Chapter], fleet: Fleet) -> Iterator[Event]:
    """Everything until the last chapter begins, in the numbers of its fleet."""
    was = None
    for place, (charter, time_ns, events) in enumerate(chapters):
        yield from comings(was, charter, fleet, time_ns)
        was, numbering = charter, Numbering(charter, fleet)
        if place + 1 < len(chapters):
            yield from map(numbering.event, events)


def _is_given(event: Event) -> bool:
    return event.kind in _WORLD or event.cause == _OPERATOR
