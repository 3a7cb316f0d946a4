"""From cases to figures of accuracy, and the JSON answer.

An error is exp(|ln(predicted / measured)|) - 1, so that too slow and too fast weigh alike. Bias is the median ratio of
predicted to measured *time*, less one (rates are turned over), so that +0.05 means 5 % too slow whatever the unit.
Figures of accuracy are taken over cases that nothing was fitted on; fitted cases are figured apart and say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serried.evidence.harness import Report
from serried.evidence.spec import CaseResults
from serried.workload import Floats

__all__ = ["FITTED", "Accuracy", "accuracy", "answer", "grouped", "is_rate"]

FITTED = "calibrate (fitted)"
_NOT_GROUPS = {"extra_spread"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Figures over one group of cases; NaN where no case was predicted. coverage: share inside the 80 % intervals."""

    n: int
    n_skipped: int
    median_abs_error: float
    p90_abs_error: float
    bias: float
    coverage: float

    def as_json(self) -> dict[str, float | int | None]:
        """The figures by name, null where there is none."""
        return {name: None if isinstance(value := getattr(self, name), float) and np.isnan(value) else value
                for name in ("n", "n_skipped", "median_abs_error", "p90_abs_error", "bias", "coverage")}


def is_rate(unit: str) -> bool:
    """Whether more of the unit is faster: tokens/s, FLOP/s, GB/s, seq/s, or a share of a peak."""
    return "/s" in unit or unit.strip() in ("%", "mfu", "GBps", "Gbps")


def accuracy(results: CaseResults, chosen: NDArray[np.bool_] | None = None) -> Accuracy:
    """Figures over the `chosen` cases (all when None) of one area."""
    chosen = np.ones(len(results.ids), dtype=bool) if chosen is None else chosen
    skipped = np.array([reason is not None for reason in results.skipped], dtype=bool)
    used = chosen & ~skipped
    return _figures(_ln_time_ratio(results)[used], _inside(results)[used], int((chosen & skipped).sum()))


def _figures(ln_ratio: Floats, inside: NDArray[np.bool_], n_skipped: int) -> Accuracy:
    if not len(ln_ratio):
        return Accuracy(n=0, n_skipped=n_skipped, median_abs_error=np.nan, p90_abs_error=np.nan, bias=np.nan,
                        coverage=np.nan)
    error = np.expm1(np.abs(ln_ratio))
    return Accuracy(n=len(ln_ratio), n_skipped=n_skipped, median_abs_error=float(np.median(error)),
                    p90_abs_error=float(np.quantile(error, 0.9)), bias=float(np.expm1(np.median(ln_ratio))),
                    coverage=float(inside.mean()))


def _ln_time_ratio(results: CaseResults) -> Floats:
    sign = np.array([-1.0 if is_rate(unit) else 1.0 for unit in results.units])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = sign * np.log(results.predicted / results.measured)
    return ratio


def _inside(results: CaseResults) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        inside: NDArray[np.bool_] = (results.measured >= results.low) & (results.measured <= results.high)
    return inside


def grouped(parts: Iterable[CaseResults], group: str, *, fitted: bool = False) -> dict[str, Accuracy]:
    """Figures per label of one group over every part that has it; unseen cases, or the fitted ones."""
    ln_ratios: dict[str, list[Floats]] = {}
    insides: dict[str, list[NDArray[np.bool_]]] = {}
    skips: dict[str, int] = {}
    for results in parts:
        labels = np.array(_labels(results, group), dtype=object)
        wanted = np.array([(split == "calibrate") == fitted for split in results.split], dtype=bool)
        skipped = np.array([reason is not None for reason in results.skipped], dtype=bool)
        ln_ratio, inside = _ln_time_ratio(results), _inside(results)
        for label in sorted({str(name) for name in labels[wanted]} - {""}):
            rows = wanted & (labels == label)
            ln_ratios.setdefault(label, []).append(ln_ratio[rows & ~skipped])
            insides.setdefault(label, []).append(inside[rows & ~skipped])
            skips[label] = skips.get(label, 0) + int((rows & skipped).sum())
    return {label: _figures(np.concatenate(ln_ratios[label]), np.concatenate(insides[label]), skips[label])
            for label in sorted(skips)}


def _labels(results: CaseResults, group: str) -> Sequence[str]:
    if group == "area":
        return [results.area] * len(results.ids)
    if group == "split":
        return [FITTED if split == "calibrate" else split for split in results.split]
    if group == "evidence_class":
        return results.evidence_class
    return results.groups.get(group, [""] * len(results.ids))


def answer(report: Report) -> dict[str, Any]:
    """The JSON answer, schema serried/evidence/1."""
    parts = [results for _, results in report.parts if results.area != "memory"]
    memory = [results for _, results in report.parts if results.area == "memory"]
    names = ["area", "split", "evidence_class",
             *dict.fromkeys(name for results in parts for name in results.groups if name not in _NOT_GROUPS)]
    groups: dict[str, Mapping[str, Any]] = {}
    for name in names:
        found = grouped(parts, name) | (grouped(parts, name, fitted=True) if name == "split" else {})
        groups[name] = {label: figures.as_json() for label, figures in found.items()}
    if memory:
        groups["memory"] = {label: figures.as_json() for label, figures in grouped(memory, "source").items()}
    return {"schema": "serried/evidence/1",
            "timing": {"items": report.case_count, "unit": "cases", "wall_s": report.wall_s},
            "cases": [case for results in parts for case in _cases(results)],
            "summary": overall(parts).as_json(), "groups": groups}


def overall(parts: Sequence[CaseResults]) -> Accuracy:
    """Figures over every unseen case; n_skipped counts every skipped row, fitted areas' included."""
    figures = [(_ln_time_ratio(results), _inside(results),
                np.array([split != "calibrate" and reason is None
                          for split, reason in zip(results.split, results.skipped, strict=True)], dtype=bool))
               for results in parts]
    n_skipped = sum(reason is not None for results in parts for reason in results.skipped)
    return _figures(np.concatenate([ratio[rows] for ratio, _, rows in figures] or [np.empty(0)]),
                    np.concatenate([inside[rows] for _, inside, rows in figures] or [np.empty(0, dtype=bool)]),
                    n_skipped)


def _cases(results: CaseResults) -> Iterable[dict[str, Any]]:
    for row, identity in enumerate(results.ids):
        reason = results.skipped[row]
        predicted, measured = float(results.predicted[row]), float(results.measured[row])
        usable = reason is None
        yield {"id": identity, "predicted": predicted if usable else None,
               "measured": measured if np.isfinite(measured) else None, "unit": results.units[row],
               "ratio": predicted / measured if usable else None,
               "low": float(results.low[row]) if usable else None,
               "high": float(results.high[row]) if usable else None,
               "evidence_class": results.evidence_class[row] if usable else None, "skipped": reason}
