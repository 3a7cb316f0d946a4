"""Events as lines of JSON and back, so that a log outlives its process; a replayed log gives the same state.

Shapes are written once, in the order in which they first come, and named by number after that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from serried.errors import BadInput
from serried.fleet.spec import Alternative, Event, EventKind, Job, Placement, Shape

__all__ = ["SCHEMA", "events_of", "lines_of"]

SCHEMA = "serried/fleet-log/1"


def lines_of(events: Iterable[Event]) -> Iterator[str]:
    """One JSON object a line, the schema first; fields at their defaults are left out."""
    yield json.dumps({"schema": SCHEMA})
    shapes: dict[int, int] = {}
    for event in events:
        line: dict[str, Any] = {"time_ns": event.time_ns, "kind": event.kind.name}
        if event.request is not None:
            shape = event.request.shape
            if id(shape) not in shapes:
                shapes[id(shape)] = len(shapes)
                line["shape"] = asdict(shape)
            line["request"] = {name: value for name, value in asdict(event.request).items() if name != "shape"}
            line["request"]["shape"] = shapes[id(shape)]
        if event.placement is not None:
            rows = event.placement
            line["placement"] = {"alternative": rows.alternative, "node_R": rows.node_R.tolist(),
                                 "chips_R": rows.chips_R.tolist(), "workers_R": rows.workers_R.tolist()}
        line |= {name: value for name, value in (("job", event.job), ("nodes", event.nodes), ("chips", event.chips),
                                                 ("until_ns", event.until_ns), ("cause", event.cause))
                 if value not in (-1, (), 0, "") or (name == "job" and value == 0)}
        yield json.dumps(line)


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
                ways = tuple(Alternative(**{**way, "kinds": tuple(way["kinds"])})
                             for way in line["shape"].pop("alternatives"))
                shapes.append(Shape(alternatives=ways, **line["shape"]))
            yield _event(line, shapes)
        except (ValueError, KeyError, TypeError, IndexError, OverflowError, AttributeError) as error:
            raise BadInput(file=file, field=f"line {number}", value=text[:80], expected=f"an event of {SCHEMA}",
                           remedy=f"{type(error).__name__}: {error}.") from None


def _event(line: dict[str, Any], shapes: list[Shape]) -> Event:
    request, rows = line.get("request"), line.get("placement")
    return Event(
        time_ns=int(line["time_ns"]), kind=EventKind[line["kind"]], job=int(line.get("job", -1)),
        request=None if request is None else Job(**{**request, "shape": shapes[request["shape"]]}),
        placement=None if rows is None else Placement(
            node_R=np.array(rows["node_R"], dtype=np.int32), chips_R=np.array(rows["chips_R"], dtype=np.uint64),
            workers_R=np.array(rows["workers_R"], dtype=np.int32), alternative=int(rows["alternative"])),
        nodes=tuple(line.get("nodes", ())), chips=int(line.get("chips", 0)), until_ns=int(line.get("until_ns", 0)),
        cause=str(line.get("cause", "")))
