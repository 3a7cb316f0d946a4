"""The best deployments of a load in time, for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console

from serried.display.spec import Section
from serried.display.terminal import table
from serried.serving.cluster import PoolPlan
from serried.serving.traffic_search import Question, TrafficSearch, Trial
from serried.units import significant

__all__ = ["deployment_words", "plan_traffic_sections", "print_plan_traffic"]

_HEADER = ("", "chips", "good tok/s/chip", "kept", "TTFT ms p50", "p90", "TPOT ms p50", "p90", "usd/M out", "J/tok",
           "deployment")
_MONEY = ("", "usd/M input", "usd/M output", "usd/M cached", "busy", "cached", "on the front", "deployment")


def print_plan_traffic(found: TrafficSearch, ask: Question, screen: Console, *,
                       spreads: Mapping[str, tuple[float, float]], wall_s: float) -> None:
    """The best first, what tokens cost there, the front, and what was looked at."""
    screen.print(table("Best deployments", _HEADER, _rows(found.best)))
    screen.print()
    screen.print(table("What tokens cost there", _MONEY, _money(found.best)))
    front = [trial for trial in (*found.best, *found.others) if trial.on_front]
    screen.print(f"\nPareto front of tokens/s a chip against latency, among what was simulated: "
                 f"{'; '.join(deployment_words(trial.plans) for trial in front)}.", markup=False)
    low, high = spreads["throughput"]
    screen.print(f"\n{_looked_at(found, ask)} In {wall_s:.1f} s. Of rates, 80 % lie within {low:.2f} … {high:.2f} of "
                 f"the prediction; evidence: {ask.machines[0].profile.evidence_class}.", markup=False)


def plan_traffic_sections(found: TrafficSearch, ask: Question) -> list[Section]:
    """The same as sections of a page."""
    return [Section(title="Best first", header=_HEADER, rows=_rows(found.best), text=_looked_at(found, ask)),
            Section(title="What tokens cost there", header=_MONEY, rows=_money(found.best)),
            Section(title="Also simulated on the whole load", header=_HEADER, rows=_rows(found.others))]


def _looked_at(found: TrafficSearch, ask: Question) -> str:
    pruned = ", ".join(f"{count:,} by {cause}" for cause, count in found.pruned.items() if count)
    return (f"{found.candidates:,} candidates; bounds rule out {pruned or 'none'}; {found.glimpsed:,} were simulated "
            f"on the first requests and {found.simulated:,} on all {found.requests:,}; {found.undecided:,} are neither "
            f"proven worse than the best nor simulated. {ask.attain:.0%} of requests must keep the objectives.")


def deployment_words(plans: Sequence[PoolPlan]) -> str:
    """`2 x tp=4 seats=256`, or `prefill 2 x tp=4 | decode 1 x tp=8`."""
    if len(plans) == 1:
        return _pool(plans[0])
    return " | ".join(f"{role} {_pool(plan)}" for role, plan in zip(("prefill", "decode"), plans, strict=True))


def _pool(plan: PoolPlan) -> str:
    words = plan.row.row(0)
    count, settings = words.pop("replicas"), plan.profile.settings
    told = " ".join(f"{name}={value}" for name, value in words.items()
                    if value not in (0, 1, True, "bf16") or name == "tp")
    drafts = f" drafts={len(settings.acceptance)}" if settings.acceptance else ""
    return f"{count} x {told} seats={settings.max_sequences} budget={settings.token_budget}{drafts}"


def _rows(trials: Sequence[Trial]) -> list[list[str]]:
    rows = []
    for place, trial in enumerate(trials, 1):
        figures = trial.figures
        times = [significant(figures[name] * 1e3) for name in ("ttft_p50_s", "ttft_p90_s", "tpot_p50_s", "tpot_p90_s")]
        rows.append([str(place), str(trial.chips), f"{figures['goodput_tokens_per_s_per_chip']:,.1f}",
                     f"{figures['attainment']:.1%}", *times, _known(figures["output_usd_per_million"]),
                     _known(figures["j_per_output_token"]), deployment_words(trial.plans)])
    return rows


def _money(trials: Sequence[Trial]) -> list[list[str]]:
    return [[str(place), *(_known(trial.figures[f"{kind}_usd_per_million"]) for kind in ("input", "output", "cached")),
             f"{trial.figures['busy_fraction']:.0%}", f"{trial.figures['cached_ratio']:.0%}",
             "yes" if trial.on_front else "", deployment_words(trial.plans)] for place, trial in enumerate(trials, 1)]


def _known(value: float) -> str:
    return significant(value) if np.isfinite(value) else "–"
