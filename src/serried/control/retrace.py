"""A live run, run again by the simulator: the world's events from the ledger, the decisions made afresh.

One scheduler core decides live and in simulation. Here is the proof, for any ledger: the simulator's own loop is given
what the world did and when, decides by itself, and must come to the same decisions, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable

from serried.control.charter import charter_from
from serried.control.records import CHARTER, EVENT, Record
from serried.errors import NoAnswer
from serried.fleet import Event, EventKind, Shape
from serried.fleet.log_text import event_from, lines_of
from serried.simulation.retold import retold

__all__ = ["retrace"]

#: What the world and people do. DRAIN, OPEN and SPARE are theirs when a person is the cause.
_WORLD = frozenset({EventKind.SUBMIT, EventKind.FINISH, EventKind.CANCEL, EventKind.FAIL, EventKind.REPAIR})
_OPERATOR = "operator"


def retrace(records: Iterable[Record]) -> int:
    """How many decisions of a ledger the simulator makes in the same way. Raises NoAnswer at the first that differs."""
    shapes: dict[Shape, Shape] = {}
    charter, events = None, []
    for record in records:
        if record.kind == CHARTER:
            charter = charter_from(record.fields())
        elif record.kind == EVENT:
            events.append(event_from(record.body, shapes))
    if charter is None:
        return 0
    fleet = charter.fleet()
    log = retold(fleet, charter.scheduler(fleet), [event for event in events if _is_given(event)],
                 sorted({event.time_ns for event in events}))
    for number, (live, simulated) in enumerate(zip(lines_of(events), lines_of(log), strict=False)):
        if live != simulated:
            raise NoAnswer(f"line {number} of the log differs: live {live}, simulated {simulated}.", binding="replay",
                           remedy="The policy remembers what it should not, or was not asked when it should have been.")
    if len(events) != len(log):
        raise NoAnswer(f"the live run has {len(events)} events, the simulated one {len(log)}.", binding="replay",
                       remedy="The policy remembers what it should not, or was not asked when it should have been.")
    return sum(not _is_given(event) for event in events)


def _is_given(event: Event) -> bool:
    return event.kind in _WORLD or event.cause == _OPERATOR
