"""All-reduces across nodes, predicted as they are and with the latency of each system read off one of its rows.

Systems of one fabric differ in latency (adapters, virtual machines, routes) far more than in bandwidth. One small row
gives it: the difference there is added to every prediction of that system. That row is not judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from serried.evidence.collectives import evaluate_rows
from serried.evidence.spec import CaseResults
from serried.fabric.observations import PUBLISHED, Observations, observe
from serried.fabric.placement import Floats

if TYPE_CHECKING:
    import polars as pl

__all__ = ["COLUMNS", "LatencyCheck", "evaluate", "latency_check"]

COLUMNS = PUBLISHED

#: Above this a row says nothing of latency alone, and is judged; up to it one row may calibrate.
_SMALL_BYTES = 2.0**20


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyCheck:
    """Median of |predicted / measured| as an error, above 1 MiB, of one system; with_row is NaN without a small row."""

    system: str
    split: str
    rows: int
    without_row: float
    with_row: float


def evaluate(frame: pl.DataFrame) -> CaseResults:
    """Every all-reduce across nodes twice: as the fabric's profile predicts it, and with its system's latency row."""
    rows = observe(frame.to_dict(as_series=False))
    results = evaluate_rows(rows)
    across = np.flatnonzero(_across(results, rows))
    predicted_s = np.asarray(results.predicted)
    calibrated_s, reason = predicted_s.copy(), dict.fromkeys(across.tolist(), "no row of its system is small enough to "
                                                             "say its latency")
    for system in sorted({rows.system[row] for row in across.tolist()}):
        here = across[[rows.system[row] == system for row in across.tolist()]]
        first = _latency_row(rows, here)
        if first >= 0:
            calibrated_s[here] = np.maximum(predicted_s[here] + rows.time_s[first] - predicted_s[first], 1e-9)
            reason.update(dict.fromkeys(here.tolist(), ""))
            reason[first] = "its latency calibrates the other rows of its system"
    both = np.concatenate([across, across])
    skipped = [None] * len(across) + [reason[row] or None for row in across.tolist()]
    with_row = np.where([each is None for each in skipped[len(across):]], calibrated_s[across], np.nan)
    words = ["as the profile says"] * len(across) + ["with one latency row"] * len(across)
    return CaseResults(
        area="network", ids=[f"{rows.ids[row]}, {word}" for row, word in zip(both, words, strict=True)],
        predicted=np.concatenate([predicted_s[across], with_row]), measured=rows.time_s[both],
        units=["s"] * len(both), split=[rows.split[row] for row in both],
        evidence_class=[results.evidence_class[row] for row in both], skipped=skipped,
        fold=[rows.system[row] for row in both],
        groups={"source": words, "system": [rows.system[row] for row in both],
                "payload": ["above 1 MiB" if rows.payload_bytes[row] > _SMALL_BYTES else "up to 1 MiB"
                            for row in both]})


def _across(results: CaseResults, rows: Observations) -> NDArray[np.bool_]:
    return np.array([reach == "across nodes" and operation == "all_reduce" and skipped is None for
                     reach, operation, skipped in zip(results.groups["reach"], rows.operation, results.skipped,
                                                      strict=True)], dtype=bool)


def _latency_row(rows: Observations, here: NDArray[np.intp]) -> int:
    """The smallest row of a system, where it is small enough to say its latency; else -1."""
    first = int(here[np.argmin(rows.payload_bytes[here])])
    return first if rows.payload_bytes[first] <= _SMALL_BYTES else -1


def latency_check(rows: Observations) -> list[LatencyCheck]:
    """Every system with all-reduces across nodes, in order of its name; errors are |ln ratio| turned into fractions."""
    results: CaseResults = evaluate_rows(rows)
    across = _across(results, rows)
    found = []
    for system in sorted({name for name, here in zip(rows.system, across, strict=True) if here}):
        here = np.flatnonzero(across & np.array([name == system for name in rows.system], dtype=bool))
        judged = here[rows.payload_bytes[here] > _SMALL_BYTES]
        first = _latency_row(rows, here)
        if not len(judged):
            continue
        predicted_s, measured_s = np.asarray(results.predicted)[judged], rows.time_s[judged]
        more_s = rows.time_s[first] - np.asarray(results.predicted)[first]
        calibrated = _error(np.maximum(predicted_s + more_s, 1e-9), measured_s) if first >= 0 else float("nan")
        found.append(LatencyCheck(system=system, split=rows.split[int(judged[0])], rows=len(judged),
                                  without_row=_error(predicted_s, measured_s), with_row=calibrated))
    return found


def _error(predicted_s: Floats, measured_s: Floats) -> float:
    return float(np.expm1(np.median(np.abs(np.log(predicted_s / measured_s)))))
