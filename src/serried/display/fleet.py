"""What a replay of arrivals looks like: allocation by load, beside what was published where that is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console

from serried.display.terminal import table
from serried.fleet.arrival_replay import Replayed
from serried.fleet.openb import published_percent

__all__ = ["print_replays"]

_LOADS_PERCENT = (80, 90, 100, 110, 120, 130)


def print_replays(replays: Sequence[tuple[str, str, int, Replayed]], screen: Console) -> None:
    """One line per pod list and rule: allocation at the loads that publications quote, mean over the seeds."""
    groups: dict[tuple[str, str], list[Replayed]] = {}
    for name, rule, _, one in replays:
        groups.setdefault((name, rule), []).append(one)
    reached = min(len(one.allocation_ratio_L) for *_, one in replays) - 1
    loads = [percent for percent in _LOADS_PERCENT if percent <= reached] or [reached]
    rows = []
    for (name, rule), runs in groups.items():
        percent_RL = np.array([[one.allocation_ratio_L[load] * 100 for load in loads] for one in runs])
        known = published_percent(name, rule, loads[-1])
        spread = f" ± {percent_RL[:, -1].std(ddof=1):.2f}" if len(runs) > 1 else ""
        told = "" if known is None else f"{known[0]:.2f} ± {known[1]:.2f}"
        rate_per_s = sum(one.decisions for one in runs) / sum(one.wall_s for one in runs)
        rows.append([name, rule, *(f"{mean:.1f}" for mean in percent_RL[:, :-1].mean(axis=0)),
                     f"{percent_RL[:, -1].mean():.2f}{spread}", told, f"{rate_per_s:,.0f}"])
    header = ["pods", "rule", *(f"at {load} %" for load in loads), "published", "decisions/s"]
    screen.print(table("Chips handed out, in percent of all, by load arrived", header, rows, left=2))
    seeds = len({seed for _, _, seed, _ in replays})
    checks = sum(one.invariant_checks for *_, one in replays)
    screen.print(f"\n{seeds} seed{'s' if seeds > 1 else ''}; {checks:,} checks of capacity, one at every step, against "
                 "books of their own.", markup=False)
