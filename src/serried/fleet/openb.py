"""Readers of the openb trace (Alibaba cluster trace of GPUs, 2023), arrivals drawn from it, and published results."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from serried.catalogue.entry import DATA
from serried.errors import BadInput, nearest
from serried.fleet.spec import WHOLE_MILLI, Alternative, Fleet, Job, Shape

__all__ = ["OPENB", "PUBLISHED_NAMES", "arrivals", "milli_of", "published_percent", "read_nodes", "read_pods"]

#: The shipped trace, and what was published about it (`provenance.toml` beside the files).
OPENB = DATA / "measurements" / "fleet" / "openb"
#: Our names of placement rules -> those of the published results.
PUBLISHED_NAMES = {"random": "01-Random", "dot-product": "02-DotProd", "clustering": "03-GpuClustering",
                   "packing": "04-GpuPacking", "best-fit": "05-BestFit", "fragmentation": "06-FGD"}

_MEBIBYTE = 2**20
_NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
_POD_COLUMNS = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
#: The most that a cell may say; a node has at most 64 chips (one bit each).
_MOST_CHIPS, _MOST_MILLI, _MOST_MIB = 64, 10**9, 10**10


def read_nodes(path: str | Path, *, seed: int | None = None) -> Fleet:
    """A node list: sn, cpu_milli, memory_mib, gpu, model. Without switches: the trace names none.

    seed: numbers the nodes in random order, which is how ties between nodes are broken; None keeps the file's order.
    Raises BadInput with file, line and column for anything that is no node list.
    """
    rows = _rows(path, _NODE_COLUMNS)
    names, cells = [], []
    kinds: dict[str, int] = {}
    for line, row in rows:
        number = _numbers(path, line, row)
        names.append(row["sn"])
        cells.append((kinds.setdefault(row["model"] if row["gpu"] != "0" else "", len(kinds)),
                      number("gpu", _MOST_CHIPS), number("cpu_milli", _MOST_MILLI),
                      number("memory_mib", _MOST_MIB) * _MEBIBYTE))
    order = np.arange(len(names)) if seed is None else np.random.default_rng(seed).permutation(len(names))
    kind_N, chips_N, cpu_milli_N, memory_bytes_N = np.array(cells, dtype=np.int64)[order].T
    return Fleet(kinds=tuple(kinds), levels=(), kind_N=kind_N.astype(np.int16), chip_count_N=chips_N.astype(np.int16),
                 cpu_milli_N=cpu_milli_N.copy(), memory_bytes_N=memory_bytes_N.copy(),
                 switch_LN=np.empty((0, len(names)), dtype=np.int32),
                 node_names=tuple(names[place] for place in order))


def read_pods(path: str | Path, fleet: Fleet) -> list[Job]:
    """A pod list: name, cpu_milli, memory_mib, num_gpu, gpu_milli, and gpu_spec (models that will do, "A|B"; blank =
    any). Pods that ask the same share one `Shape`.

    Raises BadInput with file, line and column, also for a pod that no node could ever host.
    """
    shapes: dict[tuple[object, ...], Shape] = {}
    jobs = []
    for line, row in _rows(path, _POD_COLUMNS):
        number = _numbers(path, line, row)
        chips, milli = number("num_gpu", _MOST_CHIPS), number("gpu_milli", WHOLE_MILLI)
        kinds = _accepted(path, line, row.get("gpu_spec") or "", fleet) if chips else tuple(range(len(fleet.kinds)))
        if chips and (milli == 0 or (chips > 1 and milli != WHOLE_MILLI)):
            raise BadInput(file=str(path), field=f"line {line}, gpu_milli", value=row["gpu_milli"],
                           expected="1000 (whole chips), or 1 to 999 of one chip", remedy="Correct the cell.")
        key = (number("cpu_milli", _MOST_MILLI), number("memory_mib", _MOST_MIB), chips, milli, kinds)
        if key not in shapes:
            shapes[key] = Shape(
                alternatives=(Alternative(kinds=kinds, chips_per_worker=chips),), cpu_milli=key[0],
                memory_bytes=key[1] * _MEBIBYTE, share_milli=milli if chips else WHOLE_MILLI)
            _check_possible(path, line, row, shapes[key], fleet)
        jobs.append(Job(name=row["name"], shape=shapes[key]))
    return jobs


def arrivals(jobs: Sequence[Job], fleet: Fleet, *, load: float, seed: int) -> list[Job]:
    """The pods in random order, then pods drawn from them with replacement, until the chips asked for reach `load`
    times the fleet's; where the list alone asks for more, pods are dropped at random.

    As the published study tunes its workload: the draw that would exceed the load ends it.
    """
    chance = np.random.default_rng([seed, 1])
    most_milli = load * int(fleet.chip_count_N.sum()) * WHOLE_MILLI
    milli_J = np.array([milli_of(job.shape) for job in jobs], dtype=np.int64)
    order = chance.permutation(len(jobs))
    asked_milli = int(milli_J.sum())
    if asked_milli > most_milli:
        dropped = chance.permutation(len(jobs))
        left_milli = asked_milli - np.cumsum(milli_J[dropped])
        gone = dropped[:int(np.searchsorted(-left_milli, -most_milli)) + 1]
        kept = np.ones(len(jobs), dtype=bool)
        kept[gone] = False
        return [jobs[number] for number in order if kept[number]]
    drawn = [jobs[number] for number in order]
    while milli_J.any():
        for number in chance.integers(len(jobs), size=len(jobs)).tolist():
            if asked_milli + jobs[number].shape.share_milli * bool(milli_J[number]) > most_milli:
                return drawn
            asked_milli += int(milli_J[number])
            drawn.append(jobs[number])
    return drawn


def milli_of(shape: Shape) -> int:
    """Shares of chips that a job of this shape asks for, by its first alternative."""
    return shape.alternatives[0].chip_count * shape.share_milli


def published_percent(pods: str, rule: str, load_percent: int) -> tuple[float, float] | None:
    """Published mean and deviation of the allocation, in percent; None where nothing was published."""
    for row in csv.DictReader((OPENB / "fgd_expected_gpu_alloc.csv").read_text(encoding="utf-8").splitlines()):
        if (row["workload"], row["sc_policy"]) == (pods, PUBLISHED_NAMES.get(rule)) and f"{load_percent}_mean" in row:
            return float(row[f"{load_percent}_mean"]), float(row[f"{load_percent}_std"])
    return None


def _rows(path: str | Path, needed: Sequence[str]) -> list[tuple[int, Mapping[str, str]]]:
    """Rows of a CSV, plain or gzip, with their line numbers."""
    def bad(field: str, value: object, expected: str, remedy: str) -> BadInput:
        return BadInput(file=str(path), field=field, value=value, expected=expected, remedy=remedy)

    try:
        with _open(path) as file:
            reader = csv.DictReader(file, strict=True)
            header = reader.fieldnames or []
            for name in needed:
                if name not in header:
                    near = nearest(name, header, count=1)
                    raise bad("line 1", ",".join(header)[:120] or "(empty)", f"a column {name!r}",
                              f"Perhaps {near[0]!r} is meant." if near else f"Columns needed: {', '.join(needed)}.")
            found: list[tuple[int, Mapping[str, str]]] = []
            for row in reader:
                blank = next((name for name in needed if row[name] is None), None)
                if blank is not None:
                    raise bad(f"line {reader.line_num}, {blank}", "(missing)", f"{len(header)} cells a line",
                              "Complete the line.")
                found.append((reader.line_num, row))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, gzip.BadGzipFile) as error:
        raise bad("file", Path(path).name, "a CSV, plain or gzip", f"{error}.") from None
    if not found:
        raise bad("file", Path(path).name, "at least one row below the header", "Add rows.")
    return found


def _open(path: str | Path) -> TextIO:
    with open(path, "rb") as probe:
        packed = probe.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rt", encoding="utf-8", newline="") if packed else open(path, encoding="utf-8", newline="")


def _numbers(path: str | Path, line: int, row: Mapping[str, str]) -> Callable[[str, int], int]:
    """Reads one cell of a row as a whole number from 0 to a bound."""
    def number(column: str, most: int) -> int:
        try:
            value = int(row[column])
        except ValueError:
            value = -1
        if not 0 <= value <= most:
            raise BadInput(file=str(path), field=f"line {line}, {column}", value=row[column],
                           expected=f"a whole number from 0 to {most}", remedy="Correct the cell.")
        return value
    return number


def _accepted(path: str | Path, line: int, spec: str, fleet: Fleet) -> tuple[int, ...]:
    """Kinds of chip named by "A|B"; all of them for a blank."""
    names = dict.fromkeys(name for name in spec.split("|") if name)
    kinds = tuple(sorted(fleet.kinds.index(name) for name in names if name in fleet.kinds))
    if names and not kinds:
        raise BadInput(file=str(path), field=f"line {line}, gpu_spec", value=spec,
                       expected=f"some of {', '.join(fleet.kinds)}", remedy="No node of the node list has such a chip.")
    return kinds or tuple(kind for kind, name in enumerate(fleet.kinds) if name)


def _check_possible(path: str | Path, line: int, row: Mapping[str, str], shape: Shape, fleet: Fleet) -> None:
    """More chips than any node has is a mistake; more CPU than goes with them is the trace's own, and never placed."""
    one = shape.alternatives[0]
    most = int(fleet.chip_count_N[np.isin(fleet.kind_N, one.kinds)].max(initial=0))
    if one.chips_per_worker > most:
        raise BadInput(file=str(path), field=f"line {line}, num_gpu", value=row["num_gpu"],
                       expected=f"at most {most}, the chips of the largest node that will do",
                       remedy="Ask for fewer, or add such a node to the node list.")
