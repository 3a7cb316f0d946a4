"""The intermediate form as a JSON file (docs/schedule.md): read without trust, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from serried.errors import BadInput, nearest
from serried.weave.spec import BUFFERS, KINDS, OPERATIONS, RECEIVE, RECEIVE_REDUCE, SEND, Schedule, Steps

__all__ = ["SCHEMA", "StepTable", "read_schedule", "schedule_of_json", "schedule_to_json"]

SCHEMA = "serried/schedule/1"
#: What a hostile file may ask for at most.
MOST_RANKS, MOST_STEPS, MOST_CHUNKS, MOST_SLOTS = 4096, 4_000_000, 1 << 20, 1 << 26
_MOST_BYTES = 1 << 30
_ENDS = {"from": ("source_buffer", "source_chunk"), "to": ("target_buffer", "target_chunk")}
_NEEDS = {"send": ("from",), "receive": ("to",), "receive_reduce": ("from", "to"), "copy": ("from", "to"),
          "reduce": ("from", "to")}


class StepTable:
    """Collects steps lane by lane, as a file tells them; waits are told as (lane, order in the lane)."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, ...]] = []
        self.waits: list[tuple[int, int, int, int]] = []       # step, rank, lane, order
        self._first: dict[tuple[int, int], int] = {}
        self._length: dict[tuple[int, int], int] = {}

    def add(self, rank: int, lane: int, kind: int, *, peer: int = -1, channel: int = -1,
            source: tuple[int, int] = (-1, -1), target: tuple[int, int] = (-1, -1), count: int = 1,
            after: list[tuple[int, int]] | None = None) -> int:
        """Append a step to a lane; lanes come one after the other. Returns its order in the lane."""
        step = len(self.rows)
        order = self._length.get((rank, lane), 0)
        self._first.setdefault((rank, lane), step)
        self._length[(rank, lane)] = order + 1
        self.rows.append((rank, lane, kind, peer, channel, *source, *target, count))
        self.waits += [(step, rank, *wait) for wait in after or ()]
        return order

    def steps(self, *, file: str = "") -> Steps:
        """The columns; BadInput when a wait names a step that does not exist."""
        columns = np.asarray(self.rows, dtype=np.int64).reshape(-1, 10).T
        held = []
        for step, rank, lane, order in self.waits:
            if not 0 <= order < self._length.get((rank, lane), 0):
                raise BadInput(file=file, field=f"rank {rank}, step {step} in all, after", value=[lane, order],
                               expected="[lane, order] of a step of the same rank", remedy="Correct what it waits for.")
            held.append((step, self._first[(rank, lane)] + order))
        waits = np.asarray(sorted(held), dtype=np.int64).reshape(-1, 2)
        first = np.searchsorted(waits[:, 0], np.arange(len(self.rows) + 1))
        names = Steps.__slots__[:10]
        return Steps(**dict(zip(names, columns, strict=True)), after_first_K=first, after_D=waits[:, 1].copy())


def schedule_to_json(schedule: Schedule) -> dict[str, Any]:
    """The schedule as plain data, as docs/schedule.md describes it."""
    steps = schedule.steps
    columns = [getattr(steps, name).tolist() for name in Steps.__slots__]
    starts = np.flatnonzero((np.diff(steps.rank_K, prepend=-1) != 0) | (np.diff(steps.lane_K, prepend=-1) != 0))
    start_of_K = np.repeat(starts, np.diff(np.append(starts, len(steps))))
    order_K, lane_K = (np.arange(len(steps)) - start_of_K).tolist(), columns[1]
    ranks: list[dict[str, Any]] = [{"rank": rank, "lanes": []}
                                   for rank in range(schedule.rank_count + schedule.switch_count)]
    for step, (rank, _lane, kind, peer, channel, *ends, count) in enumerate(zip(*columns[:10], strict=True)):
        told: dict[str, Any] = {"do": KINDS[kind]}
        if kind in (SEND, RECEIVE, RECEIVE_REDUCE):
            told |= {"peer": peer, "channel": channel}
        for position, (word, _) in enumerate(_ENDS.items()):
            if ends[2 * position] >= 0:
                told[word] = [BUFFERS[ends[2 * position]], ends[2 * position + 1]]
        if count != 1:
            told["count"] = count
        waits = columns[11][columns[10][step]:columns[10][step + 1]]
        if waits:
            told["after"] = [[lane_K[wait], order_K[wait]] for wait in waits]
        if order_K[step] == 0:
            ranks[rank]["lanes"].append([])
        ranks[rank]["lanes"][-1].append(told)
    return {"schema": SCHEMA, "name": schedule.name, "operation": schedule.operation,
            "rank_count": schedule.rank_count, "switch_count": schedule.switch_count, "root": schedule.root,
            "in_place": schedule.in_place, "scratch_count": schedule.scratch_count,
            "chunk_weights": schedule.chunk_weight_C.tolist(), "ranks": ranks}


def read_schedule(path: Path) -> Schedule:
    """A schedule from a file of the intermediate form. Raises BadInput with the place in the file."""
    return schedule_of_json(read_json(path), file=str(path))


def read_json(path: Path) -> Any:
    """Any JSON value of a file; BadInput with line and column when it is none."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BadInput(field=str(path), value=path.stat().st_size, expected=f"at most {_MOST_BYTES:,} bytes",
                           remedy="No schedule is that long.")
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise BadInput(file=str(path), field=f"line {error.lineno}, column {error.colno}", value=error.msg,
                       expected="JSON", remedy="Mend the file or write it again.") from None
    except RecursionError:
        raise BadInput(file=str(path), field="nesting", value="too deep", expected="JSON of a few levels",
                       remedy="A schedule is a list of steps.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(field=str(path), value=getattr(error, "strerror", None) or "not text",
                       expected="a file that can be read", remedy="Correct the path.") from None


def schedule_of_json(told: Any, *, file: str = "") -> Schedule:
    """A schedule from plain data. Raises BadInput naming the rank, lane and step that cannot be read."""
    frame = _object(told, "the file", file)
    if frame.get("schema") != SCHEMA:
        raise BadInput(file=file, field="schema", value=frame.get("schema"), expected=f"{SCHEMA!r}",
                       remedy="docs/schedule.md describes the form.")
    operation = frame.get("operation")
    if operation not in OPERATIONS:
        raise BadInput(file=file, field="operation", value=operation, expected=f"one of {', '.join(OPERATIONS)}",
                       remedy=f"Nearest: {', '.join(nearest(str(operation), OPERATIONS)) or OPERATIONS[0]}.")
    rank_count = _whole(frame, "rank_count", file, least=1, most=MOST_RANKS)
    switch_count = _whole(frame, "switch_count", file, most=MOST_RANKS, default=0)
    weights = _list(frame.get("chunk_weights"), "chunk_weights", file)
    if not weights or len(weights) > MOST_CHUNKS or not all(_is_whole(each) and 0 < each < 1 << 31 for each in weights):
        raise BadInput(file=file, field="chunk_weights", value=weights[:4], expected="positive whole numbers",
                       remedy="One weight per chunk of the whole buffer; equal chunks are all 1.")
    scratch = _whole(frame, "scratch_count", file, most=MOST_CHUNKS, default=0)
    if (2 * len(weights) + scratch) * (rank_count + switch_count) > MOST_SLOTS:
        raise BadInput(file=file, field="chunk_weights", value=len(weights), expected="fewer chunks for so many ranks",
                       remedy=f"Ranks x chunks may be {MOST_SLOTS:,} at most.")
    table = StepTable()
    listed = _list(frame.get("ranks"), "ranks", file)
    if [_object(each, "ranks", file).get("rank") for each in listed] != list(range(rank_count + switch_count)):
        raise BadInput(file=file, field="ranks", value=len(listed), expected=f"ranks 0 to "
                       f"{rank_count + switch_count - 1}, each once and in order",
                       remedy="Write ranks without work too.")
    for rank, each in enumerate(listed):
        for lane, told_steps in enumerate(_list(each.get("lanes"), f"rank {rank}, lanes", file)):
            for order, step in enumerate(_list(told_steps, f"rank {rank}, lane {lane}", file)):
                _read_step(table, step, rank, lane, f"rank {rank}, lane {lane}, step {order}", file)
    return Schedule(name=str(frame.get("name", ""))[:200], operation=operation, rank_count=rank_count,
                    chunk_weight_C=np.asarray(weights, dtype=np.int64), steps=table.steps(file=file),
                    in_place=frame.get("in_place") is not False, switch_count=switch_count, scratch_count=scratch,
                    root=_whole(frame, "root", file, most=rank_count - 1, default=0))


def _read_step(table: StepTable, told: Any, rank: int, lane: int, where: str, file: str) -> None:
    step = _object(told, where, file)
    kind = step.get("do")
    if kind not in KINDS:
        raise BadInput(file=file, field=f"{where}, do", value=kind, expected=f"one of {', '.join(KINDS)}",
                       remedy="Correct the word.")
    if len(table.rows) >= MOST_STEPS:
        raise BadInput(file=file, field=where, value=MOST_STEPS, expected="fewer steps", remedy="Use fewer chunks.")
    ends = {}
    for word, (buffer_word, _) in _ENDS.items():
        end = step.get(word)
        if (word in _NEEDS[kind]) != (end is not None):
            raise BadInput(file=file, field=f"{where}, {word}", value=end, expected=f"for {kind} exactly "
                           f"{' and '.join(_NEEDS[kind])}", remedy="An end is [buffer, first chunk].")
        if end is not None:
            if not isinstance(end, list) or len(end) != 2 or end[0] not in BUFFERS or not _is_whole(end[1]):
                raise BadInput(file=file, field=f"{where}, {word}", value=end, expected="[buffer, first chunk]",
                               remedy=f"Buffers are {', '.join(BUFFERS)}.")
            ends[buffer_word[:6]] = (BUFFERS.index(end[0]), min(max(end[1], -1), MOST_CHUNKS))
    after = [tuple(wait) for wait in _list(step.get("after", []), f"{where}, after", file)
             if isinstance(wait, list) and len(wait) == 2 and all(_is_whole(part) for part in wait)]
    if len(after) != len(step.get("after", [])):
        raise BadInput(file=file, field=f"{where}, after", value=step["after"], expected="a list of [lane, order]",
                       remedy="Both are whole numbers from 0.")
    message = KINDS.index(kind) in (SEND, RECEIVE, RECEIVE_REDUCE)
    table.add(rank, lane, KINDS.index(kind), source=ends.get("source", (-1, -1)), target=ends.get("target", (-1, -1)),
              peer=_whole(step, "peer", file, where=where, most=MOST_RANKS) if message else -1,
              channel=_whole(step, "channel", file, where=where, most=MOST_RANKS, default=0) if message else -1,
              count=_whole(step, "count", file, where=where, least=1, most=MOST_CHUNKS, default=1), after=after)


def _object(told: Any, where: str, file: str) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise BadInput(file=file, field=where, value=_short(told), expected="an object", remedy="See docs/schedule.md.")
    return told


def _list(told: Any, where: str, file: str) -> list[Any]:
    if not isinstance(told, list):
        raise BadInput(file=file, field=where, value=_short(told), expected="a list", remedy="See docs/schedule.md.")
    return told


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(told: dict[str, Any], name: str, file: str, *, most: int, least: int = 0, default: int | None = None,
           where: str = "") -> int:
    value = told.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadInput(file=file, field=f"{where}, {name}" if where else name, value=_short(value),
                       expected=f"a whole number from {least} to {most:,}", remedy="See docs/schedule.md.")
    return value


def _short(value: object) -> object:
    return value if isinstance(value, (int, float, type(None))) else str(value)[:60]
