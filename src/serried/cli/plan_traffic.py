"""`serried plan --serve trace:... --slo ...`: the deployments that serve this traffic best."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serried.cli.arguments import parse_serving
from serried.cli.serving_words import TrafficWords, requests_of_words
from serried.display.page import page, write_page
from serried.display.plain import plain
from serried.display.progress import progress_bar
from serried.display.spec import Section
from serried.display.terminal import console, table
from serried.emit.engines import ENGINES, kubernetes_manifest, launch_script
from serried.errors import BadInput
from serried.fabric import read_fleet
from serried.serving.objectives import parse_objectives
from serried.serving.profile import read_engine
from serried.serving.traffic_search import Mapper, TrafficPlan, TrafficSearch, search_traffic, serial
from serried.software import read_stack
from serried.traffic import Requests, cut, scaled, within
from serried.units import significant
from serried.workload import Model, Serving

__all__ = ["TrafficOptions", "is_traffic", "load_of", "plan_traffic"]

DEFAULT_OBJECTIVES = "ttft=2s,tpot=50ms"
_SOURCES = ("trace", "poisson", "constant", "gamma", "burst", "diurnal", "sessions")
_EMITTED = ("vllm", "sglang", "kubernetes")
_WAVES = 6
_HEADER = ("", "goodput a chip", "tokens/s", "chips", "TTFT p50 / p99", "TPOT p50", "kept", "usd/M in, out", "J/token",
           "deployment")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficOptions:
    """What a search under traffic is asked beside the model, the fleet and the load."""

    slo: str | None = None
    workers: int = 2
    engine: str = "local"
    serving_engine: str = "vllm"
    stack: str | None = None
    top: int = 10
    seed: int = 0
    requests: int = 600
    scale_rate: float = 1.0
    attainment: float = 0.9
    pins: Mapping[str, Sequence[Any]] | None = None


def is_traffic(serve: str | None, slo: str | None) -> bool:
    """Whether the words ask for traffic through time, rather than for a steady load by formulas."""
    return bool(serve) and (bool(slo) or str(serve).split(":")[0] in _SOURCES)


def load_of(text: str, model: Model, *, requests: int, scale_rate: float, seed: int) -> tuple[Requests, str]:
    """`trace:FILE`, `poisson:RATE[/INPUT/OUTPUT]`, ... or INPUT/OUTPUT@CONCURRENCY: requests that the model's context
    holds, and a remark on those that are left out."""
    source, _, rest = text.partition(":")
    if source == "trace":
        everything = scaled(requests_of_words(TrafficWords(trace=rest), seed), rate=scale_rate)
        held = within(everything, model.max_positions)
        if not len(held):
            raise BadInput(field="--serve", value=text, expected=f"requests of at most {model.max_positions:,} tokens, "
                           "the model's context", remedy="Take a model with a longer context.")
        left = len(everything) - len(held)
        remark = f"{left:,} of {len(everything):,} requests are longer than the model's context of " \
                 f"{model.max_positions:,} tokens and are left out." if left else ""
        return cut(held, count=requests), remark
    if source in _SOURCES:
        rate, *lengths = rest.split("/")
        words: dict[str, Any] = {source: float(rate) if source in ("poisson", "constant") else rate}
        if len(lengths) == 2:
            words |= {"input_tokens": int(lengths[0]), "output_tokens": int(lengths[1])}
        return scaled(requests_of_words(TrafficWords(requests=requests, **words), seed), rate=scale_rate), ""
    job: Serving = parse_serving(text, model)
    return requests_of_words(TrafficWords(
        concurrency=job.concurrency, requests=max(_WAVES * job.concurrency, 1), input_tokens=job.input_tokens,
        output_tokens=job.output_tokens), seed), ""


def plan_traffic(model: Model, fleet: str, serve: str, options: TrafficOptions, *, emit: Sequence[str], out: Path,
                 as_json: bool, html: Path | None) -> None:
    """Search, print, and write what is wanted."""
    for name in emit:
        if name not in _EMITTED:
            raise BadInput(field="--emit", value=name, expected=f"some of {', '.join(_EMITTED)} with --serve",
                           remedy="Separate them by commas.")
    pools = read_fleet(fleet).pools
    try:
        load, remark = load_of(serve, model, requests=options.requests, scale_rate=options.scale_rate,
                               seed=options.seed)
    except ValueError:
        raise BadInput(field="--serve", value=serve, expected="trace:FILE, poisson:RATE[/INPUT/OUTPUT] or "
                       "INPUT/OUTPUT@CONCURRENCY", remedy="For example --serve poisson:4/1024/256.") from None
    slo = options.slo or DEFAULT_OBJECTIVES
    formats: dict[str, Any] = dict(options.pins or {})
    stack = read_stack(options.stack, pools[0].chip.family) if options.stack else None
    began_s = time.perf_counter()
    with progress_bar("deployments", quiet=as_json) as report, _mapper(options) as mapper:
        found = search_traffic(model, pools, load, parse_objectives(slo), read_engine(options.serving_engine),
                               top=options.top, stack=stack, seed=options.seed, attainment=options.attainment,
                               mapper=mapper, progress=report, **formats)
    wall_s = time.perf_counter() - began_s
    written = _emit(model, found.plans[0], emit, out)
    lead = (f"{model.name} under {serve} ({len(load):,} requests), {slo}, on {fleet}, {options.serving_engine}. "
            f"{remark}")
    rows = [_row(place, plan) for place, plan in enumerate(found.plans, 1)]
    if html is not None:
        write_page(html, page("Best deployments", lead, [Section(title="Best first", header=_HEADER, rows=rows)]))
    if as_json:
        print(json.dumps(_answer(found, wall_s, slo, written)))
        return
    screen = console()
    screen.print(lead, markup=False)
    screen.print(table("Best deployments", _HEADER, rows))
    screen.print(f"\n* = nobody beats it in goodput per chip and in both latencies at once. {found.candidates:,} "
                 f"deployments bounded, {found.simulated:,} simulated, in {wall_s:.1f} s.", markup=False)
    for path in [*written, *([html] if html else [])]:
        screen.print(f"written: {path}", markup=False)


@contextlib.contextmanager
def _mapper(options: TrafficOptions) -> Iterator[Mapper]:
    """Here, on other processes, or on a Ray cluster: the answer is the same."""
    if options.engine == "ray":
        yield _ray_mapper()
    elif options.engine != "local":
        raise BadInput(field="--engine", value=options.engine, expected="local or ray", remedy="local is the default.")
    elif options.workers <= 1:
        yield serial
    else:
        with concurrent.futures.ProcessPoolExecutor(options.workers,
                                                    mp_context=multiprocessing.get_context("spawn")) as pool:
            yield lambda function, tasks: list(pool.map(function, tasks))


def _ray_mapper() -> Mapper:
    try:
        import ray
    except ModuleNotFoundError:
        raise BadInput(field="--engine", value="ray", expected="an installed Ray",
                       remedy="pip install serried[ray], or leave --engine out.") from None
    ray.init(ignore_reinit_error=True, logging_level="ERROR")

    def on_cluster(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        remote = ray.remote(function)
        found: list[Any] = ray.get([remote.remote(task) for task in tasks])
        return found

    return on_cluster


def _words(plan: TrafficPlan) -> str:
    names = ("prefill", "decode") if len(plan.pools) == 2 else ("",)
    parts = []
    for name, pool in zip(names, plan.pools, strict=True):
        degrees = ",".join(f"{key}={value}" for key, value in pool.row.row(0).items()
                           if key in ("tp", "replicas") or value not in (0, 1, True, "bf16"))
        parts.append(f"{name}:{degrees}" if name else degrees)
    return ";".join(parts)


def _row(place: int, plan: TrafficPlan) -> list[str]:
    report = plan.report
    ttft, tpot = report.overall.times_s["ttft"], report.overall.times_s["tpot"]
    price = report.price
    return [f"{place}{'*' if plan.on_front else ''}", f"{report.goodput_tokens_per_s_per_chip:,.1f}",
            f"{report.output_tokens_per_s:,.0f}", f"{report.chip_count:,}",
            f"{ttft.p50 * 1e3:,.0f} / {ttft.p99 * 1e3:,.0f} ms", f"{tpot.p50 * 1e3:,.1f} ms",
            f"{report.attainment:.0%}",
            f"{_money(price.input_usd_per_million)}, {_money(price.output_usd_per_million)}",
            _money(report.j_per_output_token), _words(plan)]


def _money(value: float) -> str:
    return significant(value) if value == value else "?"


def _answer(found: TrafficSearch, wall_s: float, slo: str, written: Sequence[Path]) -> Any:
    return plain({
        "schema": "serried/plan-traffic/1", "objectives": slo, "candidates": found.candidates,
        "simulated": found.simulated, "pruned": found.pruned, "written": [str(path) for path in written],
        "deployments": [{
            "deployment": _words(plan), "keeps_objectives": plan.keeps, "on_front": plan.on_front,
            "goodput_bound_tokens_per_s_per_chip": plan.bound,
            "pools": [{"chip": pool.machine.chip.name, **pool.row.row(0)} for pool in plan.pools],
            "ttft_s": plan.report.overall.times_s["ttft"], "tpot_s": plan.report.overall.times_s["tpot"],
            "e2e_s": plan.report.overall.times_s["e2e"], "attainment": plan.report.attainment,
            "chip_count": plan.report.chip_count, "output_tokens_per_s": plan.report.output_tokens_per_s,
            "goodput_tokens_per_s_per_chip": plan.report.goodput_tokens_per_s_per_chip,
            "usd_per_million_tokens": {"input": plan.report.price.input_usd_per_million,
                                       "output": plan.report.price.output_usd_per_million,
                                       "cached": plan.report.price.cached_usd_per_million},
            "j_per_output_token": plan.report.j_per_output_token} for plan in found.plans],
        "timing": {"items": found.candidates, "unit": "layouts", "wall_s": wall_s}})


def _emit(model: Model, plan: TrafficPlan, wanted: Sequence[str], folder: Path) -> list[Path]:
    """Files of the best plan; nothing is written when one of them cannot be."""
    texts = {}
    engine = next((name for name in wanted if name in ENGINES), plan.pools[-1].profile.name)
    for name in wanted:
        if name == "kubernetes":
            texts["kubernetes.json"] = kubernetes_manifest(engine if engine in ENGINES else "vllm", model, plan.pools)
        else:
            texts[f"{name}.sh"] = launch_script(name, model, plan.pools)
    if texts:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(field="--out", value=str(folder), expected="a folder that can be written",
                           remedy=f"{error.strerror}; nothing was written.") from None
    for file, text in texts.items():
        write_page(folder / file, text)
    return [folder / file for file in texts]
