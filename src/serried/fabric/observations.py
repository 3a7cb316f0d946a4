"""Read measured collectives into columns, from the tables that people publish.

Two forms are known: published runs (`PUBLISHED`, one row a message size, the system in words) and kernel sweeps inside
a node (`SWEEP`, counted in elements). What the words of a row mean stands in `data/evidence/collective-words.toml`.

Axes: R = measured row.
"""

from __future__ import annotations

import csv
import functools
import gzip
import io
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serried.catalogue import names_of
from serried.catalogue.entry import DATA, read_toml
from serried.errors import BadInput
from serried.fabric.placement import Floats
from serried.fabric.spec import Fabric
from serried.fabric.tables import read_fabric

__all__ = ["PUBLISHED", "SWEEP", "Observations", "bus_ratio", "fabric_of", "observe", "read_columns", "split_of_sweep"]

PUBLISHED = ("system", "collective", "n_ranks", "ranks_per_node", "message_bytes", "time_us")
SWEEP = ("system", "lib", "op", "dtype", "num_gpus", "message_elems_or_bytes", "time_us")
_LABELS = ("ids", "operation", "ways", "fabric", "library", "system", "source", "split", "skipped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """Measured collectives as columns over R; payload as `fabric.collective_time_s` counts it, times in seconds.

    ways: what the run let the library choose from, as `collective_time_s` takes it, joined by blanks; "" = everything.
    fabric, library: names in the catalogue of the fabric and of the collective profile ("" = the fabric's own).
    split: "calibrate" or "validate". skipped: why a row cannot be predicted, or None.
    """

    operation: Sequence[str]
    payload_bytes: Floats
    degree: Floats
    stride: Floats
    switch_adds: NDArray[np.bool_]
    time_s: Floats
    ways: Sequence[str] = ()
    ids: Sequence[str] = ()
    fabric: Sequence[str] = ()
    library: Sequence[str] = ()
    system: Sequence[str] = ()
    source: Sequence[str] = ()
    split: Sequence[str] = ()
    skipped: Sequence[str | None] = field(default=())

    def __len__(self) -> int:
        return len(self.time_s)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Observations:
        """The rows at `rows` (indices or a mask)."""
        index = np.arange(len(self))[rows]
        columns: dict[str, Any] = {name: getattr(self, name)[index] for name in
                                   ("payload_bytes", "degree", "stride", "switch_adds", "time_s")}
        columns |= {name: [column[row] for row in index] if (column := getattr(self, name)) else () for name in _LABELS}
        return Observations(**columns)

    def blocks(self) -> list[tuple[str, bool, tuple[str, ...], NDArray[np.intp]]]:
        """Rows that one call can evaluate: (operation, switch_adds, ways, rows)."""
        ways = self.ways or [""] * len(self)
        rows_of: dict[tuple[str, bool, str], list[int]] = {}
        for row, key in enumerate(zip(self.operation, self.switch_adds.tolist(), ways, strict=True)):
            rows_of.setdefault(key, []).append(row)
        return [(operation, adds, tuple(words.split()), np.array(rows, dtype=np.intp))
                for (operation, adds, words), rows in sorted(rows_of.items())]


def read_columns(path: Path) -> dict[str, list[str]]:
    """A CSV file, plain or gzipped, as columns of text."""
    try:
        text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(file=str(path), field="file", value=path.name, expected="a readable CSV file",
                       remedy=str(error)) from None
    rows = list(csv.DictReader(io.StringIO(text)))
    return {name: [row[name] or "" for row in rows] for name in (rows[0] if rows else ())}


def observe(columns: Mapping[str, Sequence[Any]], *, file: str = "") -> Observations:
    """Columns of either form as observations; rows that cannot be predicted carry the reason in `skipped`.

    Raises BadInput when the columns are of neither form.
    """
    for form, row_of in ((PUBLISHED, _published), (SWEEP, _sweep)):
        if set(form) <= set(columns):
            names = list(columns)
            rows = [row_of(dict(zip(names, values, strict=True)), number) for number, values in
                    enumerate(zip(*(columns[name] for name in names), strict=True), 1)]
            return _gathered(rows)
    raise BadInput(file=file, field="columns", value=", ".join(columns), expected=f"{', '.join(PUBLISHED)} or "
                   f"{', '.join(SWEEP)}", remedy="Name the columns as in the shipped measurement files.")


def _gathered(rows: Sequence[Mapping[str, Any]]) -> Observations:
    columns: dict[str, Any] = {name: np.array([row[name] for row in rows], dtype=np.float64)
                               for name in ("payload_bytes", "degree", "stride", "time_s")}
    columns |= {name: [row[name] for row in rows] for name in _LABELS}
    return Observations(switch_adds=np.array([row["switch_adds"] for row in rows], dtype=bool), **columns)


def _published(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    words = _words()
    text = f"{row['system']} {row.get('protocol_algorithm') or ''} {row.get('notes') or ''}".casefold()
    rule = _first_rule("system", str(row["system"]).casefold())
    operation = words["operations"].get(str(row["collective"]).strip().casefold(), "")
    degree, per_node = _number(row["n_ranks"]), _number(row["ranks_per_node"])
    fabric = rule["fabric"] if rule else ""
    stride = 1.0
    if rule and not rule.get("tray") and degree > per_node > 0:
        stride = max(1.0, math.floor(read_fabric(fabric).node_size / per_node))
    payload, time_s = _number(row["message_bytes"]), _published_time_s(row, operation, degree)
    skip = _first_rule("skip", text)
    reason = (skip["reason"] if skip else None if operation else f"no formula for {row['collective']}")
    reason = reason or (None if fabric else f"no fabric is known for the system {row['system']!r}")
    reason = reason or (None if degree >= 2 else "n_ranks is blank")
    reason = reason or (None if payload > 0 else "message_bytes is blank")
    reason = reason or (None if time_s > 0 else "neither time nor bandwidth is given")
    return {"ids": str(row.get("id") or f"row {number}"), "operation": operation or "all_reduce",
            "payload_bytes": payload if payload > 0 else 1.0, "degree": max(degree, 1.0), "stride": stride,
            "switch_adds": True, "time_s": time_s if time_s > 0 else math.nan,
            "ways": (_first_rule("ways", text) or {"ways": ""})["ways"], "fabric": fabric, "library": "",
            "system": str(row["system"]), "source": str(row.get("source") or ""), "skipped": reason,
            "split": "calibrate" if str(row.get("set") or "").strip() == "calibrate" else "validate"}


def _published_time_s(row: Mapping[str, Any], operation: str, degree: float) -> float:
    """The time, or what the printed bandwidth says of it; NaN when neither is there."""
    time_s, payload_bytes = _number(row["time_us"]) * 1e-6, _number(row["message_bytes"])
    algorithm_bytes_per_s = _number(row.get("algbw_GBps")) * 1e9
    bus_bytes_per_s = _number(row.get("busbw_GBps")) * 1e9
    if time_s > 0:
        return time_s
    if algorithm_bytes_per_s > 0:
        return payload_bytes / algorithm_bytes_per_s
    return payload_bytes * bus_ratio(operation, degree) / bus_bytes_per_s if bus_bytes_per_s > 0 else math.nan


def bus_ratio(operation: str, degree: float) -> float:
    """Bus bandwidth over algorithm bandwidth, as nccl-tests defines it."""
    if operation == "all_reduce":
        return 2.0 * (degree - 1.0) / degree
    return (degree - 1.0) / degree if operation in ("all_gather", "reduce_scatter", "all_to_all") else 1.0


def _sweep(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    words = _words()
    operation = words["operations"].get(str(row["op"]).strip().casefold(), "")
    number_format = words["formats"].get(str(row["dtype"]).strip().casefold())
    rule = _first_rule("system", str(row["system"]).casefold())
    fabric = rule["fabric"] if rule else ""
    profile = _library_profile(str(row["lib"]), fabric)
    degree, time_s = _number(row["num_gpus"]), _number(row["time_us"]) * 1e-6
    payload = _number(row["message_elems_or_bytes"]) * (number_format or {"bytes": 1})["bytes"]
    reason = None if operation else f"no formula for {row['op']}"
    reason = reason or (None if number_format else f"how many bytes {row['dtype']} takes is not known")
    reason = reason or (None if fabric else f"no fabric is known for the system {row['system']!r}")
    reason = reason or (None if profile is not None else f"no profile of the library {row['lib']!r} on this fabric")
    reason = reason or (None if degree >= 2 and payload > 0 and time_s > 0 else "a blank where a number is needed")
    identity = ("{system}:{lib}:{ver}:{op}:{dtype}:{num_gpus}:{message_elems_or_bytes}"
                .format_map({"ver": "", **row}) + f":{number}")
    return {"ids": identity, "operation": operation or "all_reduce", "payload_bytes": payload if payload > 0 else 1.0,
            "degree": max(degree, 1.0), "stride": 1.0, "time_s": time_s if time_s > 0 else math.nan,
            "switch_adds": (number_format or {"switch_adds": True})["switch_adds"], "ways": "", "fabric": fabric,
            "library": profile or "", "system": str(row["system"]),
            "source": f"{row['lib']} {row.get('ver') or ''}".strip(), "skipped": reason,
            "split": split_of_sweep(str(row["op"]), str(row["num_gpus"]), str(row["message_elems_or_bytes"]))}


def split_of_sweep(operation: str, chips: str, message: str) -> str:
    """"validate" when crc32 of "operation,chips,message" (as the file prints them) is odd: no release is seen twice."""
    return "validate" if zlib.crc32(f"{operation},{chips},{message}".encode()) % 2 == 1 else "calibrate"


def _library_profile(library: str, fabric: str) -> str | None:
    form = _words()["libraries"].get(library)
    if form is None or not fabric:
        return None
    own = read_fabric(fabric).profile.name
    name = str(form).format(profile=own)
    if name == own:
        return ""
    return name if name in names_of("collectives") else None


def fabric_of(fabric: str, library: str) -> Fabric:
    """The fabric called so, driven by the collective profile called so ("" = its own)."""
    return read_fabric(fabric, library or None)


def _first_rule(kind: str, text: str) -> dict[str, Any] | None:
    return next((rule for rule in _words()[kind] if all(word in text for word in rule["words"])), None)


@functools.cache
def _words() -> dict[str, Any]:
    return read_toml(DATA / "evidence" / "collective-words.toml")


def _number(cell: Any) -> float:
    """A cell as a number; NaN when it is blank or not a number."""
    try:
        return float(cell) if cell not in (None, "") else math.nan
    except (TypeError, ValueError):
        return math.nan
