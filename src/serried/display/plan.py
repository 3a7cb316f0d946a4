"""What a plan looks like: the best layouts, where their time and memory go, and one step drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console

from serried.display.spec import Bar, Section, Span, Stack
from serried.display.terminal import stack_table, table, waterfall_table
from serried.planner import Machine, SearchResult
from serried.planner import Span as TurnSpan

__all__ = ["plan_sections", "print_plan"]

_AXES = (("tp", "tp"), ("cp", "cp"), ("pp", "pp"), ("vpp", "virtual_stages"), ("ep", "ep"), ("etp", "expert_tp"),
         ("mbs", "micro_batch"), ("zero", "sharding"), ("sp", "sequence_parallel"), ("recompute", "recompute"),
         ("schedule", "schedule"), ("format", "number_format"))
_DRAWN_SPANS = 4000


def print_plan(found: SearchResult, machine: Machine, spread: tuple[float, float], screen: Console, *,
               searched: Mapping[str, Sequence[object]]) -> None:
    """The best layouts, then the best one by cause, then what was searched."""
    header, rows = _layout_rows(found, machine, spread)
    screen.print()
    screen.print(table("Best layouts", header, rows))
    screen.print()
    screen.print(waterfall_table("The best one, where a step goes", _cause_bars(found), unit="s", words=("cause", "")))
    screen.print()
    screen.print(stack_table("Memory of its fullest stage", [_memory(found, machine)]))
    pinned = ", ".join(f"{name}={'|'.join(map(str, values))}" for name, values in searched.items())
    screen.print(f"\n{_searched(found)} Searched in {found.wall_s:.1f} s"
                 f"{f'; pinned: {pinned}' if pinned else ''}. Evidence: {machine.profile.evidence_class}.",
                 markup=False)


def plan_sections(found: SearchResult, machine: Machine, spread: tuple[float, float],
                  spans: Sequence[TurnSpan]) -> list[Section]:
    """The same as sections of a page, with the step as a timeline."""
    header, rows = _layout_rows(found, machine, spread)
    chosen = sorted((span for span in spans if span.stream == "compute" or span.cause == "data_exposed"),
                    key=lambda span: span.start_s)
    told = "" if len(chosen) <= _DRAWN_SPANS else " The step begins like this; --emit trace has all of it."
    drawn = [Span(row=f"stage {span.stage}", start_s=span.start_s, duration_s=span.duration_s, cause=span.cause)
             for span in sorted(chosen[:_DRAWN_SPANS], key=lambda span: span.stage)]
    return [Section(title="Best layouts", header=header, rows=rows,
                    text=_searched(found)),
            Section(title="One step", spans=drawn,
                    text=f"Every turn of every stage in the order of the schedule.{told}"),
            Section(title="Where a step goes", bars=_cause_bars(found), unit="s", less_is_better=None),
            Section(title="Memory of the fullest stage", stacks=[_memory(found, machine, row)
                                                                 for row in range(min(len(found.layouts), 8))])]


def _searched(found: SearchResult) -> str:
    return (f"{found.evaluated:,} legal layouts evaluated in full, {found.fitting:,} fit in memory; the others are "
            "slower even in their fastest variant.")


def _layout_rows(found: SearchResult, machine: Machine,
                 spread: tuple[float, float]) -> tuple[list[str], list[list[str]]]:
    shown = [(short, name) for short, name in _AXES
             if short in ("tp", "pp", "mbs", "recompute") or len(np.unique(getattr(found.layouts, name))) > 1
             or getattr(found.layouts, name)[0] not in (0, 1)]
    rows = []
    for row in range(len(found.layouts)):
        words, time_s = found.layouts.row(row), float(found.estimate.time_s[row])
        rows.append([str(row + 1), f"{time_s:,.4g}", f"{time_s * spread[0]:,.3g} … {time_s * spread[1]:,.3g}",
                     f"{found.estimate.tokens / time_s / machine.chip_count:,.0f}",
                     f"{found.estimate.model_flop / time_s / machine.chip_count / 1e12:,.0f}",
                     f"{found.estimate.memory_bytes[row] / 1e9:.1f}", *(_shown(words[name]) for _, name in shown)])
    return ["", "step s", "80 % interval", "tok/s/chip", "TFLOP/s", "GB", *(short for short, _ in shown)], rows


def _shown(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _cause_bars(found: SearchResult) -> list[Bar]:
    causes = [Bar(label=cause.replace("_", " "), value=float(column[0]))
              for cause, column in found.estimate.time_by_cause_s.items()
              if column[0] > 1e-9 * found.estimate.time_s[0]]
    return [*causes, Bar(label="step", value=float(found.estimate.time_s[0]), kind="level")]


def _memory(found: SearchResult, machine: Machine, row: int = 0) -> Stack:
    parts = [(cause, float(column[row])) for cause, column in found.estimate.memory_by_cause_bytes.items()]
    return Stack(label=f"layout {row + 1}", parts=parts, limit=machine.chip.need("hbm_capacity"))
