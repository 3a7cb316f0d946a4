"""Was the fleet ever handed out twice? The history of a ledger, checked from the first record to the last.

An independent second set of books: it knows nothing of `State`, only which attempts were called for, on which chips,
when they were seen to run and when they were closed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from serried.control.charter import charter_from
from serried.control.records import CHARTER, CLOSED, EVENT, FAILED, RUNNING, Record
from serried.errors import NoAnswer
from serried.fleet.spec import WHOLE_MILLI

__all__ = ["Broken", "check_history"]

_PLACING = ("PLACE", "REPLACE", "MOVE")


class Broken(NoAnswer):
    """A ledger tells of something that must never be."""


def check_history(records: Iterable[Record]) -> int:
    """Go through a ledger; returns how many attempts ran. Raises Broken, with the record's number, when

    - a chip has more than its whole handed out to attempts that run or may still run, or
    - an attempt runs that was not called for or is over, or two of one job run at once, or
    - a submission's key comes twice, or time or numbers go back.
    """
    shares: dict[int, int] = {}
    rows: dict[int, list[tuple[str, int]]] = {}    # job -> the chips of its last placement
    holds: dict[int, tuple[int, list[tuple[str, int]]]] = {}   # epoch -> job, chips; until it is closed
    runs: set[int] = set()
    used: dict[tuple[str, int], int] = defaultdict(int)
    keys: set[str] = set()
    seq, time_ns, jobs, ran = -1, 0, 0, 0
    names: tuple[str, ...] = ()
    for record in records:
        fields = record.fields()
        if record.kind == CHARTER:
            names = charter_from(fields).fleet().node_names
        _check(record, record.seq == seq + 1 and record.time_ns >= time_ns, "numbers and times go on")
        seq, time_ns = record.seq, record.time_ns
        if record.key:
            _check(record, record.key not in keys, "a key comes once")
            keys.add(record.key)
        if record.kind == EVENT and fields["kind"] == "SUBMIT":
            shares[jobs] = fields["shape"]["share_milli"]
            jobs += 1
        elif record.kind == EVENT and fields["kind"] in _PLACING:
            rows[fields["job"]] = _chips(fields["placement"], names)
            holds[seq] = fields["job"], rows[fields["job"]]
        elif record.kind == FAILED:
            _check(record, fields["epoch"] in holds, "what fails was called for")
            holds[seq] = fields["job"], rows[fields["job"]]
        elif record.kind == RUNNING:
            epoch = fields["epoch"]
            _check(record, epoch in holds and epoch not in runs, "what runs was called for, and once")
            _check(record, all(holds[other][0] != fields["job"] for other in runs), "one attempt of a job runs")
            runs.add(epoch)
            ran += 1
            for chip in holds[epoch][1]:
                used[chip] += shares[fields["job"]]
                _check(record, used[chip] <= WHOLE_MILLI, f"chip {chip} is held once")
        elif record.kind == CLOSED:
            job, chips = holds.pop(fields["epoch"])
            if fields["epoch"] in runs:
                runs.discard(fields["epoch"])
                for chip in chips:
                    used[chip] -= shares[job]
    return ran


def _chips(placement: dict[str, Any], names: Sequence[str]) -> list[tuple[str, int]]:
    """By the name of the node: its number changes when others join."""
    return [(names[node], chip) for node, chips in zip(placement["node_R"], placement["chips_R"], strict=True)
            for chip in range(chips.bit_length()) if chips >> chip & 1]


def _check(record: Record, holds: bool, law: str) -> None:
    if not holds:
        raise Broken(f"record {record.seq} ({record.kind} {record.body[:120]}) breaks a law: {law}")
