"""Run the evidence: every area over its shipped measurements, or one file of the same columns."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from serried.catalogue.entry import DATA, read_toml
from serried.errors import BadInput
from serried.evidence.intervals import with_intervals
from serried.evidence.spec import CaseResults

if TYPE_CHECKING:
    import polars as pl

__all__ = ["AREAS", "READERS", "Progress", "Reader", "Report", "read_cases", "run_evidence"]

MEASUREMENTS = DATA / "measurements"

#: Called with (cases done, text) while the evidence runs.
Progress = Callable[[int, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One evidence module: its area, and the shipped files it reads.

    The module has `COLUMNS` (one tuple of column names, or several alternatives) and `evaluate(frame) -> CaseResults`.
    """

    module: str
    area: str
    files: tuple[str, ...]


#: Every evidence module with the shipped files it reads, as `data/evidence/readers.toml` lists them.
READERS = tuple(Reader(module=table["module"], area=table["area"], files=tuple(table["files"]))
                for table in read_toml(DATA / "evidence" / "readers.toml")["reader"])
AREAS = tuple(dict.fromkeys(reader.area for reader in READERS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came out: results per reader with the file they came from, and the wall time of the evaluation alone."""

    parts: tuple[tuple[str, CaseResults], ...]
    wall_s: float

    @property
    def case_count(self) -> int:
        """Rows read, predicted or skipped; a run's memory is not a case of its own."""
        return sum(len(results.ids) for _, results in self.parts if results.area != "memory")


def run_evidence(areas: Sequence[str] = AREAS, cases_file: str | Path | None = None, *,
                 progress: Progress | None = None) -> Report:
    """Predict every case of `areas` from the shipped files, or every case of `cases_file` (recognised by its columns).

    Raises BadInput for an area that is not known and for a file that is no cases file; a malformed row is skipped with
    the reason, never raised.
    """
    for area in areas:
        if area not in AREAS:
            raise BadInput(field="area", value=area, expected=f"one of {', '.join(AREAS)}",
                           remedy="Choose one of these.")
    if cases_file is not None:
        path = Path(cases_file)
        frame = read_cases(path)
        chosen = [(_reader_of(frame.columns, path, areas), path.name, frame)]
    else:
        chosen = [(reader, file, read_cases(MEASUREMENTS / file)) for reader in READERS if reader.area in areas
                  for file in reader.files]
    parts, done = [], 0
    began = time.perf_counter()
    for reader, name, frame in chosen:
        if progress is not None:
            progress(done, f"{reader.area}: {name}")
        found = _evaluated(_module(reader), frame)
        if cases_file is not None:
            found = [_with_unseen(results, reader, frame) for results in found]
        parts += [(name, with_intervals(results)) for results in found]
        done += frame.height
    wall_s = time.perf_counter() - began
    if progress is not None:
        progress(done, "done")
    return Report(parts=tuple(parts), wall_s=wall_s)


def read_cases(path: Path) -> pl.DataFrame:
    """A CSV of cases (gzip allowed), every cell as text; BadInput when it is no table."""
    import polars as pl

    try:
        frame = pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise BadInput(file=str(path), field="file", value=path.name, expected="a CSV of cases with a header",
                       remedy=str(error).splitlines()[0] if str(error) else "Check the file.") from None
    if not frame.height:
        raise BadInput(file=str(path), field="file", value=path.name, expected="at least one case below the header",
                       remedy="Add rows.")
    return frame


def _evaluated(module: Any, frame: pl.DataFrame) -> Sequence[CaseResults]:
    """Times, and memory where a reader knows it (as an area of its own)."""
    both = getattr(module, "evaluate_with_memory", None)
    results: Sequence[CaseResults] = (module.evaluate(frame),) if both is None else both(frame)
    return [one for one in results if len(one.ids)]


def _with_unseen(results: CaseResults, reader: Reader, frame: pl.DataFrame) -> CaseResults:
    """A user's case counts as fitted only when the very same row is among the shipped ones that were."""
    if len(results.ids) != frame.height:
        return results
    same = np.zeros(frame.height, dtype=bool)
    for file in reader.files:
        shipped = read_cases(MEASUREMENTS / file)
        columns = sorted(set(frame.columns) & set(shipped.columns))
        if len(columns) > len(frame.columns) // 2:
            known = set(shipped.select(columns).hash_rows(seed=1).to_list())
            same |= np.array([mark in known for mark in frame.select(columns).hash_rows(seed=1).to_list()])
    split = [name if was or name != "calibrate" else "validate" for name, was in zip(results.split, same, strict=True)]
    return replace(results, split=split)


def _module(reader: Reader) -> Any:
    return importlib.import_module(f"serried.evidence.{reader.module}")


def column_sets(reader: Reader) -> tuple[tuple[str, ...], ...]:
    """The alternatives of columns by which a reader knows its files."""
    columns = _module(reader).COLUMNS
    if isinstance(columns, Mapping):
        columns = tuple(columns.values())
    return (tuple(columns),) if isinstance(columns[0], str) else tuple(tuple(one) for one in columns)


def _reader_of(columns: Sequence[str], path: Path, areas: Sequence[str]) -> Reader:
    """The reader one of whose column sets the file holds; the one that asks for most where several fit."""
    present = set(columns)
    fitting = [(len(one), position, reader) for position, reader in enumerate(READERS) if reader.area in areas
               for one in column_sets(reader) if set(one) <= present]
    if fitting:
        return max(fitting, key=lambda found: (found[0], -found[1]))[2]
    nearest = min(((sorted(set(one) - present), reader) for reader in READERS for one in column_sets(reader)),
                  key=lambda found: len(found[0]))
    raise BadInput(file=str(path), field="columns", value=list(columns)[:12],
                   expected="the columns of one of the shipped measurement files",
                   remedy=f"Nearest is {nearest[1].area} ({nearest[1].files[0]}), which also needs: "
                          f"{', '.join(nearest[0])}.")


def concatenated(report: Report, attribute: str) -> list[Any]:
    """One attribute of every part, case by case, in the order of the parts."""
    return [value for _, results in report.parts for value in np.asarray(getattr(results, attribute), dtype=object)]
