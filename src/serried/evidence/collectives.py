"""Collectives: predicted times beside measured ones, from published runs and from sweeps inside a node.

Two forms of columns are read (`serried.fabric.observations`): published runs, whose `set` column is the split, and
sweeps, where a case is `validate` when crc32("operation,chips,message") is odd. The words of a row (system, library,
algorithm, outlier notes) mean what `data/evidence/collective-words.toml` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from serried.errors import BadInput
from serried.evidence.spec import CaseResults, EvidenceClass
from serried.fabric import collective_time_s
from serried.fabric.observations import PUBLISHED, SWEEP, Observations, fabric_of, observe

if TYPE_CHECKING:
    import polars as pl

    from serried.workload import Floats

__all__ = ["COLUMNS", "evaluate", "evaluate_rows"]

COLUMNS = (PUBLISHED, SWEEP)


def evaluate(frame: pl.DataFrame) -> CaseResults:
    """Predict every row of a frame of either form, in seconds; rows that cannot be predicted say why."""
    return evaluate_rows(observe(frame.to_dict(as_series=False)))


def evaluate_rows(rows: Observations) -> CaseResults:
    """As `evaluate`, of rows that are read already."""
    skipped: list[str | None] = list(rows.skipped)
    predicted_s, classes = _predicted(rows, skipped)
    return CaseResults(
        area="collectives", ids=rows.ids, predicted=predicted_s, measured=rows.time_s, units=["s"] * len(rows),
        split=rows.split, evidence_class=classes, skipped=skipped, fold=rows.system,
        groups={"system": rows.system, "operation": rows.operation, "library": [
                    name or "the fabric's own" for name in rows.library], "source": rows.source,
                "ranks": [f"{degree:.0f} ranks" for degree in rows.degree],
                "payload": [_span(payload) for payload in rows.payload_bytes],
                "reach": [_reach(fabric, degree) for fabric, degree in zip(rows.fabric, rows.degree, strict=True)]})


def _predicted(rows: Observations, skipped: list[str | None]) -> tuple[Floats, list[EvidenceClass]]:
    """Times and evidence classes per row; a row that the fabric's library cannot run gains its reason in `skipped`."""
    predicted_s = np.full(len(rows), np.nan)
    classes: list[EvidenceClass] = ["data sheet only"] * len(rows)
    usable = np.array([reason is None for reason in skipped], dtype=bool)
    pairs = list(zip(rows.fabric, rows.library, strict=True))
    for name, library in sorted(set(pairs)):
        index = np.flatnonzero(usable & np.array([pair == (name, library) for pair in pairs], dtype=bool))
        if not len(index):
            continue
        fabric = fabric_of(name, library)
        for operation, adds, ways, block in rows.take(index).blocks():
            at = index[block]
            for row in at:
                inside = _reach(name, rows.degree[row]) == "inside a node"
                classes[row] = cast(EvidenceClass, fabric.profile.evidence_class if inside
                                    else fabric.profile.network_evidence_class)
            try:
                predicted_s[at] = collective_time_s(
                    operation, rows.payload_bytes[at], rows.degree[at], rows.stride[at],  # type: ignore[arg-type]
                    fabric=fabric, switch_adds=adds, ways=ways)
            except BadInput as error:
                for row in at:
                    skipped[row] = str(error)
    return predicted_s, classes


def _span(payload_bytes: float) -> str:
    if payload_bytes < 2**10:
        return "below 1 KiB"
    return "1 KiB to 1 GiB" if payload_bytes <= 2**30 else "above 1 GiB"


def _reach(fabric: str, degree: float) -> str:
    if not fabric:
        return ""
    node = fabric_of(fabric, "").node_size
    return "inside a node" if node == 0 or degree <= node else "across nodes"
