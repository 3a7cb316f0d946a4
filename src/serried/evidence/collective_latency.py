"""All-reduces across nodes, predicted as they are and with the latency of each system read off one of its rows.

Systems of one fabric differ in latency (adapters, virtual machines, routes) far more than in bandwidth. One small row
gives it: the difference there is added to every prediction of that system. That row is not judged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serried.evidence.collectives import evaluate_rows
from serried.evidence.spec import CaseResults
from serried.fabric.observations import Observations
from serried.fabric.placement import Floats

__all__ = ["LatencyCheck", "latency_check"]

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


def latency_check(rows: Observations) -> list[LatencyCheck]:
    """Every system with all-reduces across nodes, in order of its name; errors are |ln ratio| turned into fractions."""
    results: CaseResults = evaluate_rows(rows)
    across = np.array([reach == "across nodes" and operation == "all_reduce" and skipped is None for
                       reach, operation, skipped in zip(results.groups["reach"], rows.operation, results.skipped,
                                                        strict=True)], dtype=bool)
    found = []
    for system in sorted({name for name, here in zip(rows.system, across, strict=True) if here}):
        here = np.flatnonzero(across & np.array([name == system for name in rows.system], dtype=bool))
        judged = here[rows.payload_bytes[here] > _SMALL_BYTES]
        first = here[np.argmin(rows.payload_bytes[here])]
        if not len(judged):
            continue
        predicted_s, measured_s = np.asarray(results.predicted)[judged], rows.time_s[judged]
        more_s = rows.time_s[first] - np.asarray(results.predicted)[first]
        calibrated = _error(np.maximum(predicted_s + more_s, 1e-9), measured_s) \
            if rows.payload_bytes[first] <= _SMALL_BYTES else float("nan")
        found.append(LatencyCheck(system=system, split=rows.split[int(judged[0])], rows=len(judged),
                                  without_row=_error(predicted_s, measured_s), with_row=calibrated))
    return found


def _error(predicted_s: Floats, measured_s: Floats) -> float:
    return float(np.expm1(np.median(np.abs(np.log(predicted_s / measured_s)))))
