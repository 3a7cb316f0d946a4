"""`serried serve simulate MODEL --fleet F --layout L --trace T`: requests through time on one deployment."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from serried.cli.serving_words import TraceChanges, TrafficWords, parse_layout, pool_plans, traffic_of_words
from serried.display.page import page
from serried.display.plain import plain
from serried.display.progress import progress_bar
from serried.display.serving import print_report, report_sections
from serried.display.terminal import console
from serried.emit.request_log import request_table, spans_json, write_request_log
from serried.engine import SimulationLog, simulate
from serried.errors import BadInput
from serried.evidence.intervals import interval
from serried.fabric import read_fleet
from serried.files import write_whole
from serried.planner.spec import FORMATS
from serried.serving.cluster import PoolPlan, cluster_of
from serried.serving.objectives import parse_objectives
from serried.serving.profile import read_engine
from serried.serving.report import ServingReport, report_of, request_times_s
from serried.serving.spec import CACHE_FORMATS
from serried.traffic import Requests
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
    input_tokens: Annotated[str, typer.Option("--input", help="tokens of a prompt: 1024, 512-1024, or MEDIAN:SIGMA "
                                                              "for a long tail")] = "1024",
    output_tokens: Annotated[str, typer.Option("--output", help="tokens of an answer, likewise")] = "256",
    lengths_of: Annotated[str | None, typer.Option(help="a trace whose lengths are drawn instead")] = None,
    shortest: Annotated[float, typer.Option("--range", help="shortest lengths over the longest")] = 1.0,
    requests: Annotated[int, typer.Option(help="how many requests")] = 1000,
    duration: Annotated[float, typer.Option(help="seconds of client traffic")] = 3600.0,
    scale_rate: Annotated[float, typer.Option(help="so many times as many requests a second")] = 1.0,
    scale_length: Annotated[float, typer.Option(help="prompts and answers so many times as long")] = 1.0,
    window: Annotated[str | None, typer.Option(help="only what arrives between two times: BEGIN_S:END_S")] = None,
    first: Annotated[int, typer.Option(min=0, help="only the first so many requests of the trace; 0 = all")] = 0,
    repeat: Annotated[int, typer.Option(min=0, help="end to end until so many requests; 0 = once")] = 0,
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
    warm_up: Annotated[float, typer.Option(min=0, help="seconds at the beginning whose requests are not counted in "
                                                       "latencies and rates")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="of everything that is drawn")] = 0,
    log: Annotated[Path | None, typer.Option(help="write every request: .csv or .parquet")] = None,
    timeline: Annotated[Path | None, typer.Option(help="write what the engines did, for ui.perfetto.dev")] = None,
    html: Annotated[Path | None, typer.Option(help="write one self-contained page")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """Simulate requests through time on one deployment: latencies, goodput, money and watts."""
    _refuse_unwritable({"--log": log, "--timeline": timeline, "--html": html})
    chosen, objectives = read_model(model), parse_objectives(slo)
    profile = read_engine(engine).with_settings(**_changes(max_sequences, budget, drafts))
    plans = pool_plans(chosen, read_fleet(fleet), parse_layout(layout, weight_format=_known(weights, cache),
                                                               cache_format=cache), profile, stack=stack, router=router)
    words = TrafficWords(trace=trace, poisson=poisson, constant=constant, gamma=gamma, burst=burst, diurnal=diurnal,
                         sessions=sessions, concurrency=concurrency, clients=clients, input_tokens=input_tokens,
                         output_tokens=output_tokens, lengths_of=lengths_of, shortest_ratio=shortest,
                         requests=requests, duration_s=duration)
    changes = TraceChanges(rate=scale_rate, length=scale_length, window=window, first=first, repeat=repeat,
                           drop_longer=drop_longer)
    load = traffic_of_words(words, changes, seed, context_tokens=chosen.max_positions)
    objectives.refuse_unknown(load.class_names)
    cluster = cluster_of(chosen, plans[-1], *plans[:-1], host_memory_bytes=host_memory * 1e9)
    started_s = time.perf_counter()
    with progress_bar("requests", quiet=as_json) as report_progress:
        found = simulate(load, cluster, seed=seed, progress=report_progress, keep_spans=True)
    wall_s = time.perf_counter() - started_s
    run = Run(title=_lead(chosen, plans, load), load=load, log=found, plans=plans, seed=seed, wall_s=wall_s,
              report=report_of(load, found, plans, objectives, warm_up_s=warm_up), spreads=_spreads(plans))
    _write(run, log, timeline, html)
    _tell(run, filter(None, (log, timeline, html)), as_json=as_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One simulation and what is told of it."""

    title: str
    load: Requests
    log: SimulationLog
    plans: Sequence[PoolPlan]
    seed: int
    report: ServingReport
    spreads: Mapping[str, tuple[float, float]]
    wall_s: float

    @property
    def ended(self) -> int:
        """Requests that were served or refused."""
        return int(((self.log.last_token_ns_R >= 0) | (self.log.reason_R != 0)).sum())

    @property
    def is_interrupted(self) -> bool:
        """Whether some had not ended."""
        return self.ended < len(self.load)


def _refuse_unwritable(files: Mapping[str, Path | None]) -> None:
    """BadInput before the work rather than after it."""
    for field, path in files.items():
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise BadInput(field=field, value=str(path), expected="a file in a folder that exists",
                           remedy="Make the folder first; nothing was simulated.")
    log = files["--log"]
    if log is not None and log.suffix not in (".csv", ".parquet"):
        raise BadInput(field="--log", value=str(log), expected="a name that ends in .csv or .parquet",
                       remedy="The ending chooses the form.")


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


def _write(run: Run, log: Path | None, timeline: Path | None, html: Path | None) -> None:
    outside_s = run.plans[-1].profile.request_s
    if log is not None:
        write_request_log(log, request_table(run.load, run.log, outside_s=outside_s, finished_only=run.is_interrupted))
    if timeline is not None:
        write_whole(timeline, spans_json(run.log, title=run.title))
    if html is not None:
        times_s = request_times_s(run.load, run.log, outside_s=outside_s)
        write_whole(html, page("Requests through time", run.title, report_sections(
            run.report, run.log, times_s, spreads=run.spreads),
            footer=f"serried serve simulate, seed {run.seed}; intervals are 80 %, evidence: "
                   f"{run.plans[-1].machine.profile.evidence_class}."))


def _tell(run: Run, written: Iterable[Path], *, as_json: bool) -> None:
    """Print the answer; exit code 130 when the run was interrupted."""
    if as_json:
        print(json.dumps(_answer(run)))
    else:
        screen = console()
        screen.print(run.title, markup=False)
        print_report(run.report, screen, spreads=run.spreads)
        screen.print(f"\n{run.ended:,} requests simulated in {run.wall_s:.2f} s. Evidence: "
                     f"{run.plans[-1].machine.profile.evidence_class}.", markup=False)
        for path in written:
            screen.print(f"written: {path}", markup=False)
    if run.is_interrupted:
        print(f"interrupted: {run.ended:,} of {len(run.load):,} requests had ended; only these are counted and in the "
              "log", file=sys.stderr)
        raise typer.Exit(130)


def _spreads(plans: Sequence[PoolPlan]) -> dict[str, tuple[float, float]]:
    """Factors of the 80 % interval around each kind of figure; what has no residuals of its own has those of all."""
    kind, pools = plans[-1].machine.profile.evidence_class, "disaggregated " if len(plans) > 1 else ""
    found = {name: interval("serving", kind, pools + name) for name in ("ttft", "tpot", "e2e", "queue", "throughput")}
    return found | {"inter_token": found["tpot"]}


def _answer(run: Run) -> Any:
    report = run.report
    latencies = {f"{name}_s": times for name, times in report.overall.times_s.items()}
    rates = ("output_tokens_per_s", "output_tokens_per_s_per_chip", "input_tokens_per_s", "goodput_requests_per_s",
             "goodput_tokens_per_s", "goodput_tokens_per_s_per_chip", "attainment", "j_per_output_token", "requests",
             "served", "refused", "preemptions", "cached_ratio", "busy_fraction", "peak_blocks", "duration_s",
             "measured_s", "chip_count")
    return plain({
        "schema": "serried/serve-simulate/1", **latencies, "inter_token_s": report.inter_token_s,
        "classes": report.classes, **{name: getattr(report, name) for name in rates},
        "usd_per_million_tokens": {"input": report.price.input_usd_per_million,
                                   "output": report.price.output_usd_per_million,
                                   "cached": report.price.cached_usd_per_million},
        "total_usd": report.price.total_usd, "seed": run.seed, "interrupted": run.is_interrupted,
        "pools": [{"chip": plan.machine.chip.name, "engine": plan.profile.name, "stack": plan.machine.stack.name,
                   "evidence_class": plan.machine.profile.evidence_class, "deployment": plan.row.row(0)}
                  for plan in run.plans],
        "interval_80": {name: {"low": low, "high": high} for name, (low, high) in run.spreads.items()},
        "timing": {"items": run.ended, "unit": "requests", "wall_s": run.wall_s}})
