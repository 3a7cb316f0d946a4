"""What the ledger holds: one line for everything that happened or was decided, in the order in which it did.

Kinds, and what their bodies (JSON) say:

    charter   which nodes, tenants and policy this ledger is about; the first record, and one for every change of them.
              Node numbers in what follows are of this fleet
    event     one event of the fleet (`fleet.Event`): a submission (with its `spec`), a failure, a decision, ...
    running   every rank of an attempt runs
    failed    an attempt is given up: why, whether it counts, and from when on the next may start
    closed    no process of an attempt is left anywhere
    note      something that people may want to know of a job: a straggler, ...

The number of a record is the epoch of the attempt that it calls for: of an `event` that places a gang, or a `failed`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from serried.control.spec import Health, JobSpec, Topology
from serried.runners import Limits

__all__ = ["CHARTER", "CLOSED", "EVENT", "FAILED", "NOTE", "RUNNING", "Record", "record_from", "record_line",
           "spec_from", "spec_text"]

CHARTER, EVENT, RUNNING, FAILED, CLOSED, NOTE = "charter", "event", "running", "failed", "closed", "note"
_OF_SPEC = tuple(field.name for field in fields(JobSpec))


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line. seq: 0, 1, 2, ... without a gap. time_ns: since the Unix epoch, never less than the line's before.

    key: with which a submission came, so that it is never taken twice; "" for everything else.
    """

    seq: int
    time_ns: int
    kind: str
    body: str
    key: str = ""

    def fields(self) -> dict[str, Any]:
        """The body, read."""
        found: dict[str, Any] = json.loads(self.body)
        return found


def record_line(record: Record) -> str:
    """One record as a line of JSON, its body inside as it is; the key stays behind."""
    return (f'{{"seq": {record.seq}, "time_ns": {record.time_ns}, "kind": {json.dumps(record.kind)}, '
            f'"body": {record.body}}}')


def record_from(line: str) -> Record:
    """The record of `record_line`. Raises ValueError or KeyError for a line that is none."""
    fields = json.loads(line)
    return Record(seq=int(fields["seq"]), time_ns=int(fields["time_ns"]), kind=str(fields["kind"]),
                  body=json.dumps(fields["body"]))


def spec_text(spec: JobSpec) -> dict[str, Any]:
    """A submission as JSON knows it."""
    return {name: {inner: getattr(value, inner) for inner in value.__slots__}
            if isinstance(value, Topology | Health | Limits) else value
            for name, value in ((name, getattr(spec, name)) for name in _OF_SPEC)}


def spec_from(fields: Mapping[str, Any]) -> JobSpec:
    """The submission that `spec_text` wrote."""
    return JobSpec(**{**fields, "argv": tuple(fields["argv"]), "chips": tuple(fields["chips"]),
                      "topology": Topology(**fields["topology"]), "health": Health(**fields["health"]),
                      "limits": Limits(**fields["limits"])})
