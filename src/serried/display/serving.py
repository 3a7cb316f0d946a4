"""A simulated deployment, for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console

from serried.display.spec import Curve, Section
from serried.display.terminal import table
from serried.engine import SimulationLog
from serried.serving.report import ServingReport
from serried.traffic import Requests
from serried.units import format_quantity, significant
from serried.workload.spec import Floats

__all__ = ["print_report", "report_sections"]

_TIMES = {"ttft": "time to first token", "tpot": "time per output token", "e2e": "end to end", "queue": "queueing"}
_LATENCY_HEADER = ("", "class", "mean", "p50", "p90", "p99", "80 % of p50")
_POINTS = 400


def print_report(report: ServingReport, screen: Console, *, spreads: Mapping[str, tuple[float, float]]) -> None:
    """Latencies by class, then rates, money and watts."""
    screen.print(table("Latency", _LATENCY_HEADER, _latency_rows(report, spreads), left=2))
    screen.print()
    screen.print(table("", ("", "", ""), _rate_rows(report, spreads), left=1))


def _latency_rows(report: ServingReport, spreads: Mapping[str, tuple[float, float]]) -> list[list[str]]:
    rows = []
    for key, words in _TIMES.items():
        for place, group in enumerate(report.classes):
            times = group.times_s[key]
            low, high = spreads.get(key, (1.0, 1.0))
            told = f"{_time(times.p50 * low)} … {_time(times.p50 * high)}" if key in spreads else ""
            rows.append([words if not place else "", group.name, *map(_time, (times.mean, times.p50, times.p90,
                                                                             times.p99)), told])
    return rows


def _time(time_s: float) -> str:
    return format_quantity(time_s, "s") if np.isfinite(time_s) else "–"


def _rate_rows(report: ServingReport, spreads: Mapping[str, tuple[float, float]]) -> list[list[str]]:
    low, high = spreads.get("throughput", (1.0, 1.0))
    rate, price = report.output_tokens_per_s, report.price

    def usd(value: float) -> str:
        return f"{significant(value)} usd / M" if np.isfinite(value) else "unknown"

    return [
        ["output", f"{rate:,.0f} tokens/s", f"{rate * low:,.0f} … {rate * high:,.0f}; "
                                            f"{report.output_tokens_per_s_per_chip:,.1f} a chip"],
        ["goodput", f"{report.goodput_tokens_per_s:,.0f} tokens/s",
         f"{report.goodput_requests_per_s:,.3g} requests/s; {report.attainment:.1%} of requests keep the objectives"],
        ["requests", f"{report.served:,} served", f"{report.refused:,} refused, {report.preemptions:,} preemptions, "
                                                  f"in {report.duration_s:,.0f} s"],
        ["engines", f"{report.busy_fraction:.0%} busy", f"{report.cached_ratio:.1%} of prompt tokens found in a cache"],
        ["input tokens", usd(price.input_usd_per_million), "by the engine time that prompts add"],
        ["output tokens", usd(price.output_usd_per_million), f"{usd(price.total_usd).split(' ')[0]} usd in all"],
        ["cached tokens", usd(price.cached_usd_per_million) if report.cached_ratio else "none", ""],
        ["energy", f"{significant(report.j_per_output_token)} J / output token"
         if np.isfinite(report.j_per_output_token) else "unknown", "at the meter"]]


def report_sections(report: ServingReport, requests: Requests, log: SimulationLog, times_s: Mapping[str, Floats], *,
                    spreads: Mapping[str, tuple[float, float]]) -> list[Section]:
    """The page: tables, distributions of latency, and how the run went over time."""
    return [
        Section(title="Latency", header=_LATENCY_HEADER, rows=_latency_rows(report, spreads)),
        Section(title="Rates, money and watts", header=("", "", ""), rows=_rate_rows(report, spreads)),
        Section(title="Distribution of latency", axes=("ms", "share of requests"),
                text="Share of requests that are faster, up to the 99.5th percentile.",
                curves=[_distribution(_TIMES[key], times_s[key]) for key in ("ttft", "tpot")]),
        Section(title="First tokens through time", axes=("arrival, s", "ms"),
                curves=_through_time(log, times_s["ttft"])),
        Section(title="Requests in the system", axes=("s", "requests"), curves=_in_system(log))]


def _distribution(label: str, time_s: Floats) -> Curve:
    found = np.sort(time_s[np.isfinite(time_s)]) * 1e3
    if not len(found):
        return Curve(label=label, x=[0.0], y=[0.0])
    share = np.linspace(0.0, 0.995, _POINTS)
    return Curve(label=label, x=np.quantile(found, share).tolist(), y=share.tolist())


def _through_time(log: SimulationLog, time_s: Floats) -> list[Curve]:
    seen = np.flatnonzero(np.isfinite(time_s))
    order = seen[np.argsort(log.arrival_ns_R[seen], kind="stable")]
    if not len(order):
        return []
    chunks: Sequence[np.ndarray] = np.array_split(order, min(_POINTS // 4, len(order)))
    at = [float(log.arrival_ns_R[chunk].mean()) * 1e-9 for chunk in chunks]
    return [Curve(label=f"p{percent}", x=at, y=[float(np.percentile(time_s[chunk], percent)) * 1e3
                                                for chunk in chunks]) for percent in (50, 99)]


def _in_system(log: SimulationLog) -> list[Curve]:
    end_ns = max(log.end_ns, 1)
    at_ns = np.linspace(0, end_ns, _POINTS)
    curves = []
    for label, begins, ends in (("waiting", log.arrival_ns_R, log.scheduled_ns_R),
                                ("running", log.scheduled_ns_R, log.last_token_ns_R)):
        begun = np.sort(np.where(begins < 0, end_ns + 1, begins))
        over = np.sort(np.where(ends < 0, end_ns + 1, ends))
        count = np.searchsorted(begun, at_ns, side="right") - np.searchsorted(over, at_ns, side="right")
        curves.append(Curve(label=label, x=(at_ns * 1e-9).tolist(), y=count.tolist()))
    return curves
