"""The gap under a load in time, for the terminal and for a page."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.console import Console

from serried.display.spec import Bar, Section
from serried.display.terminal import table, waterfall_table
from serried.insight import TrafficGap
from serried.units import significant

__all__ = ["print_traffic_gap", "traffic_gap_sections", "traffic_headline"]

_HEADER = ("", "chips", "good tok/s/chip", "most of the load's rate", "engine", "stack", "evidence", "deployment")


def traffic_headline(found: TrafficGap) -> str:
    """The gap in one sentence."""
    return (f"The rival ({found.rival.chip}) serves {math.exp(found.gap_ln):.2f}x the goodput per chip of the fleet "
            f"({found.fleet.chip}), each at the highest rate at which it keeps the objectives.")


def print_traffic_gap(found: TrafficGap, screen: Console) -> None:
    """The two sides, then the waterfall."""
    screen.print(traffic_headline(found), markup=False)
    screen.print()
    screen.print(table("The two sides", _HEADER, _sides(found)))
    screen.print()
    screen.print(waterfall_table(f"Where the gap is, in {found.unit_of_work} (less is better)", _bars(found), unit="s",
                                 less_is_better=True))
    for note in found.notes:
        screen.print(f"note: {note}", markup=False)


def traffic_gap_sections(found: TrafficGap) -> list[Section]:
    """The same as sections of a page."""
    return [Section(title="The two sides", header=_HEADER, rows=_sides(found)),
            Section(title="Where the gap is", text=f"{found.unit_of_work}; less is better. {' '.join(found.notes)}",
                    bars=_bars(found), unit="s", less_is_better=True)]


def _sides(found: TrafficGap) -> list[list[str]]:
    return [[f"{name}: {side.chip}", str(side.chip_count), significant(side.goodput_tokens_per_s_per_chip),
             f"{side.most_rate_ratio:.2f}x", side.engine, side.stack, side.evidence_class,
             " | ".join(_words(pool) for pool in side.pools)]
            for name, side in (("fleet", found.fleet), ("rival", found.rival))]


def _words(pool: Mapping[str, int | bool | str]) -> str:
    return " ".join(f"{name}={value}" for name, value in pool.items() if value not in (0, 1, True, "bf16")) or "tp=1"


def _bars(found: TrafficGap) -> list[Bar]:
    bars = [Bar(label=bar.layer.replace("_", " "), value=bar.gap_s * -1.0 if bar.gap_s else 0.0,
                note=f"{bar.from_setting} → {bar.to_setting}" if bar.from_setting != bar.to_setting else "")
            for bar in found.bars]
    return [Bar(label=found.fleet.chip, value=found.fleet.chip_s, kind="level"), *bars,
            Bar(label=found.rival.chip, value=found.rival.chip_s, kind="level")]
