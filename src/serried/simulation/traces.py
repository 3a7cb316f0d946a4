"""Readers of job traces: Philly, openb, PAI, and plain CSV. Each gives submissions in the order of arrival.

| format | columns needed | times |
|---|---|---|
| csv | arrival_s, duration_s, chips; optional tenant, priority | seconds; arrivals must not run backwards |
| philly | timestamp, duration, num_gpus; optional cluster (the tenant, if there is one so called) | date; seconds |
| openb | creation_time, deletion_time, num_gpu, gpu_milli | seconds |
| pai | start_time, end_time, plan_gpu (percent of a GPU), inst_num | seconds |

The published traces are not in the order of time and are sorted here; a job that ends before it begins is an error.
Jobs beyond one node are rounded up to whole nodes; jobs that ask for no chip are left out.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import numpy as np

from serried.clock import nanoseconds
from serried.errors import BadInput, nearest
from serried.fleet import Fleet, Job, Shape
from serried.fleet.spec import WHOLE_MILLI
from serried.simulation.spec import Checkpoint, Submissions

__all__ = ["FORMATS", "read_trace"]

_MOST_S, _MOST_CHIPS = 3.2e9, 10**7
_EPOCH = datetime(1970, 1, 1)


class _Row:
    """One line of a trace, whose cells are read with their place in mind."""

    def __init__(self, file: str, line: int, cells: Mapping[str, str | None]) -> None:
        self._file, self._line, self._cells = file, line, cells

    def bad(self, column: str, expected: str, remedy: str = "Correct the cell, or leave the row out.") -> BadInput:
        """What is wrong with one cell."""
        return BadInput(file=self._file, field=f"line {self._line}, column {column}", value=self._cells.get(column),
                        expected=expected, remedy=remedy)

    def number(self, column: str, high: float, *, default: float | None = None, low: float = 0.0) -> float:
        """A cell as a number from `low` to `high`."""
        text = (self._cells.get(column) or "").strip()
        if not text and default is not None:
            return default
        try:
            value = float(text)
        except ValueError:
            raise self.bad(column, "a number") from None
        if not low <= value <= high:
            raise self.bad(column, f"a number from {low:g} to {high:g}")
        return value

    def whole(self, column: str, high: float, *, default: float | None = None, low: float = 0.0) -> int:
        """A cell as a whole number."""
        value = self.number(column, high, default=default, low=low)
        if value != int(value):
            raise self.bad(column, "a whole number")
        return int(value)

    def moment_s(self, column: str) -> float:
        """A cell as date and time, in seconds since 1970."""
        try:
            return (datetime.fromisoformat((self._cells.get(column) or "").strip()).replace(tzinfo=None)
                    - _EPOCH).total_seconds()
        except ValueError:
            raise self.bad(column, "a date and time such as 2017-10-09 07:01:55") from None

    def text(self, column: str) -> str:
        """A cell as text."""
        return (self._cells.get(column) or "").strip()


#: arrival_s, duration_s, chips, share_milli, tenant, priority
_Asked = tuple[float, float, int, int, str, int]


def _csv(row: _Row) -> _Asked:
    return (row.number("arrival_s", _MOST_S), row.number("duration_s", _MOST_S), row.whole("chips", _MOST_CHIPS),
            WHOLE_MILLI, row.text("tenant"), row.whole("priority", 100, default=0, low=-100))


def _philly(row: _Row) -> _Asked:
    return (row.moment_s("timestamp"), row.number("duration", _MOST_S), row.whole("num_gpus", _MOST_CHIPS), WHOLE_MILLI,
            row.text("cluster"), 0)


def _openb(row: _Row) -> _Asked:
    began_s, ended_s = row.number("creation_time", _MOST_S), row.number("deletion_time", _MOST_S)
    if ended_s < began_s:
        raise row.bad("deletion_time", "a time not before creation_time")
    chips, milli = row.whole("num_gpu", 64), row.whole("gpu_milli", WHOLE_MILLI)
    return began_s, ended_s - began_s, chips, milli if chips == 1 and milli else WHOLE_MILLI, "", 0


def _pai(row: _Row) -> _Asked:
    began_s, ended_s = row.number("start_time", _MOST_S), row.number("end_time", _MOST_S)
    if ended_s < began_s:
        raise row.bad("end_time", "a time not before start_time")
    percent, workers = row.number("plan_gpu", 6400, default=0.0), row.whole("inst_num", _MOST_CHIPS, default=1)
    if workers == 1 and 0 < percent < 100:
        return began_s, ended_s - began_s, 1, max(round(percent * 10), 1), "", 0
    return began_s, ended_s - began_s, round(-(-percent // 100)) * workers, WHOLE_MILLI, "", 0


FORMATS: Mapping[str, tuple[Callable[[_Row], _Asked], tuple[str, ...]]] = {
    "csv": (_csv, ("arrival_s", "duration_s", "chips")),
    "philly": (_philly, ("timestamp", "duration", "num_gpus")),
    "openb": (_openb, ("creation_time", "deletion_time", "num_gpu", "gpu_milli")),
    "pai": (_pai, ("start_time", "end_time", "plan_gpu", "inst_num")),
}


def read_trace(path: str | Path, trace_format: str, *, fleet: Fleet, checkpoint: Checkpoint,
               shape_of: Callable[[int, int], Shape]) -> Submissions:
    """The jobs of a trace; time begins with the first. shape_of: (chips, thousandths of each) to what is asked.

    Raises BadInput with file, line and column for anything that is no such trace, and for a job that is larger than
    every pool.
    """
    if trace_format not in FORMATS:
        near = nearest(trace_format, FORMATS, count=1)
        raise BadInput(field="trace.format", value=trace_format, expected=f"one of {', '.join(FORMATS)}",
                       remedy=f"Perhaps {near[0]!r} is meant." if near else "Choose one of these.")
    read, columns = FORMATS[trace_format]
    tenants = {tenant.name: number for number, tenant in enumerate(fleet.tenants)}
    width = int(fleet.chip_count_N.max())
    asked: list[_Asked] = []
    for row in _rows(Path(path), columns):
        one = read(row)
        if trace_format == "csv" and asked and one[0] < asked[-1][0]:
            raise row.bad("arrival_s", f"a time not before the line above ({asked[-1][0]:g})",
                          "Sort the rows by arrival_s.")
        if trace_format == "csv" and one[4] and one[4] not in tenants:
            raise row.bad("tenant", f"one of {', '.join(tenants)}")
        if one[2]:
            asked.append(one)
    asked.sort(key=lambda one: one[0])
    shapes: dict[tuple[int, int], Shape] = {}
    jobs = []
    for place, (_, duration_s, chips, milli, tenant, priority) in enumerate(asked):
        whole = -(-chips // width) * width if chips > width else chips
        if (whole, milli) not in shapes:
            shapes[whole, milli] = shape_of(whole, milli)
        jobs.append(Job(name=f"{trace_format}-{place}", shape=shapes[whole, milli], tenant=tenants.get(tenant, 0),
                        priority=priority, runtime_ns=max(nanoseconds(duration_s), 1)))
    arrival_s = np.array([one[0] for one in asked])
    began_s = arrival_s.min(initial=np.inf)
    return Submissions(
        arrival_ns_J=np.rint((arrival_s - began_s) * 1e9).astype(np.int64), jobs_J=jobs,
        work_ns_J=np.array([job.runtime_ns for job in jobs], dtype=np.int64),
        class_J=np.zeros(len(jobs), dtype=np.int32), class_names=(trace_format,), checkpoints=(checkpoint,))


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[_Row]:
    try:
        with (gzip.open(path, "rt", encoding="utf-8", newline="") if path.suffix == ".gz"
              else path.open(encoding="utf-8", newline="")) as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise BadInput(file=str(path), field="line 1, columns", value=list(reader.fieldnames or ())[:12],
                               expected=f"the columns {', '.join(columns)}",
                               remedy=f"Missing: {', '.join(missing)}. Is it of another format?")
            for cells in reader:
                yield _Row(str(path), reader.line_num, cells)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(file=str(path), field="file", value=path.name, expected="a readable CSV (gzip allowed)",
                       remedy=str(error)) from None
