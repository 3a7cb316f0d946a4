"""Read the text output of nccl-tests (and of its relatives with the same table) as observations.

    #       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
            1024           256     float     sum      -1    29.75    0.03    0.06      0    28.10    0.04    0.07      0

The left half is out of place, the right half in place. Launchers put "0:" or "[1,0]<stdout>:" before each line; old
releases have no root column; the header lists the ranks and their hosts. Sizes are in bytes, times in microseconds.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from serried.errors import BadInput
from serried.fabric.observations import Observations
from serried.fabric.placement import Floats

__all__ = ["device_in_log", "read_nccl_log"]

_PREFIX = re.compile(r"^\s*(?:\[[\d,]+\](?:<\w+>)?:?|\d+:)\s*(?=[#\d\s])")
_RANK = re.compile(r"#\s*Rank\s+(\d+)\s.*\bon\s+(\S+)\s+device")
_DEVICE = re.compile(r"#\s*Rank\s+\d+\s.*\bdevice\s+\d+\s+(?:\[\w+\]\s*)?(.+)")
_TEST = re.compile(r"\b(all_reduce|all_gather|reduce_scatter|alltoall|broadcast|sendrecv)_perf")
_OPERATIONS = {"alltoall": "all_to_all", "sendrecv": "send"}


def read_nccl_log(path: str | Path, *, operation: str = "", ranks: int = 0, in_place: bool = False) -> Observations:
    """Every row of the table with a time; out of place unless `in_place`.

    operation, ranks: when the log does not say (no header); they are else read from it, or told from the ratio of bus
    to algorithm bandwidth. Raises BadInput when there is no table or when the collective cannot be told.
    """
    path = Path(path)
    lines = _lines(path)
    rows = [row for line in lines if (row := _row(line, in_place)) is not None]
    if not rows:
        raise BadInput(file=str(path), field="table", value=path.name,
                       expected="lines of size, count, type, redop, root, time, algbw, busbw, #wrong",
                       remedy="Give the whole text output of nccl-tests, e.g. of all_reduce_perf -b 1K -e 1G -f 2.")
    payload_bytes, time_s, ratio = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    operation = operation or _named_operation(lines) or _told_operation(ratio, lines, path)
    found = {int(match.group(1)): match.group(2) for line in lines if (match := _RANK.search(line))}
    degree = float(ranks or len(found) or _told_ranks(operation, ratio, path))
    return Observations(operation=[operation] * len(rows), payload_bytes=payload_bytes, time_s=time_s,
                        degree=np.full(len(rows), degree), stride=np.ones(len(rows)),
                        switch_adds=np.ones(len(rows), dtype=bool), ways=[""] * len(rows),
                        ids=[f"{path.name}:{payload:.0f}" for payload in payload_bytes], fabric=[""] * len(rows),
                        library=[""] * len(rows), system=[path.stem] * len(rows), source=[path.name] * len(rows),
                        split=["calibrate"] * len(rows), skipped=[None] * len(rows))


def device_in_log(path: str | Path) -> str:
    """What the driver called the device of the first rank; "" where the header does not say."""
    return next((match.group(1).strip() for line in _lines(Path(path)) if (match := _DEVICE.search(line))), "")


def _lines(path: Path) -> list[str]:
    """Without what a launcher put before them."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise BadInput(file=str(path), field="file", value=path.name, expected="a readable log",
                       remedy=str(error)) from None
    return [_PREFIX.sub("", line, count=1) for line in text.splitlines()]


def _row(line: str, in_place: bool) -> tuple[float, float, float] | None:
    """Bytes, seconds, and bus over algorithm bandwidth of one line of the table; None for any other line."""
    words = re.sub(r"\[\d+\]", " ", line).split()
    if len(words) < 7 or not (words[0].isdigit() and words[1].isdigit()) or words[2].replace(".", "").isdigit():
        return None
    rest = words[3:]
    if rest and not _is_number(rest[0]):
        rest = rest[1:]                       # the reduction, or "none"
    if len(rest) % 4 == 1:
        rest = rest[1:]                       # the root
    half = rest[4:8] if in_place else rest[:4]
    if len(half) < 3 or not all(_is_number(word) for word in half[:3]):
        return None
    time_us, algorithm_gbps, bus_gbps = (float(word) for word in half[:3])
    if float(words[0]) <= 0 or time_us <= 0:
        return None
    ratio = bus_gbps / algorithm_gbps if algorithm_gbps >= 1.0 else math.nan
    return float(words[0]), time_us * 1e-6, ratio


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _named_operation(lines: list[str]) -> str:
    for line in lines:
        if match := _TEST.search(line):
            return _OPERATIONS.get(match.group(1), match.group(1))
    return ""


def _told_operation(ratio: Floats, lines: list[str], path: Path) -> str:
    """Only an all-reduce has a bus bandwidth above its algorithm bandwidth."""
    known = ratio[np.isfinite(ratio)]
    if len(known) and np.median(known) > 1.01:
        return "all_reduce"
    raise BadInput(file=str(path), field="operation", value="", expected="the name of the collective in the log",
                   remedy="Keep the line 'Collective test starting: ..._perf' or the command, or name the collective.")


def _told_ranks(operation: str, ratio: Floats, path: Path) -> int:
    """The number of ranks from bus/algorithm bandwidth: 2 (n-1)/n of an all-reduce, (n-1)/n of the others."""
    known = ratio[np.isfinite(ratio)]
    share = float(np.median(known)) / (2.0 if operation == "all_reduce" else 1.0) if len(known) else 1.0
    if not 0.4 < share < 0.998 or operation in ("send", "broadcast"):
        raise BadInput(file=str(path), field="ranks", value="", expected="how many ranks took part",
                       remedy="Keep the header of the log with its '#  Rank' lines, or give the number of ranks.")
    return round(1.0 / (1.0 - share))
