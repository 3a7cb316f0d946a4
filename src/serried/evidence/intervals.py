"""80 % intervals, from residuals on measured cases.

The half-width of an interval is the 80th percentile of |ln(measured / predicted)| over the calibrate cases of the same
area, evidence class and kind (operator kind for kernels, stack for training), folds weighing alike, so that a fold with
thousands of rows does not speak for the others. Training residuals are those of stacks fitted without the case's own
fold (see `calibration.stack`). A chip whose figures are estimated and a stack that is not known widen it in quadrature.
Shipped in `data/evidence/spreads.toml`, rebuilt by `python -m serried.calibration.spreads`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serried.catalogue.entry import DATA, read_toml
from serried.evidence.spec import EVIDENCE_CLASSES, CaseResults
from serried.workload import Floats

__all__ = ["SPREADS_FILE", "Spread", "half_width", "interval", "measured_spreads", "read_spreads", "spread_text",
           "with_intervals"]

SPREADS_FILE = DATA / "evidence" / "spreads.toml"

#: Half-widths in ln when nothing was measured of an area and class: a data-sheet roofline misses by a third to a half.
_UNMEASURED = {"kernel-calibrated chip": 0.20, "same family": 0.35, "data sheet only": 0.50}
#: A class that is less sure is never narrower than the next surer one by less than this factor.
_WIDER_BY = 1.4
#: Below this many cases a kind does not get a spread of its own.
_FEWEST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Half-width in ln of an 80 % interval. kind "" = every kind of the area and class. case_count: cases behind it."""

    area: str
    evidence_class: str
    kind: str
    half_width: float
    case_count: int
    fold_count: int


@functools.cache
def read_spreads(path: Path = SPREADS_FILE) -> Mapping[tuple[str, str, str], Spread]:
    """Shipped spreads by (area, evidence class, kind); empty when none were rebuilt yet."""
    if not path.exists():
        return {}
    rows = [Spread(**table) for table in read_toml(path).get("spread", [])]
    return {(row.area, row.evidence_class, row.kind): row for row in rows}


def half_width(area: str, evidence_class: str, kind: str = "", *, extra: Sequence[float] = (),
               spreads: Mapping[tuple[str, str, str], Spread] | None = None) -> float:
    """Half-width in ln: the kind's, else the class's, else the next surer class's widened; `extra` in quadrature.

    A class that is less sure is never narrower than a surer one of the same kind.
    """
    known = read_spreads() if spreads is None else spreads
    rank = EVIDENCE_CLASSES.index(evidence_class) if evidence_class in EVIDENCE_CLASSES else 0
    found = next((max(known[area, name, wanted].half_width for name in EVIDENCE_CLASSES[:rank + 1]
                      if (area, name, wanted) in known)
                  for wanted in dict.fromkeys((kind, "")) if (area, evidence_class, wanted) in known), None)
    if found is None:
        found = _from_surer_class(area, evidence_class, known)
    return math.sqrt(found**2 + sum(math.log1p(spread)**2 for spread in extra))


def _from_surer_class(area: str, evidence_class: str, known: Mapping[tuple[str, str, str], Spread]) -> float:
    rank = EVIDENCE_CLASSES.index(evidence_class) if evidence_class in EVIDENCE_CLASSES else len(EVIDENCE_CLASSES) - 1
    widening = 1.0
    for surer in reversed(EVIDENCE_CLASSES[:rank]):
        widening *= _WIDER_BY
        if (area, surer, "") in known:
            return max(known[area, surer, ""].half_width * widening, _UNMEASURED[EVIDENCE_CLASSES[rank]] / 2)
    return _UNMEASURED[EVIDENCE_CLASSES[rank]]


def interval(area: str, evidence_class: str, kind: str = "", *, extra: Sequence[float] = ()) -> tuple[float, float]:
    """(low, high) factors on a predicted time such that four measured times in five lie between.

    extra: further relative half-widths, of a chip's estimated figures and of an unknown stack.
    """
    width = half_width(area, evidence_class, kind, extra=extra)
    return math.exp(-width), math.exp(width)


def kinds_of(results: CaseResults) -> Sequence[str]:
    """What residuals are told apart by: the reader's own `kind`, with the operator, operation or format it names."""
    named = [results.groups[name] for name in ("operator", "operation", "kernel", "kind", "format")
             if name in results.groups and not (name == "format" and results.area in ("training", "serving"))]
    return ["/".join(word for word in words if word) for words in zip(*named, strict=True)] if named \
        else [""] * len(results.ids)


def with_intervals(results: CaseResults) -> CaseResults:
    """The same cases with `low` and `high` in their own units, around every prediction; a reader's own are kept."""
    if len(results.low):
        return results
    kinds = kinds_of(results)
    extras = results.groups.get("extra_spread", [""] * len(results.ids))
    widths = np.array([half_width(results.area, evidence_class, kind, extra=[float(extra)] if extra else ())
                       for evidence_class, kind, extra in zip(results.evidence_class, kinds, extras, strict=True)])
    return replace(results, low=results.predicted * np.exp(-widths), high=results.predicted * np.exp(widths))


def measured_spreads(results: CaseResults, residuals: Floats | None = None) -> list[Spread]:
    """Spreads of one area from its calibrate cases; `residuals` in ln over C replaces those of the cases themselves."""
    used = np.array([split == "calibrate" and reason is None
                     for split, reason in zip(results.split, results.skipped, strict=True)])
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log(results.measured / results.predicted) if residuals is None else residuals
    used &= np.isfinite(found)
    kinds = np.array(kinds_of(results), dtype=object)
    classes, folds = np.array(results.evidence_class, dtype=object), np.array(results.fold or results.ids, dtype=object)
    spreads = []
    for evidence_class in EVIDENCE_CLASSES:
        rows = used & (classes == evidence_class)
        for kind in ["", *sorted({str(name) for name in kinds[rows]} - {""})]:
            chosen = rows & (kinds == kind) if kind else rows
            if chosen.sum() >= _FEWEST:
                fold_count = len(set(folds[chosen]))
                alike = kinds[chosen] if not kind else np.full(chosen.sum(), kind, dtype=object)
                width = _fold_quantile(np.abs(found[chosen]), folds[chosen], alike) * (1 + 1 / fold_count)
                spreads.append(Spread(area=results.area, evidence_class=evidence_class, kind=kind,
                                      half_width=round(float(width), 4), case_count=int(chosen.sum()),
                                      fold_count=fold_count))
    return spreads


def _fold_quantile(errors: Floats, folds: NDArray[np.object_], kinds: NDArray[np.object_], level: float = 0.8) -> float:
    """The `level` quantile of errors in which every fold weighs alike up to the root of its row count, and every kind
    alike: a kind without a spread of its own is like one more draw from the kinds."""
    _, position, count = np.unique(folds.astype(str), return_inverse=True, return_counts=True)
    weight = 1 / np.sqrt(count[position])
    _, kind = np.unique(kinds.astype(str), return_inverse=True)
    weight = weight / np.bincount(kind, weights=weight)[kind]
    order = np.argsort(errors)
    cumulated = np.cumsum(weight[order]) / weight.sum()
    return float(errors[order][np.searchsorted(cumulated, level)])


def spread_text(spreads: Sequence[Spread]) -> str:
    """The spreads file as TOML text."""
    lines = ['schema = "serried/spreads/1"', "",
             "# Rebuilt by `python -m serried.calibration.spreads` from the shipped measurements; widths in ln.", ""]
    for spread in spreads:
        lines += ["[[spread]]", f'area = "{spread.area}"', f'evidence_class = "{spread.evidence_class}"',
                  f'kind = "{spread.kind}"', f"half_width = {spread.half_width}", f"case_count = {spread.case_count}",
                  f"fold_count = {spread.fold_count}", ""]
    return "\n".join(lines)
