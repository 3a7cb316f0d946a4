"""What a calibration looks like: errors before and after, the parameters that moved, the worst cases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console

from serried.calibration.own import Moved, OwnFit
from serried.display.terminal import table
from serried.workload import Floats

__all__ = ["print_calibration"]

_WORST = 5
_MOST_PARAMETERS = 16
_SKIPPED = 3


def print_calibration(fits: Sequence[OwnFit], screen: Console) -> None:
    """One block per fit: errors first, then what moved, then the rows that the fit explains worst."""
    for fit in fits:
        screen.print()
        screen.print(f"[bold]{fit.subject}[/bold], starting from {fit.start}")
        screen.print(table("", ("error, |ln(predicted / measured)|", "rows", "median", "p90"), _errors(fit)))
        if len(fit.residual_ln) < 30:
            screen.print("few rows: what they cannot tell stays near where it started", markup=False)
        if fit.moved:
            screen.print(_moved_table(fit.moved))
        screen.print(table(f"Worst of {len(fit.labels)}", ("case", "measured", "predicted", "off by"), _worst(fit)))
        for reason in fit.skipped[:_SKIPPED]:
            screen.print(f"left out: {reason}", markup=False)
        if len(fit.skipped) > _SKIPPED:
            screen.print(f"left out: {len(fit.skipped) - _SKIPPED} more (all in --json)", markup=False)


def _errors(fit: OwnFit) -> list[tuple[str, ...]]:
    rows = [_error_row("before the fit", np.asarray(np.log(fit.before_s / fit.measured_s))),
            _error_row("after, on the rows fitted", fit.residual_ln)]
    if len(fit.unseen_ln):
        rows.append(_error_row("on rows held out of a fit", fit.unseen_ln))
    return rows


def _error_row(label: str, residual_ln: Floats) -> tuple[str, ...]:
    error = np.expm1(np.abs(residual_ln[np.isfinite(residual_ln)]))
    if not len(error):
        return label, "0", "–", "–"
    return label, f"{len(error):,}", f"{np.median(error):.1%}", f"{np.quantile(error, 0.9):.1%}"


def _moved_table(moved: Sequence[Moved]) -> object:
    by_change = sorted(moved, key=lambda one: -abs(np.log(max(one.after, 1e-12) / max(one.before, 1e-12))))
    shown = by_change[:_MOST_PARAMETERS]
    more = f" (the {len(shown)} that moved most, of {len(moved)})" if len(moved) > len(shown) else ""
    header = ("parameter", "meaning", "before", "after", "80 % interval") if any(one.spread for one in shown) else \
        ("parameter", "meaning", "before", "after")
    rows = [(one.name, one.description, _number(one.before, one.unit), _number(one.after, one.unit),
             f"±{_number(one.spread, one.unit)}")[:len(header)] for one in shown]
    made = table(f"Parameters{more}", header, rows, left=2)
    made.columns[0].overflow, made.columns[0].no_wrap = "fold", True
    return made


def _worst(fit: OwnFit) -> list[tuple[str, ...]]:
    residual = fit.residual_ln
    return [(fit.labels[row], _time(fit.measured_s[row]), _time(fit.predicted_s[row]),
             f"{np.expm1(residual[row]):+.0%}") for row in np.argsort(-np.abs(residual))[:_WORST]]


def _number(value: float, unit: str) -> str:
    return _time(value) if unit == "s" else f"{value:,.4g}" + (f" {unit}" if unit != "1" else "")


def _time(value_s: float) -> str:
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(value_s) >= scale:
            return f"{value_s / scale:,.4g} {unit}"
    return f"{value_s * 1e9:,.3g} ns" if value_s else "0 s"
