"""A simulated deployment, for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console

from serried.display.spec import Curve, Section
from serried.display.terminal import table
from serried.engine import SimulationLog
from serried.serving.report import ServingReport
from serried.units import format_quantity, significant
from serried.workload.spec import Floats

__all__ = ["print_report", "report_sections"]

_TIMES = {"ttft": "time to first token", "tpot": "time per output token", "inter_token": "between tokens",
          "e2e": "end to end", "queue": "queueing"}
_LATENCY_HEADER = ("", "class", "mean", "p50", "p90", "p99")
_POINTS = 400
_MOST_SHARE = 0.995   # the last few would squeeze the rest
_LEVELS = ("mean", "p50", "p90", "p99")

Factors = Mapping[str, tuple[float, float]]


def print_report(report: ServingReport, screen: Console, *, spreads: Factors) -> None:
    """Latencies by class, then rates, money and watts. spreads: factors of the 80 % interval around each kind."""
    screen.print(table("Latency (80 % interval)", _LATENCY_HEADER, _latency_rows(report, spreads), left=2))
    screen.print()
    screen.print(table("", ("", "", ""), _rate_rows(report, spreads), left=1))


def _latency_rows(report: ServingReport, spreads: Factors) -> list[list[str]]:
    rows = []
    for key, words in _TIMES.items():
        groups = [(group.name, group.times_s[key]) for group in report.classes] if key != "inter_token" \
            else [("all", report.inter_token_s)]
        rows += [[words if not place else "", name, *(_told(getattr(times, level), spreads[key]) for level in _LEVELS)]
                 for place, (name, times) in enumerate(groups)]
    return rows


def _told(time_s: float, factors: tuple[float, float]) -> str:
    """A time and its interval in the same unit: "139 ms (98 … 197)"."""
    if not np.isfinite(time_s):
        return "–"
    shown = format_quantity(time_s, "s")
    number, _, unit = shown.rpartition(" ")
    if not time_s:
        return shown
    scale = float(number.replace(",", "")) / time_s if unit else 1.0
    low, high = (significant(time_s * factor * scale, 2) for factor in factors)
    return f"{shown} ({low} … {high})"


def _rate_rows(report: ServingReport, spreads: Factors) -> list[list[str]]:
    low, high = spreads["throughput"]
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
        ["cached tokens", usd(price.cached_usd_per_million) if report.cached_ratio else "none",
         "by the time that bringing them up from the host takes" if report.cached_ratio else ""],
        ["energy", f"{significant(report.j_per_output_token)} J / output token"
         if np.isfinite(report.j_per_output_token) else "unknown", "at the meter"]]


def report_sections(report: ServingReport, log: SimulationLog, times_s: Mapping[str, Floats], *,
                    spreads: Factors) -> list[Section]:
    """The page: tables, distributions of latency, and how the run went over time."""
    return [
        Section(title="Latency", header=_LATENCY_HEADER, rows=_latency_rows(report, spreads),
                text="In brackets, where four measured values in five are expected."),
        Section(title="Rates, money and watts", header=("", "", ""), rows=_rate_rows(report, spreads)),
        *(Section(title=f"Distribution of {_TIMES[key]}", axes=("ms", "share of requests"),
                  text=f"Share of requests that are faster, up to {_MOST_SHARE:.1%} of them.",
                  curves=_distribution(times_s[key], _TIMES[key])) for key in ("ttft", "tpot")),
        *(Section(title=f"{_TIMES[key].capitalize()} through the run", axes=("arrival, s", "ms"),
                  curves=_through_time(log, times_s[key])) for key in ("ttft", "tpot")),
        Section(title="Batch through the run", axes=("s", "sequences"), curves=_batch(log),
                text="Sequences that decode at once, on all engines together and on the fullest one."),
        Section(title="Requests in the system", axes=("s", "requests"), curves=_in_system(log))]


def _distribution(time_s: Floats, label: str) -> list[Curve]:
    found = np.sort(time_s[np.isfinite(time_s)]) * 1e3
    if not len(found):
        return []
    share = np.linspace(0.0, _MOST_SHARE, _POINTS)
    return [Curve(label=label, x=np.quantile(found, share).tolist(), y=share.tolist())]


def _batch(log: SimulationLog) -> list[Curve]:
    if not log.spans:
        return []
    spans = np.array(log.spans, dtype=np.int64)
    at_ns = np.linspace(0, max(log.end_ns, 1), _POINTS)
    by_engine = []
    for engine in np.unique(spans[:, 0]):
        _, begin_ns, end_ns, _, sequences, _ = spans[spans[:, 0] == engine].T
        span = np.searchsorted(begin_ns, at_ns, side="right") - 1
        by_engine.append(np.where((span >= 0) & (at_ns < end_ns[span]), sequences[span], 0))
    x = (at_ns * 1e-9).tolist()
    return [Curve(label="all engines", x=x, y=np.sum(by_engine, axis=0).tolist()),
            Curve(label="fullest engine", x=x, y=np.max(by_engine, axis=0).tolist())]


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
