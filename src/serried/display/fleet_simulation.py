"""What a simulated fleet looks like: goodput, the waterfall of lost chip-hours, who waited, and a map of switches."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console

from serried.display.spec import Bar, Line, Section, Tiles
from serried.display.terminal import table, waterfall_table
from serried.simulation import Outcome
from serried.units import significant

__all__ = ["lead_of", "outcome_sections", "print_comparison", "print_outcome"]

_WAITS = ["jobs", "submitted", "started", "finished", "wait p50", "p90", "p99", "chip-hours", "useful", "interrupted"]
_TENANTS = ["tenant", "chip-hours", "useful", "share held", "entitled"]
_KINDS = ["chips", "count", "held", "working", "energy MWh", "cost usd"]


def lead_of(outcome: Outcome) -> str:
    """One sentence about a run."""
    struck = sum(outcome.failures.values())
    every = f"one every {_span(outcome.days * 86400.0 / struck)}" if struck else "none"
    return (f"{outcome.chip_count:,} chips in {outcome.node_count:,} nodes over {outcome.days:g} days, policy "
            f"{outcome.policy}, seed {outcome.seed}: {outcome.goodput_ratio:.1%} of all chip-time was useful, "
            f"{outcome.allocation_ratio:.1%} was held by jobs; {struck:,} failures ({every}).")


def print_outcome(outcome: Outcome, screen: Console) -> None:
    """The lead, the waterfall, and the tables."""
    screen.print(lead_of(outcome), markup=False)
    screen.print()
    screen.print(waterfall_table("Where chip-time went", _bars(outcome), unit="chip-hours", words=("", "share")))
    for title, header, rows in _tables(outcome):
        screen.print()
        screen.print(table(title, header, rows))
    screen.print(f"\n{_costs(outcome)}", markup=False)


def outcome_sections(outcome: Outcome) -> list[Section]:
    """The same as sections of a page, with the map of switches and the fleet hour by hour."""
    heat, hours = outcome.heat, outcome.hours
    tiles = [Tiles(label=f"{kind.name}: {kind.chip_count:,} chips, {int((heat.kind_S == place).sum()):,} "
                         f"{heat.level} switches" if heat.level != "node" else kind.name,
                   values=heat.working_ratio_S[heat.kind_S == place].tolist(),
                   down=heat.down_ratio_S[heat.kind_S == place].tolist())
             for place, kind in enumerate(outcome.kinds)]
    lines = [Line(label="held by jobs", shares=hours["held_ratio"]), Line(label="down", shares=hours["down_ratio"]),
             Line(label="fragmented, of what is free", shares=hours["fragmentation_ratio"])]
    return [Section(title="Where chip-time went", bars=_bars(outcome), unit="chip-hours",
                    text="Every chip is in one account at every moment; the accounts add up exactly."),
            Section(title="The fleet hour by hour", lines=lines, across=f"{outcome.days:g} days"),
            Section(title="Switch by switch", tiles=tiles, text=f"One square is one {heat.level}: the fuller, the more "
                    "of its chip-time worked; a red frame grows with the time that its nodes were down."),
            *(Section(title=title, header=header, rows=rows) for title, header, rows in _tables(outcome)),
            Section(title="Money and energy", text=_costs(outcome))]


def print_comparison(outcomes: Sequence[Outcome], screen: Console) -> None:
    """Policies side by side."""
    header = ["policy", "goodput", "held", "wait p90", "p99", "fairness", "fragmented", "preempted", "lost chip-hours",
              "usd / useful h"]
    rows = [[one.policy, f"{one.goodput_ratio:.2%}", f"{one.allocation_ratio:.2%}",
             _span(max((kind.wait_p90_s for kind in one.classes if kind.started), default=math.nan)),
             _span(max((kind.wait_p99_s for kind in one.classes if kind.started), default=math.nan)),
             f"{one.fairness:.3f}", f"{one.fragmentation_ratio:.1%}", f"{one.preemptions:,}",
             f"{one.capacity_chip_hours * (one.allocation_ratio - one.goodput_ratio):,.0f}",
             significant(one.usd_per_useful_chip_hour)] for one in outcomes]
    first = outcomes[0]
    screen.print(f"{first.name}: {first.chip_count:,} chips over {first.days:g} days, seed {first.seed}: the same jobs "
                 "and the same failures for every policy.\n", markup=False)
    screen.print(table("", header, rows))
    screen.print("\nWaits are those of the class that waits longest. Lost: held by jobs and not useful.", markup=False)


def _bars(outcome: Outcome) -> list[Bar]:
    lost = {account: hours for account, hours in outcome.chip_hours.items() if account != "useful"}
    whole = outcome.capacity_chip_hours
    return [Bar(label="all chip-time", value=whole, kind="level", note="100 %"),
            *(Bar(label=account, value=-hours, note=f"{hours / whole:.2%}") for account, hours in lost.items()),
            Bar(label="useful", value=outcome.chip_hours.get("useful", 0.0), kind="level",
                note=f"{outcome.goodput_ratio:.2%}")]


def _tables(outcome: Outcome) -> list[tuple[str, Sequence[str], list[list[str]]]]:
    waits = [[one.name, f"{one.submitted:,}", f"{one.started:,}", f"{one.finished:,}", _span(one.wait_p50_s),
              _span(one.wait_p90_s), _span(one.wait_p99_s), f"{one.held_chip_hours:,.0f}",
              "–" if math.isnan(one.effective_time_ratio) else f"{one.effective_time_ratio:.1%}",
              f"{one.interruptions:,}"] for one in outcome.classes]
    tenants = [[one.name, f"{one.held_chip_hours:,.0f}", f"{one.useful_chip_hours:,.0f}", f"{one.held_ratio:.1%}",
                f"{one.entitled_ratio:.1%}"] for one in outcome.tenants]
    kinds = [[one.name, f"{one.chip_count:,}", f"{one.held_ratio:.1%}", f"{one.working_ratio:.1%}",
              _known(one.energy_j / 3.6e9), _known(one.cost_usd)] for one in outcome.kinds]
    services = [[one.name, f"{one.mean_load_replicas:,.1f}", f"{one.unserved_ratio:.3%}"] for one in outcome.services]
    tables: list[tuple[str, Sequence[str], list[list[str]]]] = [
        ("Who waited", _WAITS, waits), (f"Who got what (fairness {outcome.fairness:.3f})", _TENANTS, tenants),
        ("Chips", _KINDS, kinds)]
    if services:
        tables.append(("Services", ["service", "mean load, replicas", "unserved"], services))
    failures = [[name, f"{count:,}"] for name, count in outcome.failures.items()]
    return [*tables, ("What broke", ["fault", "times"], failures)] if failures else tables


def _costs(outcome: Outcome) -> str:
    return (f"{_known(outcome.energy_j / 3.6e9)} MWh, {_known(outcome.cost_usd)} usd, "
            f"{_known(outcome.usd_per_useful_chip_hour)} usd for a useful chip-hour. {outcome.preemptions:,} "
            f"preemptions, {outcome.moves:,} moves, {outcome.replacements:,} replacements in place.")


def _known(value: float) -> str:
    return "unknown" if math.isnan(value) else significant(value)


def _span(time_s: float) -> str:
    """Seconds as people say them."""
    if math.isnan(time_s):
        return "–"
    for unit_s, word in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if time_s >= unit_s:
            return f"{time_s / unit_s:.3g} {word}"
    return f"{time_s:.3g} s"
