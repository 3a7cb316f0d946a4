"""`serried plan MODEL --fleet F`: the best layouts of a training job, or the best deployments of a serving one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from serried.cli.arguments import one_pool, parse_job, parse_pins
from serried.cli.plan_files import EMITTERS, EXPRESSIBLE, emitters, write_plan
from serried.cli.plan_traffic import DEFAULT_ENGINE, SPACE_PINS, is_traffic, load_of, plan_traffic, question_of
from serried.cli.plan_traffic_files import SERVING_EMITTERS, EmitWords
from serried.display.page import page
from serried.display.plain import plain
from serried.display.plan import plan_sections, print_plan
from serried.display.progress import progress_bar
from serried.display.terminal import console
from serried.errors import BadInput, NoAnswer
from serried.evidence.intervals import interval
from serried.fabric import read_fleet
from serried.files import write_whole
from serried.planner import LEGALITY, Machine, SearchResult, machine_of, search_training, timeline
from serried.serving.objectives import parse_objectives
from serried.software import read_stack
from serried.workload import Training, read_model

__all__ = ["command"]

#: What a search leaves alone unless it is asked: 74 million layouts of a large mixture of experts are 3.7 million
#: without them, and nobody picks a format or gives up overlap for speed alone.
PINNED: Mapping[str, Sequence[object]] = {"number_format": ["bf16"], "overlap_data": [True], "overlap_tensor": [False]}
CHOICES = ("tp", "cp", "pp", "ep", "expert_tp", "virtual_stages", "micro_batch", "sharding", "recompute", "schedule",
           "number_format", "sequence_parallel", "overlap_data", "overlap_tensor")


def command(
    model: Annotated[str, typer.Argument(help="a model of the catalogue, or a path to a config.json")],
    fleet: Annotated[str, typer.Option(help="CHIP:COUNT, a fleet of the catalogue, or a fleet file")],
    train: Annotated[str | None, typer.Option(help="SEQxGLOBAL_BATCH, in tokens x sequences")] = None,
    serve: Annotated[str | None, typer.Option(help="INPUT/OUTPUT@CONCURRENCY; or a load in time: trace:FILE, "
                                                   "poisson:RATE:INPUT/OUTPUT")] = None,
    slo: Annotated[str | None, typer.Option(help="with --serve: ttft=2s,tpot=50ms, by class if need be")] = None,
    attain: Annotated[float, typer.Option(help="share of requests that must keep the objectives")] = 0.9,
    engine: Annotated[str, typer.Option(help="the serving engine: its batching rules and costs; ray = --workers-on ray"
                        )] = DEFAULT_ENGINE,
    drafts: Annotated[str | None, typer.Option(help="also with drafts of this acceptance: 0.8,0.6")] = None,
    router: Annotated[str, typer.Option(help="round_robin, least_loaded or prefix")] = "least_loaded",
    first: Annotated[int, typer.Option(min=0, help="only so many requests of the load; 0 = all")] = 0,
    drop_longer: Annotated[bool, typer.Option(help="leave out requests beyond the model's context")] = False,
    scale_rate: Annotated[float, typer.Option(help="so many times as many requests a second")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="of everything that is drawn")] = 0,
    workers: Annotated[int, typer.Option(min=1, max=512, help="processes that simulate")] = 1,
    workers_on: Annotated[str, typer.Option(help="processes or ray")] = "processes",
    resource: Annotated[str | None, typer.Option(help="extended resource of the chips in Kubernetes")] = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="how many to show, best first")] = 10,
    stack: Annotated[str | None, typer.Option(help="the software; default: the best known on this chip")] = None,
    profile: Annotated[str | None, typer.Option(help="the kernel profile, as `calibrate` writes it")] = None,
    collectives: Annotated[str | None, typer.Option(help="the collectives, as `calibrate` writes them")] = None,
    pin: Annotated[str | None, typer.Option(help="choices to fix, e.g. tp=8,pp=4|8,recompute=full")] = None,
    everything: Annotated[bool, typer.Option("--all", help="search formats and overlap too (minutes)")] = False,
    objective: Annotated[str | None, typer.Option(help="training: step_time or usd_per_token; a load in time: goodput "
                                                       "(a chip) or usd_per_token")] = None,
    emit: Annotated[str | None, typer.Option(help=f"files of the best: {', '.join(EMITTERS)}; of a load in time: "
                                                  f"{', '.join(SERVING_EMITTERS)}; comma-separated")] = None,
    out: Annotated[Path, typer.Option(help="folder for what is emitted")] = Path("plan"),
    html: Annotated[Path | None, typer.Option(help="write one self-contained page")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """Search every legal layout of a job on a fleet."""
    if serve is not None and not train and is_traffic(serve, slo):
        wanted = emitters(emit, SERVING_EMITTERS)
        chosen = read_model(model)
        if engine == "ray":   # the one word that is not an engine of serving
            engine, workers_on = DEFAULT_ENGINE, "ray"
        load = load_of(serve, first=first, seed=seed, context_tokens=chosen.max_positions, drop_longer=drop_longer,
                       rate=scale_rate)
        plan_traffic(
            question_of(chosen, read_fleet(fleet), load, parse_objectives(slo), engine=engine, stack=stack,
                        library=profile, pins=parse_pins(pin, SPACE_PINS), drafts=drafts,
                        attain=attain, ranking=objective or "goodput", router=router, seed=seed,
                        whole_experts="vllm" in wanted),
            serve, top=top, workers=workers, workers_on=workers_on, emit=wanted,
            emit_words=EmitWords(resource=resource), out=out, html=html, as_json=as_json)
        return
    job = parse_job(read_model(model), train, serve)
    pool = one_pool(fleet, "--fleet", collectives=collectives)
    wanted = emitters(emit, EMITTERS if isinstance(job, Training) else SERVING_EMITTERS)
    if not isinstance(job, Training):
        from serried.cli.plan_serving import plan_serving

        plan_serving(job, pool, stack=stack, library=profile, top=top, emit=wanted, as_json=as_json, html=html,
                     pins=parse_pins(pin, ("weight_formats", "cache_formats")))
        return
    choices: dict[str, Any] = {} if everything else dict(PINNED)
    for name in wanted:
        choices |= EXPRESSIBLE.get(name, {})
    choices |= parse_pins(pin, CHOICES)
    machine = machine_of(pool, stack=None if stack is None else read_stack(stack, pool.chip.family), library=profile)
    _plan_training(job, machine, choices, pin=pin, top=top, objective=objective or "step_time", wanted=wanted, out=out,
                   html=html, as_json=as_json)


def _plan_training(job: Training, machine: Machine, choices: Mapping[str, Any], *, pin: str | None, top: int,
                   objective: str, wanted: Sequence[str], out: Path, html: Path | None, as_json: bool) -> None:
    """Search, print, and write what is to be written."""
    with progress_bar("layouts", quiet=as_json) as report:
        try:
            found = search_training(job, machine, top=top, objective=objective, bounded=True, progress=report and (
                lambda done, _: report(done, done)), **choices)
        except NoAnswer as error:
            _refuse_pins(pin, error)
            raise
    spread = interval("training", machine.profile.evidence_class, machine.stack.name)
    written = write_plan(job, machine, found, wanted, out) if wanted else []
    if html is not None:
        spans = timeline(found.estimate, found.layouts, 0)
        title = f"{job.model.name} on {machine.chip_count} {machine.chip.name}"
        write_whole(html, page(title, _lead(job, machine), plan_sections(found, machine, spread, spans),
                              footer="serried plan; intervals are 80 %."))
    if as_json:
        print(json.dumps(_answer(job, machine, found, spread, written)))
        return
    screen = console()
    screen.print(_lead(job, machine), markup=False)
    print_plan(found, machine, spread, screen, searched=choices)
    for path in [*written, *([html] if html else [])]:
        screen.print(f"written: {path}", markup=False)


def _refuse_pins(pin: str | None, error: NoAnswer) -> None:
    """BadInput when what is pinned breaks a law that no layout escapes; `binding` names it."""
    rule = next((rule for rule in LEGALITY if rule.name == error.binding), None)
    if pin and rule is not None:
        raise BadInput(field="--pin", value=pin, expected=f"a layout that can exist, but {rule.broken} (the rule "
                       f"{rule.name!r})", remedy=f"{rule.remedy[:1].upper()}{rule.remedy[1:]}") from None


def _lead(job: Training, machine: Machine) -> str:
    return (f"{job.model.name}, {job.sequence_tokens:,} tokens x {job.global_batch_sequences:,} sequences a step, on "
            f"{machine.chip_count:,} {machine.chip.name} ({machine.fabric.name}), {machine.stack.name}")


def _answer(job: Training, machine: Machine, found: SearchResult, spread: tuple[float, float],
            written: Sequence[Path]) -> dict[str, Any]:
    estimate, rows = found.estimate, []
    for row in range(len(found.layouts)):
        time_s = float(estimate.time_s[row])
        rows.append({
            "layout": found.layouts.row(row), "step_time_s": time_s, "low_s": time_s * spread[0],
            "high_s": time_s * spread[1], "tokens_per_s_per_chip": estimate.tokens / time_s / machine.chip_count,
            "time_by_cause_s": {cause: float(column[row]) for cause, column in estimate.time_by_cause_s.items()},
            "memory_bytes": float(estimate.memory_bytes[row]),
            "memory_by_cause_bytes": {cause: float(column[row])
                                      for cause, column in estimate.memory_by_cause_bytes.items()},
            "energy_j": float(estimate.energy_j[row]), "price_usd": float(estimate.price_usd[row])})
    answer: dict[str, Any] = plain({
        "schema": "serried/plan/1", "job": {"model": job.model.name, "sequence_tokens": job.sequence_tokens,
                                            "global_batch_sequences": job.global_batch_sequences},
        "chip": machine.chip.name, "chip_count": machine.chip_count, "stack": machine.stack.name,
        "evidence_class": machine.profile.evidence_class, "layouts": rows, "evaluated": found.evaluated,
        "fitting": found.fitting, "rejected": found.rejected, "written": [str(path) for path in written],
        "timing": {"items": found.evaluated, "unit": "layouts", "wall_s": found.wall_s}})
    return answer
