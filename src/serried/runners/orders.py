"""What is said between an engine and the agent of a node: lines of JSON, and nothing is believed before it is checked.

Orders: {"order": "start" | "stop" | "forget" | "end", ...}. Answers: {"task": ...} for every task that is known and a
closing {"hello": ...}; then {"task": ...} whenever one changes, {"beats": ...}, {"forgotten": ...}, {"alive": time},
{"refused": why}. Times are nanoseconds of the machine's monotonic clock, which all its processes share.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serried.runners.spec import AttemptId, Beat, Limits, Phase, RankSeen, TaskSeen

__all__ = ["LINE_BYTES", "PROTOCOL", "BadOrder", "End", "Forget", "Order", "RankOrder", "Start", "Stop", "line_of",
           "read_order", "read_task", "task_words"]

PROTOCOL = 1
LINE_BYTES = 16 * 2**20   # no order is longer: a kernel takes no program whose arguments come near
_MOST_RANKS, _MOST_NUMBER = 4096, 2**62


class BadOrder(Exception):
    """An order that cannot be followed. attempt: whose start it was, None where that much is not known."""

    def __init__(self, why: str, attempt: AttemptId | None = None, incarnation: str = "") -> None:
        self.attempt, self.incarnation = attempt, incarnation
        super().__init__(why)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankOrder:
    """One rank: its number, its own variables and the cores it may use (empty = any)."""

    rank: int
    environment: Mapping[str, str]
    cores: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Run these ranks. environment: of all of them, without what is a rank's own."""

    attempt: AttemptId
    incarnation: str
    argv: tuple[str, ...]
    directory: str
    environment: Mapping[str, str]
    ranks: tuple[RankOrder, ...]
    limits: Limits
    log_limit_bytes: int
    log_kept_parts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """End an attempt, and bar it."""

    attempt: AttemptId
    grace_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """Tell no more of an attempt."""

    attempt: AttemptId


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """End everything that runs here, then yourself."""

    grace_ns: int


Order = Start | Stop | Forget | End


def line_of(words: Mapping[str, Any]) -> bytes:
    """One line as it goes over the wire."""
    return json.dumps(words, separators=(",", ":")).encode() + b"\n"


def read_order(line: bytes) -> Order:
    """An order that was checked; raises BadOrder."""
    try:
        words = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadOrder(f"expected a line of JSON ({error})") from None
    if not isinstance(words, dict):
        raise BadOrder("expected an object with the key 'order'")
    order = words.get("order")
    if order == "end":
        return End(grace_ns=_number(words, "grace_ns"))
    if order not in ("start", "stop", "forget"):
        raise BadOrder(f"order = {str(order)[:40]!r}: expected 'start', 'stop', 'forget' or 'end'")
    attempt = _attempt(words.get("attempt"))
    if order == "forget":
        return Forget(attempt=attempt)
    if order == "stop":
        return Stop(attempt=attempt, grace_ns=_number(words, "grace_ns"))
    incarnation = _text(words, "incarnation")
    try:
        return _start(words, attempt, incarnation)
    except BadOrder as error:
        raise BadOrder(str(error), attempt, incarnation) from None


def _start(words: Mapping[str, Any], attempt: AttemptId, incarnation: str) -> Start:
    if "refusal" in words:   # the engine knows already that it cannot be, and wants it told by the node
        raise BadOrder(_text(words, "refusal"))
    argv = words.get("argv")
    if not isinstance(argv, list) or not argv or not all(isinstance(one, str) for one in argv) or not argv[0]:
        raise BadOrder("argv: expected a program and its arguments, as texts")
    ranks = words.get("ranks")
    if not isinstance(ranks, list) or not 0 < len(ranks) <= _MOST_RANKS:
        raise BadOrder(f"ranks: expected 1 to {_MOST_RANKS} of them")
    limits = words.get("limits")
    if not isinstance(limits, dict):
        raise BadOrder("limits: expected an object")
    return Start(
        attempt=attempt, incarnation=incarnation, argv=tuple(_checked(one, "argv") for one in argv),
        directory=_text(words, "directory"), environment=_environment(words.get("environment")),
        ranks=tuple(_rank(one) for one in ranks),
        limits=Limits(open_files=_number(limits, "open_files"), memory_bytes=_number(limits, "memory_bytes"),
                      core_bytes=_number(limits, "core_bytes")),
        log_limit_bytes=max(1, _number(words, "log_limit_bytes")),
        log_kept_parts=min(1000, _number(words, "log_kept_parts")))


def _rank(words: Any) -> RankOrder:
    if not isinstance(words, dict):
        raise BadOrder("ranks: expected objects")
    cores = words.get("cores", [])
    if not isinstance(cores, list) or not all(type(core) is int and 0 <= core < 2**16 for core in cores):
        raise BadOrder("cores: expected numbers of cores")
    return RankOrder(rank=_number(words, "rank"), environment=_environment(words.get("environment")),
                     cores=tuple(cores))


def _number(words: Mapping[str, Any], key: str) -> int:
    value = words.get(key)
    if type(value) is not int or not 0 <= value <= _MOST_NUMBER:
        raise BadOrder(f"{key} = {str(value)[:40]}: expected a whole number from 0 to 2^62")
    return value


def _checked(value: str, key: str) -> str:
    try:
        bad = b"\0" in os.fsencode(value)
    except ValueError:
        bad = True
    if bad:
        raise BadOrder(f"{key} = {value[:40]!r}: expected a text without zero bytes or lone surrogates")
    return value


def _text(words: Mapping[str, Any], key: str) -> str:
    value = words.get(key)
    if not isinstance(value, str):
        raise BadOrder(f"{key}: expected a text")
    return _checked(value, key)


def _environment(words: Any) -> dict[str, str]:
    if not isinstance(words, dict):
        raise BadOrder("environment: expected an object")
    for name, value in words.items():
        if not name or "=" in name or not isinstance(value, str):
            raise BadOrder(f"environment: {name[:40]!r}: expected a name without '=' and a text")
        _checked(name, "environment")
        _checked(value, f"environment: {name[:40]}")
    return words


def _attempt(value: Any) -> AttemptId:
    if (not isinstance(value, list) or len(value) != 2
            or not all(type(one) is int and 0 <= one <= _MOST_NUMBER for one in value)):
        raise BadOrder("attempt: expected [job, epoch]")
    return AttemptId(*value)


def task_words(task: TaskSeen) -> dict[str, Any]:
    """A task as it goes over the wire; `heard_ns` of its beats are of the monotonic clock."""
    return {"attempt": list(task.attempt), "node": task.node, "incarnation": task.incarnation,
            "phase": int(task.phase), "error": task.error,
            "ranks": [[one.rank, one.pid, one.exit_code,
                       one.beat and [one.beat.step, one.beat.heard_ns, one.beat.busy_s]] for one in task.ranks]}


def read_task(words: Any) -> TaskSeen:
    """The other way round; raises BadOrder. It also reads what an agent left on disk, so it trusts nothing either."""
    try:
        ranks = tuple(RankSeen(rank=int(rank), pid=int(pid), exit_code=None if code is None else int(code),
                               beat=None if beat is None else Beat(step=int(beat[0]), heard_ns=int(beat[1]),
                                                                   busy_s=float(beat[2])))
                      for rank, pid, code, beat in words["ranks"])
        return TaskSeen(attempt=_attempt(words["attempt"]), node=str(words["node"]), phase=Phase(words["phase"]),
                        incarnation=str(words["incarnation"]), error=str(words["error"]), ranks=ranks)
    except (LookupError, TypeError, ValueError) as error:
        raise BadOrder(f"not a task: {error!r}") from None
