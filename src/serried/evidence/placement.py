"""Placement rules: the allocation that a replay of the openb pod lists reaches, beside the published one.

A case is one pod list, one rule and one load: the share of all GPUs that is handed out once so many percent of them
were asked for. Published means are over ten seeds; here one seed is replayed (`benchmarks.fleet_placement` replays all
ten), and the published deviation over seeds says how far one seed may lie from their mean. Nothing is fitted.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from serried.errors import BadInput
from serried.evidence.spec import CaseResults
from serried.fleet.arrival_replay import replay_arrivals
from serried.fleet.openb import OPENB, PUBLISHED_NAMES, arrivals, read_nodes, read_pods

if TYPE_CHECKING:
    import polars as pl

    from serried.workload import Floats

__all__ = ["COLUMNS", "evaluate"]

COLUMNS = ("workload", "sc_policy", "130_mean", "130_std")
_LOADS_PERCENT = (80, 90, 100, 110, 120, 130)
_SEED = 1
#: Four of five draws lie within so many deviations of their mean, that mean itself being one of ten draws.
_REACH = 1.2816 * (1 + 1 / 10) ** 0.5
_CLASS = "replayed trace"   # no chip is in it: rules act on the very pods and nodes that were published


def evaluate(frame: pl.DataFrame) -> CaseResults:
    """Replay every (pod list, rule) row of a frame and read the allocation at every load that it quotes."""
    rules = {published: rule for rule, published in PUBLISHED_NAMES.items()}
    ids, predicted, measured, deviation, skipped, lists, named = [], [], [], [], [], [], []
    for row in frame.iter_rows(named=True):
        rule = rules.get(row["sc_policy"] or "")
        for load in _LOADS_PERCENT:
            value, reason = _number(row.get(f"{load}_mean")), None
            if rule is None or value is None:
                reason = f"{row['sc_policy']!r} is no rule that is known here" if rule is None else "no published mean"
            ratio_L = None if reason else _replayed(str(row["workload"]), str(rule))
            if ratio_L is None and reason is None:
                reason = f"the pod list {row['workload']!r} does not ship with serried"
            ids.append(f"{row['workload']}/{row['sc_policy']}/{load}")
            predicted.append(np.nan if ratio_L is None else ratio_L[load] * 100)
            measured.append(np.nan if value is None else value)
            deviation.append(_number(row.get(f"{load}_std")) or np.nan)
            skipped.append(reason)
            lists.append(str(row["workload"] or ""))
            named.append(rule or "")
    reach = _REACH * np.array(deviation)
    return CaseResults(
        area="fleet", ids=ids, predicted=np.array(predicted), measured=np.array(measured), units=["%"] * len(ids),
        low=np.array(predicted) - reach, high=np.array(predicted) + reach, split=["validate"] * len(ids),
        evidence_class=[_CLASS] * len(ids), skipped=skipped, fold=lists,
        groups={"source": ["openb, Weng et al. 2023"] * len(ids), "kind": named, "set": lists})


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 < value <= 100 else None


@functools.lru_cache(maxsize=64)
def _replayed(pods: str, rule: str) -> Floats | None:
    """Allocation at every percent of load; None for a pod list that is not shipped."""
    path = OPENB / f"{pods}.csv.gz"
    try:
        fleet = read_nodes(OPENB / "openb_node_list_gpu_node.csv.gz", seed=_SEED)
        known = read_pods(path, fleet)
    except BadInput:
        return None
    arriving = arrivals(known, fleet, load=_LOADS_PERCENT[-1] / 100, seed=_SEED)
    return replay_arrivals(fleet, known, arriving, rule, seed=_SEED).allocation_ratio_L
