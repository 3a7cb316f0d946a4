"""`serried serve simulate MODEL --fleet F --layout L --trace T`: requests through time on one deployment."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from serried.cli.serving_words import TrafficWords, parse_layout, pool_plans, requests_of_words
from serried.display.page import page, write_page
from serried.display.plain import plain
from serried.display.progress import progress_bar
from serried.display.serving import print_report, report_sections
from serried.display.terminal import console
from serried.emit.request_log import request_table, spans_json, write_request_log
from serried.engine import SimulationLog, simulate
from serried.errors import BadInput
from serried.evidence.intervals import interval
from serried.fabric import read_fleet
from serried.planner.spec import FORMATS
from serried.serving.cluster import PoolPlan, cluster_of
from serried.serving.objectives import parse_objectives
from serried.serving.profile import read_engine
from serried.serving.report import ServingReport, report_of, request_times_s
from serried.serving.spec import CACHE_FORMATS
from serried.traffic import Requests, cut, refuse_beyond, scaled, within
from serried.workload import Model, read_model

__all__ = ["command"]


def command(
    model: Annotated[str, typer.Argument(help="a model of the catalogue, or a path to a config.json")],
    fleet: Annotated[str, typer.Option(help="CHIP:COUNT, a fleet of the catalogue, or a fleet file")],
    layout: Annotated[str, typer.Option(help="tp=2,replicas=4, or prefill:tp=4;decode:tp=8,replicas=2")] = "tp=1",
    trace: Annotated[str | None, typer.Option(help="a trace: a file (Azure, Mooncake, BurstGPT, Bailian or plain "
                                                   "columns), or the name of a shipped one")] = None,
    poisson: Annotated[float | None, typer.Option(help="requests/s of independent users")] = None,
    constant: Annotated[float | None, typer.Option(help="requests/s, evenly spaced")] = None,
    gamma: Annotated[str | None, typer.Option(help="RATE:VARIATION, arrivals that bunch (variation above 1)")] = None,
    burst: Annotated[str | None, typer.Option(help="RATE:RATIO:ON_S:OFF_S")] = None,
    diurnal: Annotated[str | None, typer.Option(help="RATE:SWING, up and down once a day")] = None,
    sessions: Annotated[str | None, typer.Option(help="RATE:TURNS:THINK_S, conversations")] = None,
    concurrency: Annotated[int | None, typer.Option(help="requests in flight, a closed loop")] = None,
    clients: Annotated[Path | None, typer.Option(help="a TOML file of clients, each with a rate and lengths")] = None,
    input_tokens: Annotated[int, typer.Option("--input", help="tokens of a prompt")] = 1024,
    output_tokens: Annotated[int, typer.Option("--output", help="tokens of an answer")] = 256,
    shortest: Annotated[float, typer.Option("--range", help="shortest lengths over the longest")] = 1.0,
    requests: Annotated[int, typer.Option(help="how many requests")] = 1000,
    duration: Annotated[float, typer.Option(help="seconds of client traffic")] = 3600.0,
    scale_rate: Annotated[float, typer.Option(help="so many times as many requests a second")] = 1.0,
    scale_length: Annotated[float, typer.Option(help="prompts and answers so many times as long")] = 1.0,
    first: Annotated[int, typer.Option(help="only the first so many requests of the trace; 0 = all")] = 0,
    drop_longer: Annotated[bool, typer.Option(help="leave out requests beyond the model's context")] = False,
    slo: Annotated[str | None, typer.Option(help="ttft=1s,tpot=40ms; by class: chat:ttft=1s;batch:e2e=60s")] = None,
    engine: Annotated[str, typer.Option(help="the serving engine: its batching rules and costs")] = "vllm",
    stack: Annotated[str | None, typer.Option(help="the software; default: the engine's own")] = None,
    weights: Annotated[str, typer.Option(help="number format of weights and products")] = "bf16",
    cache: Annotated[str, typer.Option(help="number format of the KV cache")] = "bf16",
    max_sequences: Annotated[int | None, typer.Option(help="requests running at once in a group")] = None,
    budget: Annotated[int | None, typer.Option(help="tokens of one step")] = None,
    drafts: Annotated[str | None, typer.Option(help="chance that a draft is accepted, by position: 0.8,0.6")] = None,
    host_memory: Annotated[float, typer.Option(help="GB of host memory a chip for evicted caches")] = 0.0,
    router: Annotated[str, typer.Option(help="round_robin, least_loaded or prefix")] = "least_loaded",
    warm_up: Annotated[float, typer.Option(help="seconds at the beginning that latencies leave out")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="of everything that is drawn")] = 0,
    log: Annotated[Path | None, typer.Option(help="write every request: .csv or .parquet")] = None,
    timeline: Annotated[Path | None, typer.Option(help="write what the engines did, for ui.perfetto.dev")] = None,
    html: Annotated[Path | None, typer.Option(help="write one self-contained page")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """Simulate requests through time on one deployment: latencies, goodput, money and watts."""
    chosen, objectives = read_model(model), parse_objectives(slo)
    profile = read_engine(engine).with_settings(**_changes(max_sequences, budget, drafts))
    plans = pool_plans(chosen, read_fleet(fleet), parse_layout(layout, weight_format=_known(weights, cache),
                                                               cache_format=cache), profile, stack=stack, router=router)
    words = TrafficWords(trace=trace, poisson=poisson, constant=constant, gamma=gamma, burst=burst, diurnal=diurnal,
                         sessions=sessions, concurrency=concurrency, clients=clients, input_tokens=input_tokens,
                         output_tokens=output_tokens, shortest_ratio=shortest, requests=requests, duration_s=duration)
    load = _load(words, chosen, seed, scale_rate=scale_rate, scale_length=scale_length, first=first,
                 drop_longer=drop_longer)
    cluster = cluster_of(chosen, plans[-1], plans[0] if len(plans) > 1 else None,
                         host_memory_bytes=host_memory * 1e9)
    started_s = time.perf_counter()
    with progress_bar("requests", quiet=as_json) as report_progress:
        found = simulate(load, cluster, seed=seed, progress=report_progress, keep_spans=timeline is not None)
    run = _Run(plans=plans, load=load, log=found, wall_s=time.perf_counter() - started_s, seed=seed,
               title=_lead(chosen, plans, load),
               report=report_of(load, found, plans, objectives, warm_up_s=warm_up))
    _write(run, log, timeline, html)
    print(json.dumps(_answer(run))) if as_json else _show(run, [log, timeline, html])
    if run.is_interrupted:
        print(f"interrupted: {run.report.served:,} of {len(load):,} requests had ended; only these are in what was "
              "written", file=sys.stderr)
        raise typer.Exit(130)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A simulation and what was asked of it."""

    plans: Sequence[PoolPlan]
    load: Requests
    log: SimulationLog
    report: ServingReport
    wall_s: float
    seed: int
    title: str

    @property
    def is_interrupted(self) -> bool:
        return bool(((self.log.last_token_ns_R < 0) & (self.log.reason_R == 0)).any())

    @property
    def spreads(self) -> dict[str, tuple[float, float]]:
        kind = self.plans[-1].machine.profile.evidence_class
        return {name: interval("serving", kind, name) for name in ("ttft", "tpot", "throughput")}


def _load(words: TrafficWords, model: Model, seed: int, *, scale_rate: float, scale_length: float, first: int,
          drop_longer: bool) -> Requests:
    """The requests; BadInput when one is beyond the model's context, unless these are to be dropped."""
    context = 0 if drop_longer or scale_length != 1.0 else model.max_positions
    load = scaled(requests_of_words(words, seed, context_tokens=context), rate=scale_rate, length=scale_length)
    load = cut(load, count=first) if first else load
    load = within(load, model.max_positions) if drop_longer else load
    refuse_beyond(load, model.max_positions, file=words.trace or "requests")
    return load


def _show(run: _Run, written: Sequence[Path | None]) -> None:
    screen = console()
    screen.print(run.title, markup=False)
    print_report(run.report, screen, spreads=run.spreads)
    screen.print(f"\n{len(run.load):,} requests simulated in {run.wall_s:.2f} s. Evidence: "
                 f"{run.plans[-1].machine.profile.evidence_class}.", markup=False)
    for path in filter(None, written):
        screen.print(f"written: {path}", markup=False)


def _changes(max_sequences: int | None, budget: int | None, drafts: str | None) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    said = (("max_sequences", "--max-sequences", max_sequences), ("token_budget", "--budget", budget))
    for name, field, value in said:
        if value is not None:
            if not 1 <= value <= 1_000_000:
                raise BadInput(field=field, value=value, expected="1 to 1,000,000", remedy="Give a whole number.")
            changes[name] = value
    if drafts:
        try:
            changes["acceptance"] = tuple(float(part) for part in drafts.split(","))
        except ValueError:
            changes["acceptance"] = (-1.0,)
        if not all(0.0 <= chance <= 1.0 for chance in changes["acceptance"]):
            raise BadInput(field="--drafts", value=drafts, expected="chances from 0 to 1, one for each position",
                           remedy="Write for example 0.8,0.6,0.4.")
    return changes


def _known(weights: str, cache: str) -> str:
    """The format of the weights, when both are known."""
    for field, value, known in (("--weights", weights, FORMATS), ("--cache", cache, tuple(CACHE_FORMATS))):
        if value not in known:
            raise BadInput(field=field, value=value, expected=f"one of {', '.join(known)}", remedy="Choose one.")
    return weights


def _lead(model: Model, plans: Sequence[PoolPlan], load: Requests) -> str:
    pools = " + ".join(f"{int(plan.row.chip_count[0]):,} {plan.machine.chip.name} ({_words(plan)})" for plan in plans)
    return f"{model.name} on {pools}, {plans[-1].profile.name}, {len(load):,} requests"


def _words(plan: PoolPlan) -> str:
    return ", ".join(f"{name}={value}" for name, value in plan.row.row(0).items()
                     if value not in (0, 1, True, "bf16") or name == "tp")


def _write(run: _Run, log: Path | None, timeline: Path | None, html: Path | None) -> None:
    if log is not None:
        write_request_log(log, request_table(run.load, run.log, finished_only=run.is_interrupted))
    if timeline is not None:
        write_page(timeline, spans_json(run.log, title=run.title))
    if html is not None:
        write_page(html, page("Requests through time", run.title, report_sections(
            run.report, run.load, run.log, request_times_s(run.load, run.log), spreads=run.spreads),
            footer=f"serried serve simulate, seed {run.seed}; intervals are 80 %."))


def _answer(run: _Run) -> Any:
    report, plans = run.report, run.plans
    latencies = {name: {"mean": times.mean, "p50": times.p50, "p90": times.p90, "p99": times.p99}
                 for name, times in report.overall.times_s.items()}
    return plain({
        "schema": "serried/serve-simulate/1", "ttft_s": latencies["ttft"], "tpot_s": latencies["tpot"],
        "e2e_s": latencies["e2e"], "queue_s": latencies["queue"],
        "classes": list(report.classes),
        "output_tokens_per_s": report.output_tokens_per_s,
        "output_tokens_per_s_per_chip": report.output_tokens_per_s_per_chip,
        "input_tokens_per_s": report.input_tokens_per_s,
        "goodput_requests_per_s": report.goodput_requests_per_s,
        "goodput_tokens_per_s": report.goodput_tokens_per_s,
        "goodput_tokens_per_s_per_chip": report.goodput_tokens_per_s_per_chip, "attainment": report.attainment,
        "usd_per_million_tokens": {"input": report.price.input_usd_per_million,
                                   "output": report.price.output_usd_per_million,
                                   "cached": report.price.cached_usd_per_million},
        "total_usd": report.price.total_usd, "j_per_output_token": report.j_per_output_token,
        "requests": report.requests, "served": report.served, "refused": report.refused,
        "preemptions": report.preemptions, "cached_ratio": report.cached_ratio, "busy_fraction": report.busy_fraction,
        "duration_s": report.duration_s, "chip_count": report.chip_count,
        "pools": [{"chip": plan.machine.chip.name, "engine": plan.profile.name, "stack": plan.machine.stack.name,
                   "evidence_class": plan.machine.profile.evidence_class, "deployment": plan.row.row(0)}
                  for plan in plans],
        "interval_80": {name: {"low": low, "high": high} for name, (low, high) in run.spreads.items()},
        "timing": {"items": len(run.load), "unit": "requests", "wall_s": run.wall_s}})
