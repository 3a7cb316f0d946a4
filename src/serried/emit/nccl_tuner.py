"""Choices of algorithm, protocol and channels as the CSV of NCCL's example tuner plugin (NCCL_TUNER_CONFIG_FILE)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from serried.errors import BadInput

__all__ = ["COLUMNS", "check_ranges", "nccl_tuner_csv", "read_nccl_tuner", "write_nccl_tuner"]

COLUMNS = ("collective_type", "min_bytes", "max_bytes", "algorithm", "protocol", "channels", "nNodes", "nRanks",
           "numPipeOps", "regBuff")
_WORDS = {
    "collective_type": ("broadcast", "reduce", "allgather", "reducescatter", "allreduce"),
    "algorithm": ("tree", "ring", "collnet_direct", "collnet_chain", "nvls", "nvls_tree", "pat"),
    "protocol": ("ll", "ll128", "simple"),
}


def write_nccl_tuner(rows: Iterable[Mapping[str, object]]) -> str:
    """CSV text; a column that a row leaves out is -1, any. Raises BadInput for words that the plugin does not know."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for number, row in enumerate(rows, 1):
        values = [str(row.get(column, -1)) for column in COLUMNS]
        _check(dict(zip(COLUMNS, values, strict=True)), f"row {number}", "")
        writer.writerow(values)
    return f"# {','.join(COLUMNS)}\n{text.getvalue()}"


def read_nccl_tuner(path: Path) -> list[dict[str, str]]:
    """Rows of such a file, in order; the first that fits is taken. Raises BadInput with the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(field=str(path), value=getattr(error, "strerror", None) or "not text",
                       expected="a file that can be read", remedy="Correct the path.") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        values = [value.strip() for value in line.split(",")]
        if not 8 <= len(values) <= len(COLUMNS):
            raise BadInput(file=str(path), field=f"line {number}", value=line[:80], expected=f"{','.join(COLUMNS)}",
                           remedy="The last two columns may be left out.")
        row = dict(zip(COLUMNS, values + ["-1"] * (len(COLUMNS) - len(values)), strict=True))
        _check(row, f"line {number}", str(path))
        rows.append(row)
    return rows


def check_ranges(rows: Sequence[Mapping[str, str]], *, file: str = "", ranks: int | None = None) -> None:
    """Raise BadInput where a line can never be reached, since an earlier one takes all its sizes, or where lines with
    one condition overlap; with `ranks`, also when no line is for so many."""
    if ranks is not None and not any(row["nRanks"] in ("-1", str(ranks)) for row in rows):
        raise BadInput(file=file, field="nRanks", value=sorted({row["nRanks"] for row in rows}),
                       expected=f"a line for {ranks} ranks", remedy="Use a table that was made for as many ranks.")
    alike: dict[tuple[str, ...], list[tuple[int, int, int]]] = {}
    for number, row in enumerate(rows, 1):
        least, most = int(row["min_bytes"]), int(row["max_bytes"])
        condition = tuple(row[column] for column in ("collective_type", "nNodes", "nRanks", "numPipeOps", "regBuff"))
        for other, first, last in alike.setdefault(condition, []):
            if least <= last and first <= most:
                raise BadInput(file=file, field=f"row {number}, min_bytes", value=least, expected="sizes that no "
                               f"earlier line takes, but row {other} has {first} to {last}",
                               remedy="The plugin takes the first line that fits: part the ranges.")
        alike[condition].append((number, least, most))


def _check(row: Mapping[str, str], where: str, file: str) -> None:
    for column, known in _WORDS.items():
        if row[column] not in known:
            raise BadInput(file=file, field=f"{where}, {column}", value=row[column], expected=f"one of "
                           f"{', '.join(known)}", remedy="Correct the word.")
    for column in COLUMNS:
        if column not in _WORDS and not row[column].removeprefix("-").isdecimal():
            raise BadInput(file=file, field=f"{where}, {column}", value=row[column],
                           expected="a whole number, -1 = any", remedy="Correct the number.")
    if int(row["min_bytes"]) > int(row["max_bytes"]):
        raise BadInput(file=file, field=f"{where}, max_bytes", value=row["max_bytes"],
                       expected=f"min_bytes ({row['min_bytes']}) or more", remedy="Swap them.")


#: Our words -> the plugin's; what a plugin cannot name is left to the library.
_ALGORITHMS = {"ring": "ring", "tree": "tree", "switch": "nvls"}
_COLLECTIVES = {"all_reduce": "allreduce", "all_gather": "allgather", "reduce_scatter": "reducescatter",
                "broadcast": "broadcast"}


def nccl_tuner_csv(operation: str, sizes_bytes: Sequence[float], algorithms: Sequence[str], protocols: Sequence[str], *,
                   nodes: int, ranks: int) -> str:
    """The choice by size, one line for each range that takes one algorithm.

    A range begins at its size and ends before the next; channels and the rest are left to the library.
    """
    rows, start = [], 0
    for row, (algorithm, protocol) in enumerate(zip(algorithms, protocols, strict=True)):
        is_last = row == len(sizes_bytes) - 1
        if not is_last and (algorithms[row + 1], protocols[row + 1]) == (algorithm, protocol):
            continue
        end = 2**63 - 1 if is_last else math.ceil(sizes_bytes[row + 1]) - 1
        if algorithm in _ALGORITHMS and operation in _COLLECTIVES:
            word = "nvls_tree" if algorithm == "switch" and nodes > 1 else _ALGORITHMS[algorithm]
            rows.append({"collective_type": _COLLECTIVES[operation], "min_bytes": start, "max_bytes": end,
                         "algorithm": word, "protocol": protocol, "nNodes": nodes, "nRanks": ranks})
        start = end + 1
    return write_nccl_tuner(rows)
