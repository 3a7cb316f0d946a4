"""Reliability: published interruptions and effective time beside what rates of *other* fleets and the simulator say.

Rates per node-day of published fleets are taken as a log-normal population; each fleet is predicted from the others'
geometric mean (leave one out), so that no row is predicted from itself. The large run is simulated: one gang, spares,
restarts, the optimal checkpoint interval. What stands beside the rows is in `data/evidence/reliability.toml`.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from serried.catalogue.entry import DATA, read_toml
from serried.clock import DAY_NS, FOREVER_NS, nanoseconds
from serried.evidence.spec import CaseResults, EvidenceClass
from serried.fleet import Alternative, Shape
from serried.fleet.assembly import fleet_of
from serried.fleet.rules import Rules
from serried.simulation import Checkpoint, Fault, JobClass, Scenario, simulate
from serried.simulation.checkpoint import effective_time_ratio

if TYPE_CHECKING:
    import polars as pl

__all__ = ["COLUMNS", "evaluate"]

COLUMNS = ("source", "system_scale", "metric", "value", "unit", "citation")
_ASSUMED: Mapping[str, Any] = read_toml(DATA / "evidence" / "reliability.toml")
_CLASS: EvidenceClass = "same family"   # other fleets of such nodes
_REACH = 1.2816 * math.sqrt(1.5)   # four of five draws, around a mean of two
_TABLE = "a share of causes of that very run: no other source here gives rates by cause, and its own would be fitted"
_SKIPPED = {
    "total_interruptions": "47 of them were planned by its operators, which no rate predicts; see the unexpected ones",
    "expected_ETTR_formula": "a formula; it is the one that other rows are predicted by",
    "utilization": "follows from its mix of jobs, which is not published",
    "health_check_interval": "an input of the simulator, not an outcome",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What a simulated run of the large gang gave: mean over seeds."""

    interruptions: float
    effective_ratio: float


def evaluate(frame: pl.DataFrame) -> CaseResults:
    """Predict every row that other rows, or the simulator, speak of; the others say why they are skipped."""
    rows = frame.to_dicts()
    rates = _rates_per_node_day(rows)
    spread = float(np.std(np.log(list(rates.values())), ddof=1)) if len(rates) > 2 else math.log(2)
    predicted, low, high, measured, skipped = [], [], [], [], []
    for row in rows:
        ask = _QUESTIONS.get(row["metric"] or "")
        value = _number(row["value"])
        reason = None if value is not None else "no figure"
        if ask is None:
            reason = _SKIPPED.get(row["metric"] or "", _TABLE)
        if ask is not None and reason is None and len(rates) < 2:
            reason = "needs rates of at least two other fleets in the same file"
        figures = math.nan, math.nan, math.nan
        if ask is not None and reason is None:
            figures = _with_bounds(ask(row, rates), math.exp(_REACH * spread), str(row["unit"]))
        predicted.append(figures[0])
        low.append(figures[1])
        high.append(figures[2])
        measured.append(math.nan if value is None else value)
        skipped.append(reason)
    return CaseResults(
        area="fleet", ids=[f"{row['source']}/{row['system_scale']}/{row['metric']}" for row in rows],
        predicted=np.array(predicted), measured=np.array(measured), low=np.array(low), high=np.array(high),
        units=[str(row["unit"]) for row in rows], split=["validate"] * len(rows),
        evidence_class=[_CLASS] * len(rows), skipped=skipped, fold=[_fleet(row) for row in rows],
        groups={"source": [str(row["citation"]) for row in rows], "kind": ["reliability"] * len(rows)})


def _with_bounds(figure: float, factor: float, unit: str) -> tuple[float, float, float]:
    """A prediction and its bounds where the rate may be off by a factor; of shares, what is lost goes with the rate."""
    whole = {"percent": 100.0, "ratio": 1.0}.get(unit)
    if whole is None:
        return figure, figure / factor, figure * factor
    return figure, max(whole - (whole - figure) * factor, 0.0), whole - (whole - figure) / factor


def _number(text: str | None) -> float | None:
    """A cell as a number; of a bound (">90") or a rough figure ("~2") the figure."""
    found = re.fullmatch(r"\s*[>~]?\s*(\d+(?:\.\d+)?)\s*", text or "")
    return float(found[1]) if found else None


def _fleet(row: Mapping[str, Any]) -> str:
    """Which fleet a row speaks of, among those that a rate is known of."""
    metric = str(row["metric"])
    return metric if metric.startswith("node_failure_rate") else str(row["source"])


def _rates_per_node_day(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Failures per node-day of every fleet that the file tells: given, or interruptions over node-days."""
    found = {}
    for row in rows:
        value = _number(row["value"])
        if value and str(row["metric"]).startswith("node_failure_rate"):
            found[_fleet(row)] = value / 1000.0
        elif value and row["metric"] == "unexpected_interruptions":
            chips, days = _scale(row)
            found[_fleet(row)] = value / (chips / _ASSUMED["nodes_chips"] * days)
    return found


def _scale(row: Mapping[str, Any]) -> tuple[float, float]:
    """Chips and days of a row such as "16384 H100 / 54 days"; 54 days where none are named."""
    numbers = [float(one) for one in re.findall(r"(?<![A-Za-z\d])\d+\b", str(row["system_scale"]))]
    return numbers[0], numbers[1] if len(numbers) > 1 else 54.0


def _others(rates: Mapping[str, float], fleet: str) -> float:
    """Geometric mean of the rates of all other fleets."""
    return math.exp(float(np.mean([math.log(rate) for name, rate in rates.items() if name != fleet])))


_Ask = Callable[[Mapping[str, Any], Mapping[str, float]], float]


def _rate(row: Mapping[str, Any], rates: Mapping[str, float]) -> float:
    return 1000.0 * _others(rates, _fleet(row))


def _interruptions(row: Mapping[str, Any], rates: Mapping[str, float]) -> float:
    chips, days = _scale(row)
    return _run(int(chips), days, _others(rates, str(row["source"]))).interruptions


def _effective(row: Mapping[str, Any], rates: Mapping[str, float]) -> float:
    chips, days = _scale(row)
    return 100.0 * _run(int(chips), days, _others(rates, str(row["source"]))).effective_ratio


def _mttf(row: Mapping[str, Any], rates: Mapping[str, float]) -> float:
    """One over nodes times the larger cluster's own rate of node failures; in the row's unit."""
    nodes = max(_scale(row)[0] / float(_ASSUMED["nodes_chips"]), 1.0)
    days = 1.0 / (nodes * rates["node_failure_rate_RSC1"])
    return days if row["unit"] == "days" else days * 24.0


def _ettr(row: Mapping[str, Any], rates: Mapping[str, float]) -> float:
    """Runs of 2,048 to 4,096 chips on the larger cluster, saving once an hour."""
    low, high = _scale(row)
    nodes = math.sqrt(low * high) / _ASSUMED["nodes_chips"]
    return float(effective_time_ratio(nodes, rates["node_failure_rate_RSC1"] / 86400.0, interval_s=3600.0,
                                      restart_s=_ASSUMED["restart"]["value_s"],
                                      write_s=_ASSUMED["write_other"]["value_s"]))


def _minutes_for(row: Mapping[str, Any], rates: Mapping[str, float]) -> float:
    """The interval, and restart as long, that leave 0.9 of the time: 1 - N r 1.5 x = 0.9, writing left out."""
    nodes = _scale(row)[0] / float(_ASSUMED["nodes_chips"])
    return 0.1 / (1.5 * nodes * rates["node_failure_rate_RSC2"]) * 1440.0


_QUESTIONS: Mapping[str, _Ask] = {
    "unexpected_interruptions": _interruptions, "effective_training_time": _effective,
    "node_failure_rate_RSC1": _rate, "node_failure_rate_RSC2": _rate, "MTTF": _mttf, "MTTF_projected": _mttf,
    "ETTR": _ettr, "checkpoint_and_restart_for_ETTR_0.9": _minutes_for}


@functools.lru_cache(maxsize=64)
def _run(chips: int, days: float, rate_per_node_day: float) -> _Run:
    """Simulate one gang that has the fleet to itself, with spares enough."""
    width = int(_ASSUMED["nodes_chips"])
    nodes = chips // width
    fleet = fleet_of(kinds=["chip"], kind_N=np.zeros(nodes + int(_ASSUMED["spare_nodes"]), dtype=np.int64),
                     chip_count_N=np.full(nodes + int(_ASSUMED["spare_nodes"]), width))
    shape = Shape(alternatives=(Alternative(kinds=(0,), worker_count=nodes, chips_per_worker=width),))
    job = JobClass(name="run", arrivals_per_s=0.0, backlog=1, shapes_Z=(shape,), weights_Z=(1.0,), median_ns=FOREVER_NS
                   // 2, spread=0.0, longest_ns=FOREVER_NS // 2, tenants=((0, 1.0),), preemptible=False,
                   checkpoint=Checkpoint(write_ns=nanoseconds(_ASSUMED["write_large_run"]["value_s"]),
                                         restart_ns=nanoseconds(_ASSUMED["restart"]["value_s"])))
    fault = Fault(name="node", component="node", rate_per_s=rate_per_node_day / 86400.0, repair_median_ns=DAY_NS)
    scenario = Scenario(name="run", fleet=fleet, chips_K=(None,), rules=Rules(patience_ns=DAY_NS), faults=(fault,),
                        classes=(job,))
    found = [simulate(scenario, days=days, seed=seed).classes[0] for seed in _ASSUMED["seeds"]]
    return _Run(interruptions=float(np.mean([one.interruptions for one in found])),
                effective_ratio=float(np.mean([one.effective_time_ratio for one in found])))
