"""Events as lines of JSON and back, so that a log outlives its process; a replayed log gives the same state.

In a log of many lines shapes are written once, in the order in which they first come, and named by number after that;
a single event (`event_text`, `event_from`) carries its own.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from serried.errors import BadInput
from serried.fleet.spec import Alternative, Event, EventKind, Job, Placement, Shape

__all__ = ["SCHEMA", "event_from", "event_text", "events_of", "lines_of"]

SCHEMA = "serried/fleet-log/1"
_OF_JOB = tuple(field.name for field in fields(Job) if field.name != "shape")


def lines_of(events: Iterable[Event]) -> Iterator[str]:
    """One JSON object a line, the schema first; fields at their defaults are left out."""
    yield json.dumps({"schema": SCHEMA})
    shapes: dict[int, int] = {}
    for event in events:
        line = _fields(event)
        if event.request is not None:
            shape = event.request.shape
            if id(shape) not in shapes:
                shapes[id(shape)] = len(shapes)
                line["shape"] = _shape_words(shape)
            line["request"]["shape"] = shapes[id(shape)]
        yield json.dumps(line)


def event_text(event: Event) -> str:
    """One event by itself."""
    line = _fields(event)
    if event.request is not None:
        line["shape"] = _shape_words(event.request.shape)
    return json.dumps(line)


def event_from(text: str, known: dict[Shape, Shape]) -> Event:
    """The event of `event_text`; equal shapes become one object (`known`), so that answers are kept per shape."""
    line = json.loads(text)
    shape = _shape(line["shape"]) if "shape" in line else None
    return _event(line, None if shape is None else known.setdefault(shape, shape))


@functools.lru_cache(maxsize=4096)
def _shape_words(shape: Shape) -> dict[str, Any]:
    """A shape as JSON knows it; to be read only. Many jobs have few shapes."""
    return asdict(shape)


def _fields(event: Event) -> dict[str, Any]:
    """What an event says, but for its shape; nothing that is at its default."""
    line: dict[str, Any] = {"time_ns": event.time_ns, "kind": event.kind.name}
    if event.request is not None:
        line["request"] = {name: getattr(event.request, name) for name in _OF_JOB}
    if event.placement is not None:
        rows = event.placement
        line["placement"] = {"alternative": rows.alternative, "node_R": rows.node_R.tolist(),
                             "chips_R": rows.chips_R.tolist(), "workers_R": rows.workers_R.tolist()}
    return line | {name: value for name, value in (("job", event.job), ("nodes", event.nodes), ("chips", event.chips),
                                                   ("until_ns", event.until_ns), ("cause", event.cause))
                   if value not in (-1, (), 0, "") or (name == "job" and value == 0)}


def events_of(lines: Iterable[str], *, file: str = "") -> Iterator[Event]:
    """The events of a log; BadInput, by line, for anything that is none."""
    shapes: list[Shape] = []
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text)
            if number == 1:
                if line["schema"] != SCHEMA:
                    raise ValueError(line["schema"])
                continue
            if "shape" in line:
                shapes.append(_shape(line["shape"]))
            yield _event(line, shapes[line["request"]["shape"]] if "request" in line else None)
        except (ValueError, KeyError, TypeError, IndexError, OverflowError, AttributeError) as error:
            raise BadInput(file=file, field=f"line {number}", value=text[:80], expected=f"an event of {SCHEMA}",
                           remedy=f"{type(error).__name__}: {error}.") from None


def _shape(line: dict[str, Any]) -> Shape:
    ways = tuple(Alternative(**{**way, "kinds": tuple(way["kinds"])}) for way in line["alternatives"])
    return Shape(**{**line, "alternatives": ways})


def _event(line: dict[str, Any], shape: Shape | None) -> Event:
    request, rows = line.get("request"), line.get("placement")
    return Event(
        time_ns=int(line["time_ns"]), kind=EventKind[line["kind"]], job=int(line.get("job", -1)),
        request=None if request is None else Job(**{**request, "shape": shape}),
        placement=None if rows is None else Placement(
            node_R=np.array(rows["node_R"], dtype=np.int32), chips_R=np.array(rows["chips_R"], dtype=np.uint64),
            workers_R=np.array(rows["workers_R"], dtype=np.int32), alternative=int(rows["alternative"])),
        nodes=tuple(line.get("nodes", ())), chips=int(line.get("chips", 0)), until_ns=int(line.get("until_ns", 0)),
        cause=str(line.get("cause", "")))
