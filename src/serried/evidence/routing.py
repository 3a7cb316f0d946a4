"""What hashing costs: how much longer a collective takes under ECMP than on planned or sprayed paths.

Predicted by routing every flow on the system's wires (`serried.topology.simulation`), many draws of the hash; measured
as the ratio of two published times on one fabric. Only rows that tell the collective, its size and the switches are
predicted; gains of whole training runs are listed and skipped. Queue pairs are assumed where a source does not tell
them, for the whole source, and its notes say so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from serried.errors import SerriedError
from serried.evidence.spec import CaseResults, EvidenceClass
from serried.topology import build_topology, wire
from serried.topology.simulation import Way, simulate
from serried.topology.wires import ROUTINGS

if TYPE_CHECKING:
    import polars as pl

__all__ = ["COLUMNS", "evaluate"]

COLUMNS = ("system", "collective", "algorithm", "n_ranks", "ranks_per_node", "message_bytes", "routing",
           "baseline_routing", "time_ratio", "kind", "leaf_chips", "port_gbit_per_s", "queue_pairs")
#: No hash of a real switch is known: fabrics are data sheets here.
_CLASS: EvidenceClass = "data sheet only"
_DRAWS = 32


def evaluate(frame: pl.DataFrame) -> CaseResults:
    """Time under the row's routing over that under its baseline, with the draws between which four of five lie."""
    rows = frame.to_dicts()
    skipped: list[str | None] = []
    figures = np.full((len(rows), 3), np.nan)
    for number, row in enumerate(rows):
        skipped.append(_blank(row))
        if skipped[-1] is None:
            try:
                figures[number] = _ratios(row)
            except (SerriedError, ValueError, StopIteration) as error:
                skipped[-1] = str(error) or "no such algorithm on these wires"
    return CaseResults(
        area="network", ids=[str(row.get("id") or number) for number, row in enumerate(rows, 1)],
        predicted=figures[:, 0], low=figures[:, 1], high=figures[:, 2],
        measured=np.array([_number(row["time_ratio"]) for row in rows]), units=["1"] * len(rows),
        split=[str(row.get("set") or "validate") for row in rows], evidence_class=[_CLASS] * len(rows),
        skipped=skipped, fold=[str(row["system"]) for row in rows],
        groups={"system": [str(row["system"]) for row in rows],
                "source": [str(row.get("source") or "") for row in rows]})


def _blank(row: Mapping[str, Any]) -> str | None:
    """Why a row cannot be predicted, from what it leaves out."""
    if not row["collective"]:
        return "a gain of training as a whole: no collective, size or placement is told"
    missing = [name for name in ("algorithm", "n_ranks", "message_bytes", "kind", "leaf_chips", "port_gbit_per_s",
                                 "queue_pairs") if not row[name]]
    if missing:
        return f"{', '.join(missing)} not told"
    unknown = [str(row[name]) for name in ("routing", "baseline_routing") if row[name] not in ROUTINGS]
    return f"{unknown[0]}: one of {', '.join(ROUTINGS)} is known" if unknown else None


def _ratios(row: Mapping[str, Any]) -> tuple[float, float, float]:
    """(mean, low, high) over draws of the time under one routing over that under the other."""
    wired = wire(build_topology(str(row["system"]), str(row["kind"]), {
        "chips": int(row["n_ranks"]), "node": int(row["ranks_per_node"]), "leaf": int(row["leaf_chips"]),
        "bandwidth": f"{row['port_gbit_per_s']} Gb/s"}))
    payload = np.array([_number(row["message_bytes"])])

    def way(routing: str) -> Way:
        found = simulate(str(row["collective"]), payload, wired, routing=routing, draws=_DRAWS,
                         queue_pairs=int(row["queue_pairs"]))
        return next(each for each in found.ways if (each.algorithm, each.protocol) == (row["algorithm"], "simple"))

    hashed, planned = way(str(row["routing"])), way(str(row["baseline_routing"]))
    base_s = float(planned.time_s[0])
    return float(hashed.time_s[0]) / base_s, float(hashed.low_s[0]) / base_s, float(hashed.high_s[0]) / base_s


def _number(text: object) -> float:
    try:
        return float(str(text))
    except ValueError:
        return math.nan
