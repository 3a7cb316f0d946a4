"""What the evidence looks like in a terminal: figures by area and file, by class, the worst cases, what was skipped."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
from rich.console import Console

from serried.display.terminal import table
from serried.evidence.cases import Accuracy, accuracy, grouped
from serried.evidence.harness import Report

__all__ = ["print_evidence"]

_HEADER = ("", "cases", "skipped", "median |error|", "p90 |error|", "bias", "coverage")
_BREAKDOWNS = ("chip", "source", "format", "stack", "evidence_class")
_ROWS = 14


def print_evidence(report: Report, screen: Console) -> None:
    """Accuracy on cases that nothing was fitted on; fitted cases are counted but never mixed in."""
    rows = []
    for file, results in report.parts:
        fitted = np.array([split == "calibrate" for split in results.split], dtype=bool)
        rows.append(_row(f"{results.area}: {Path(file).name}", accuracy(results, ~fitted)))
        if fitted.any():
            rows.append(_row("    fitted on these, no evidence", accuracy(results, fitted)))
    screen.print(table("Predicted beside measured (80 % intervals should cover 70 to 90 %)", _HEADER, rows))
    for group in _BREAKDOWNS:
        found = grouped([results for _, results in report.parts], group)
        if len(found) > 1:
            worst = sorted(found.items(), key=lambda item: -item[1].n)[:_ROWS]
            more = f" ({len(found) - _ROWS} more in --json)" if len(found) > _ROWS else ""
            screen.print()
            screen.print(table(f"By {group.replace('_', ' ')}{more}", _HEADER,
                               [_row(label[:58], figures) for label, figures in worst]))
    reasons = Counter(reason for _, results in report.parts for reason in results.skipped if reason)
    if reasons:
        screen.print()
        screen.print(table("Skipped, and why", ("reason", "cases"),
                           [(reason, f"{count:,}") for reason, count in reasons.most_common(_ROWS)]))
    screen.print(f"\n{report.case_count:,} cases in {report.wall_s:.1f} s", highlight=False)


def _row(label: str, figures: Accuracy) -> tuple[str, ...]:
    return (label, f"{figures.n:,}", f"{figures.n_skipped:,}", _percent(figures.median_abs_error),
            _percent(figures.p90_abs_error), _percent(figures.bias, sign=True), _percent(figures.coverage))


def _percent(share: float, *, sign: bool = False) -> str:
    if not math.isfinite(share):
        return "–"
    return f"{100 * share:+.1f} %" if sign else f"{100 * share:.1f} %"
