"""Traces of public schemas as requests. The schema is recognised by its columns or keys, never by the file's name.

    Azure       CSV    TIMESTAMP, ContextTokens, GeneratedTokens
    BurstGPT    CSV    Timestamp, Model, Request tokens, Response tokens[, Log Type, Session ID]
    Mooncake    JSONL  timestamp (ms), input_length, output_length, hash_ids (of 512 tokens)
    Bailian     JSONL  chat_id, parent_chat_id, timestamp (s), input_length, output_length, hash_ids (of 16 tokens)
    plain       CSV    arrival_s, input_tokens, output_tokens[, class, session, think_s]

Every file may be compressed with gzip.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from serried.catalogue.entry import DATA
from serried.errors import BadInput, nearest
from serried.traffic.spec import Floats, Ints, Requests

__all__ = ["PLAIN_COLUMNS", "read_trace", "trace_names"]

PLAIN_COLUMNS = ("arrival_s", "input_tokens", "output_tokens")
_TRACES = DATA / "traces"
_LARGEST_BYTES = 2**30
_LONGEST_TOKENS = 100_000_000
_HASH_TOKENS = {"mooncake": 512, "bailian": 16}
_DATE = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?")
_EPOCH, _SECOND = datetime(1970, 1, 1), timedelta(seconds=1)


def trace_names() -> list[str]:
    """Names of the shipped traces."""
    return sorted(path.name.split(".")[0] for path in _TRACES.glob("*.*") if path.suffix != ".toml")


def read_trace(name_or_path: str, *, context_tokens: int = 0) -> Requests:
    """The trace called so, or the file at that path.

    context_tokens: of the model that is to serve it; 0 = any length will do. Raises BadInput with file, line and column
    for anything that is missing, negative, out of order, not a number, or longer than that.
    """
    path = _locate(name_or_path)
    text = _text(path)
    first = text[:4096].lstrip()
    if not first:
        raise BadInput(file=str(path), field="file", value="", expected="at least one request",
                       remedy=f"Columns of a plain trace: {', '.join(PLAIN_COLUMNS)}.")
    rows = _json_rows(text, path) if first.startswith("{") else _csv_rows(text, path)
    return _requests(rows, context_tokens)


def _locate(name_or_path: str) -> Path:
    if os.path.isfile(name_or_path):   # False, not an error, for a name that no file can have
        return Path(name_or_path)
    shipped = {one.name.split(".")[0]: one for one in _TRACES.glob("*.*") if one.suffix != ".toml"}
    if name_or_path in shipped:
        return shipped[name_or_path]
    near = nearest(name_or_path, shipped)
    raise BadInput(field="trace", value=name_or_path, expected="a file, or the name of a shipped trace",
                   remedy=f"Shipped: {', '.join(near or sorted(shipped))}.")


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise BadInput(file=str(path), field="file", value=path.stat().st_size, expected="at most 1 GiB",
                           remedy="Cut the trace.")
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = _unzipped(raw, path)
        return raw.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise BadInput(file=str(path), field="file", value=path.name, expected="a text file, plain or gzip",
                       remedy=f"{error}.") from None


def _unzipped(raw: bytes, path: Path) -> bytes:
    """The content of a gzip file, which may not be larger than a plain one might."""
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
        content = stream.read(_LARGEST_BYTES + 1)
    if len(content) > _LARGEST_BYTES:
        raise BadInput(file=str(path), field="file", value=path.name, expected="at most 1 GiB when unpacked",
                       remedy="Cut the trace.")
    return content


class _Rows:
    """Columns of a trace with the line each came from."""

    def __init__(self, path: Path, schema: str, lines: Sequence[int], names: Mapping[str, str]) -> None:
        self.path, self.schema, self.lines, self.names = path, schema, lines, names
        self.columns: dict[str, Sequence[Any]] = {}

    def refuse(self, row: int, column: str, value: object, expected: str, remedy: str) -> BadInput:
        return BadInput(file=f"{self.path}, line {self.lines[row]}", field=self.names.get(column, column), value=value,
                        expected=expected, remedy=remedy)


_CSV: Mapping[str, Mapping[str, str]] = {
    "azure": {"arrival": "TIMESTAMP", "input": "ContextTokens", "output": "GeneratedTokens"},
    "burstgpt": {"arrival": "Timestamp", "input": "Request tokens", "output": "Response tokens"},
    "plain": {"arrival": "arrival_s", "input": "input_tokens", "output": "output_tokens"},
}
_OPTIONAL: Mapping[str, Mapping[str, str]] = {
    "azure": {}, "burstgpt": {"class": "Log Type", "session": "Session ID"},
    "plain": {"class": "class", "session": "session", "think": "think_s"}}


def _csv_rows(text: str, path: Path) -> _Rows:
    try:
        reader = csv.reader(io.StringIO(text))
        header = [name.strip() for name in next(reader)]
        found = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise BadInput(file=str(path), field="file", value=path.name, expected="a table of comma-separated values",
                       remedy=f"{error}.") from None
    schema = next((name for name, columns in _CSV.items() if set(columns.values()) <= set(header)), None)
    if schema is None:
        raise _unknown_columns(header, path)
    if not found:
        raise BadInput(file=str(path), field="file", value="a header alone", expected="at least one request",
                       remedy="Add a line for each request.")
    names = {**_CSV[schema], **{key: name for key, name in _OPTIONAL[schema].items() if name in header}}
    rows = _Rows(path, schema, [line for line, _ in found], names)
    short = next((row for row, (_, cells) in enumerate(found) if len(cells) != len(header)), None)
    if short is not None:
        raise BadInput(file=f"{path}, line {rows.lines[short]}", field="line", value=f"{len(found[short][1])} cells",
                       expected=f"{len(header)} cells, as in the header", remedy="Mend or remove the line.")
    for key, name in names.items():
        at = header.index(name)
        rows.columns[key] = [cells[at] for _, cells in found]
    return rows


def _unknown_columns(header: Sequence[str], path: Path) -> BadInput:
    missing = {schema: [name for name in columns.values() if name not in header] for schema, columns in _CSV.items()}
    schema = min(missing, key=lambda name: (len(missing[name]) == len(_CSV[name]), len(missing[name]), name != "plain"))
    return BadInput(file=f"{path}, line 1", field="columns", value=", ".join(header)[:200],
                    expected=f"columns of a trace; for the schema {schema!r} it lacks {', '.join(missing[schema])}",
                    remedy=f"A plain trace has {', '.join(PLAIN_COLUMNS)}.")


def _json_rows(text: str, path: Path) -> _Rows:
    entries, lines = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            entries.append(_json_entry(line, number, path))
            lines.append(number)
    schema = "bailian" if "chat_id" in entries[0] else "mooncake"
    names = {"arrival": "timestamp", "input": "input_length", "output": "output_length"}
    rows = _Rows(path, schema, lines, names)
    for key, name in names.items():
        lacking = next((row for row, entry in enumerate(entries) if name not in entry), None)
        if lacking is not None:
            raise rows.refuse(lacking, key, None, "a value in every line", "Mend or remove the line.")
        rows.columns[key] = [entry[name] for entry in entries]
    if any("hash_ids" in entry for entry in entries):
        rows.columns["hashes"] = [entry.get("hash_ids", []) for entry in entries]
    if schema == "bailian":
        rows.columns["chat"] = [entry.get("chat_id") for entry in entries]
        rows.columns["parent"] = [entry.get("parent_chat_id", -1) for entry in entries]
        rows.columns["class"] = [str(entry.get("type", "all")) for entry in entries]
    return rows


def _json_entry(line: str, number: int, path: Path) -> Mapping[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(file=f"{path}, line {number}", field="line", value=line[:60], expected="a JSON object",
                       remedy=f"{error}.") from None
    if not isinstance(entry, dict):
        raise BadInput(file=f"{path}, line {number}", field="line", value=line[:60], expected="a JSON object",
                       remedy='Write for example {"timestamp": 0, "input_length": 10, "output_length": 5}.')
    return entry


def _requests(rows: _Rows, context_tokens: int) -> Requests:
    arrival_s = _ARRIVAL[rows.schema](rows)
    late = np.flatnonzero(np.diff(arrival_s) < 0)
    if len(late):
        row = int(late[0]) + 1
        raise rows.refuse(row, "arrival", rows.columns["arrival"][row], "a time not before that of the line above",
                          "Sort the trace by time.")
    inputs, outputs = (_lengths(rows, key) for key in ("input", "output"))
    beyond = np.flatnonzero(inputs + outputs > (context_tokens or 2 * _LONGEST_TOKENS))
    if len(beyond):
        row = int(beyond[0])
        raise rows.refuse(row, "input", f"{int(inputs[row]):,} tokens, and {int(outputs[row]):,} to generate",
                          f"at most the {context_tokens:,} tokens of the model's context, which {len(beyond):,} of the "
                          f"{len(inputs):,} requests exceed",
                          "Leave them out with --drop-longer, shorten all with --scale-length, or take another model.")
    classes = list(rows.columns.get("class", ["all"] * len(inputs)))
    names = tuple(dict.fromkeys(classes))
    codes = {name: code for code, name in enumerate(names)}
    return Requests(
        arrival_ns_R=np.round((arrival_s - arrival_s[0]) * 1e9).astype(np.int64), input_tokens_R=inputs,
        output_tokens_R=outputs, class_R=np.array([codes[name] for name in classes], dtype=np.int64),
        class_names=tuple(str(name) for name in names), **_hashes(rows), **_turns(rows, arrival_s))


def _numbers(rows: _Rows, column: str) -> Floats:
    """A column as floats; BadInput at the first that is none."""
    values = rows.columns[column]
    try:
        found = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        found = np.empty(0)
    if found.shape != (len(values),):   # texts that are no numbers, or lists among them
        found = np.array([_number(value) for value in values])
    bad = np.flatnonzero(~np.isfinite(found))
    if len(bad):
        row = int(bad[0])
        raise rows.refuse(row, column, values[row], "a number", "Mend or remove the line.")
    return found


def _number(value: object) -> float:
    try:
        return float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else float("nan")
    except (ValueError, OverflowError):
        return float("nan")


def _lengths(rows: _Rows, column: str) -> Ints:
    found = _numbers(rows, column)
    bad = np.flatnonzero((found < (0 if rows.schema == "burstgpt" else 1)) | (found != np.round(found))
                         | (found > _LONGEST_TOKENS))
    if len(bad):
        row = int(bad[0])
        raise rows.refuse(row, column, rows.columns[column][row], "a whole number of tokens, at least 1",
                          "Mend or remove the line.")
    return np.asarray(np.maximum(found, 1), dtype=np.int64)   # BurstGPT counts failed answers as 0 tokens


def _seconds(rows: _Rows) -> Floats:
    found = _numbers(rows, "arrival")
    bad = np.flatnonzero((found < 0) | (found > 1e12))
    if len(bad):
        row = int(bad[0])
        raise rows.refuse(row, "arrival", rows.columns["arrival"][row], "a time of zero or more",
                          "Mend or remove the line.")
    return found


def _milliseconds(rows: _Rows) -> Floats:
    return np.asarray(_seconds(rows) / 1e3)


def _dates(rows: _Rows) -> Floats:
    """Dates and times with up to nine decimals, as seconds since the first; differences are exact to the nanosecond."""
    texts = rows.columns["arrival"]
    time_ns = [_date_ns(rows, row, text) for row, text in enumerate(texts)]
    return np.array([one - time_ns[0] for one in time_ns]) * 1e-9


def _date_ns(rows: _Rows, row: int, text: str) -> int:
    """Nanoseconds since 1970, of the zone that is written; none is UTC."""
    found = _DATE.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError
        whole, decimals, zone = found.groups()
        seconds = (datetime.fromisoformat(whole) - _EPOCH) // _SECOND
        if zone and zone != "Z":
            seconds -= int(f"{zone[0]}1") * (int(zone[1:3]) * 3600 + int(zone[4:]) * 60)
    except ValueError:   # no date, or a day that no month has
        raise rows.refuse(row, "arrival", text, "a date and time such as 2023-11-16 18:17:03.97",
                          "Mend or remove the line.") from None
    return seconds * 1_000_000_000 + int((decimals or "0").ljust(9, "0"))


_ARRIVAL: Mapping[str, Callable[[_Rows], Floats]] = {
    "azure": _dates, "burstgpt": _seconds, "plain": _seconds, "mooncake": _milliseconds, "bailian": _seconds}


def _hashes(rows: _Rows) -> dict[str, Any]:
    if "hashes" not in rows.columns:
        return {}
    listed = rows.columns["hashes"]
    try:
        counts = np.array([len(hashes) for hashes in listed], dtype=np.int64)
        flat = np.array(list(chain.from_iterable(listed)) or np.empty(0, dtype=np.int64))
    except (TypeError, ValueError, OverflowError):
        flat = np.empty(0)
    if flat.dtype != np.int64 or (flat < 0).any() or not all(type(hashes) is list for hashes in listed):
        row = next(row for row, hashes in enumerate(listed) if not _are_hashes(hashes))
        raise rows.refuse(row, "hash_ids", str(listed[row])[:60], "a list of whole numbers", "Mend or remove the line.")
    return {"hash_block_tokens": _HASH_TOKENS[rows.schema], "block_hash_H": flat,
            "block_start_R": np.concatenate([[0], np.cumsum(counts)])}


def _are_hashes(hashes: object) -> bool:
    return isinstance(hashes, list) and all(type(one) is int and 0 <= one < 2**63 for one in hashes)


def _turns(rows: _Rows, arrival_s: Floats) -> dict[str, Any]:
    """Which request follows which in a session."""
    before = list(_before(rows))
    if not any(row >= 0 for row in before):
        return {}
    think_s = _numbers(rows, "think") if "think" in rows.columns else np.zeros(len(before))
    return {"previous_R": np.array(before, dtype=np.int64), "think_ns_R": np.round(think_s * 1e9).astype(np.int64)}


def _before(rows: _Rows) -> Iterator[int]:
    seen: dict[Any, int] = {}
    if "parent" in rows.columns:
        for row, (chat, parent) in enumerate(zip(rows.columns["chat"], rows.columns["parent"], strict=True)):
            for name, value in (("chat_id", chat), ("parent_chat_id", parent)):
                if not isinstance(value, (int, str)):
                    raise rows.refuse(row, name, value, "a number or a text", "Mend or remove the line.")
            yield seen.get(parent, -1)
            seen[chat] = row
    else:
        for row, session in enumerate(rows.columns.get("session", ())):
            yield seen.get(session, -1) if session else -1
            seen[session] = row
