"""`serried plan --serve trace:FILE --slo ...`: the best deployments of a load in time."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from serried.cli.arguments import check_format
from serried.cli.plan_traffic_files import EmitWords, write_launches
from serried.cli.serving_words import TrafficWords, requests_of_words
from serried.display.page import page
from serried.display.plain import plain
from serried.display.plan_traffic import plan_traffic_sections, print_plan_traffic
from serried.display.progress import progress_bar
from serried.display.terminal import console
from serried.engine import ROUTERS
from serried.errors import BadInput
from serried.evidence.intervals import interval
from serried.fabric import Fleet
from serried.files import write_whole
from serried.serving import serving_machine
from serried.serving.candidates import Space
from serried.serving.objectives import Objectives
from serried.serving.profile import read_engine
from serried.serving.traffic_search import RANKINGS, Question, TrafficSearch, Trial, search_traffic
from serried.software import read_stack, stack_for
from serried.traffic import Requests, cut, refuse_beyond, scaled, within
from serried.workload import Model

__all__ = ["DEFAULT_ENGINE", "SPACE_PINS", "is_traffic", "load_of", "plan_traffic", "question_of"]

DEFAULT_ENGINE = "vllm"
#: Choices of the search that --pin may fix.
SPACE_PINS = ("weight_formats", "cache_formats", "max_sequences", "token_budgets", "disaggregated", "aggregated")
_SOURCES = ("trace", "poisson", "constant", "gamma", "burst", "diurnal", "sessions")


def is_traffic(serve: str | None, slo: str | None) -> bool:
    """Whether the words of --serve ask for a load in time: a source by name, or objectives beside a steady load."""
    return bool(serve) and (bool(slo) or str(serve).partition(":")[0] in _SOURCES)


def load_of(serve: str, *, first: int, seed: int, context_tokens: int, drop_longer: bool = False,
            rate: float = 1.0) -> Requests:
    """The load that --serve names: trace:FILE, poisson:RATE:INPUT/OUTPUT, ..., or INPUT/OUTPUT@CONCURRENCY."""
    source, colon, rest = serve.partition(":")
    count = first or 1000
    if source == "trace" and colon:
        load = requests_of_words(TrafficWords(trace=rest), seed,
                                 context_tokens=0 if drop_longer else context_tokens)
        load = cut(load, count=first) if first else load
    elif source in _SOURCES and colon:
        said, _, lengths = rest.rpartition(":")
        input_tokens, output_tokens = _lengths(lengths, serve)
        value: Any = said
        if source in ("poisson", "constant"):
            value = _rate(said, serve)
        load = requests_of_words(TrafficWords(input_tokens=input_tokens, output_tokens=output_tokens, requests=count,
                                              **{source: value}), seed)
    else:
        lengths, at, concurrency = serve.partition("@")
        input_tokens, output_tokens = _lengths(lengths, serve)
        if not at or not concurrency.isdigit() or not 1 <= int(concurrency) <= 10**6:
            raise _not_a_load(serve)
        load = requests_of_words(TrafficWords(concurrency=int(concurrency), input_tokens=input_tokens,
                                              output_tokens=output_tokens, requests=first or 8 * int(concurrency)),
                                 seed)
    load = within(load, context_tokens) if drop_longer else load
    refuse_beyond(load, context_tokens, file=serve)
    return scaled(load, rate=rate)


def _lengths(text: str, serve: str) -> tuple[int, int]:
    parts = text.split("/")
    if len(parts) != 2 or not all(part.isdigit() and 1 <= int(part) <= 10**7 for part in parts):
        raise _not_a_load(serve)
    return int(parts[0]), int(parts[1])


def _rate(text: str, serve: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _not_a_load(serve) from None


def _not_a_load(serve: str) -> BadInput:
    return BadInput(field="--serve", value=serve, expected="trace:FILE, poisson:RATE:INPUT/OUTPUT (or constant, gamma, "
                    "burst, diurnal, sessions), or INPUT/OUTPUT@CONCURRENCY",
                    remedy="Write for example poisson:8:1024/256 or trace:mooncake-synthetic.")


def question_of(model: Model, fleet: Fleet, load: Requests, objectives: Objectives, *, engine: str, stack: str | None,
                library: str | None, pins: Mapping[str, Sequence[Any]], drafts: str | None, attain: float,
                ranking: str, router: str, seed: int, whole_experts: bool = False) -> Question:
    """What the words ask, on every pool of the fleet."""
    profile = read_engine(engine)
    machines = []
    for pool in fleet.pools:
        chosen = read_stack(stack, pool.chip.family) if stack else stack_for(pool.chip.family, "serving",
                                                                              profile.stack)
        machines.append(serving_machine(pool, chosen, library=library))
        for value in pins.get("weight_formats", ()):
            check_format(pool, str(value), "--pin weight_formats")
    if not 0.0 < attain <= 1.0:
        raise BadInput(field="--attain", value=attain, expected="a share above 0, up to 1", remedy="Write 0.9.")
    if ranking not in RANKINGS:
        raise BadInput(field="--objective", value=ranking, expected=f"one of {', '.join(RANKINGS)}",
                       remedy="goodput ranks by tokens/s a chip that keep the objectives.")
    if router not in ROUTERS:
        raise BadInput(field="--router", value=router, expected=f"one of {', '.join(ROUTERS)}", remedy="Choose one.")
    space = Space(**{name: _choices(name, values) for name, values in pins.items()}, whole_experts=whole_experts)
    if drafts:
        space = replace(space, acceptances=((), _acceptance(drafts)))
    return Question(model=model, machines=machines, profile=profile, requests=load, objectives=objectives, space=space,
                    attain=attain, ranking=ranking, router=router, seed=seed)


def _choices(name: str, values: Sequence[Any]) -> Any:
    if name in ("disaggregated", "aggregated"):
        if list(values) not in (["yes"], ["no"]):
            raise BadInput(field=f"--pin {name}", value="|".join(map(str, values)), expected="yes or no",
                           remedy=f"Write --pin {name}=no.")
        return values[0] == "yes"
    if name in ("max_sequences", "token_budgets"):
        for value in values:
            if not isinstance(value, int) or not 1 <= value <= 1_000_000:
                raise BadInput(field=f"--pin {name}", value=value, expected="1 to 1,000,000",
                               remedy="Give whole numbers, separated by |.")
    return tuple(values)


def _acceptance(text: str) -> tuple[float, ...]:
    try:
        chances = tuple(float(part) for part in text.split(","))
    except ValueError:
        chances = ()
    if not chances or not all(0.0 <= chance <= 1.0 for chance in chances):
        raise BadInput(field="--drafts", value=text, expected="chances from 0 to 1, one for each position",
                       remedy="Write for example 0.8,0.6,0.4.")
    return chances


def plan_traffic(ask: Question, words: str, *, top: int, workers: int, workers_on: str, emit: Sequence[str],
                 emit_words: EmitWords, out: Path, html: Path | None, as_json: bool) -> None:
    """Search, print, and write what is to be written."""
    if workers_on not in ("processes", "ray"):
        raise BadInput(field="--workers-on", value=workers_on, expected="processes or ray", remedy="Choose one.")
    started_s = time.perf_counter()
    with progress_bar("deployments", quiet=as_json) as report:
        found = search_traffic(ask, top=top, workers=workers, engine=workers_on, progress=report)
    wall_s = time.perf_counter() - started_s
    spreads = {name: interval("serving", ask.machines[0].profile.evidence_class, name)
               for name in ("ttft", "tpot", "throughput")}
    written = write_launches(ask, found.best[0], emit, emit_words, out) if emit else []
    lead = (f"{ask.model.name}, {words} ({len(ask.requests):,} requests), on "
            + " + ".join(f"{machine.chip_count} {machine.chip.name}" for machine in ask.machines)
            + f", {ask.profile.name}")
    if html is not None:
        write_whole(html, page("Best deployments", lead, plan_traffic_sections(found, ask),
                              footer=f"serried plan, seed {ask.seed}; intervals are 80 %."))
    if as_json:
        print(json.dumps(_answer(ask, found, spreads, written, wall_s)))
        return
    screen = console()
    screen.print(lead, markup=False)
    print_plan_traffic(found, ask, screen, spreads=spreads, wall_s=wall_s)
    for path in [*written, *([html] if html else [])]:
        screen.print(f"written: {path}", markup=False)


def _answer(ask: Question, found: TrafficSearch, spreads: Mapping[str, tuple[float, float]], written: Sequence[Path],
            wall_s: float) -> Any:
    return plain({
        "schema": "serried/plan-traffic/1", "model": ask.model.name,
        "fleet": [{"chip": machine.chip.name, "chip_count": machine.chip_count, "stack": machine.stack.name,
                   "evidence_class": machine.profile.evidence_class} for machine in ask.machines],
        "engine": ask.profile.name, "objectives": ask.objectives.most_s, "attain": ask.attain, "ranking": ask.ranking,
        "requests": found.requests, "deployments": [_trial(trial) for trial in found.best],
        "others": [_trial(trial) for trial in found.others],
        "fewest_chips": min(trial.chips for trial in found.best), "candidates": found.candidates,
        "pruned": found.pruned, "glimpsed": found.glimpsed, "simulated": found.simulated,
        "undecided": found.undecided,
        "interval_80": {name: {"low": low, "high": high} for name, (low, high) in spreads.items()},
        "written": [str(path) for path in written],
        "timing": {"items": found.candidates, "unit": "layouts", "wall_s": wall_s}})


def _trial(trial: Trial) -> dict[str, Any]:
    roles = ("serve",) if len(trial.plans) == 1 else ("prefill", "decode")
    pools = [{"role": role, "chip": plan.machine.chip.name, "deployment": plan.row.row(0),
              "max_sequences": plan.profile.settings.max_sequences, "token_budget": plan.profile.settings.token_budget,
              "acceptance": list(plan.profile.settings.acceptance)}
             for role, plan in zip(roles, trial.plans, strict=True)]
    return {"pools": pools, "chips": trial.chips, "feasible": trial.feasible, "on_front": trial.on_front,
            **trial.figures}
