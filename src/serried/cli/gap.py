"""`serried gap MODEL --fleet F --rival R`: how far, at which layer, what next; `--measured`: which layer is missing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from serried.cli.arguments import check_format, one_pool, parse_job
from serried.cli.gap_traffic import TrafficSides, explain_traffic
from serried.cli.plan_traffic import DEFAULT_ENGINE, is_traffic
from serried.display.gap import gap_sections, headline, print_gap
from serried.display.page import page
from serried.display.plain import plain
from serried.display.progress import progress_bar
from serried.display.terminal import console
from serried.errors import BadInput
from serried.fabric import Pool
from serried.files import write_whole
from serried.insight import Waterfall, gap_serving, gap_training
from serried.software import Stack, read_stack, stack_for
from serried.workload import Serving, Training, read_model

__all__ = ["command"]


def command(
    model: Annotated[str, typer.Argument(help="a model of the catalogue, or a path to a config.json")],
    fleet: Annotated[str, typer.Option(help="CHIP:COUNT, a fleet of the catalogue, or a fleet file")],
    rival: Annotated[str, typer.Option(help="the same, for the other side")],
    train: Annotated[str | None, typer.Option(help="SEQxGLOBAL_BATCH, in tokens x sequences")] = None,
    serve: Annotated[str | None, typer.Option(help="INPUT/OUTPUT@CONCURRENCY; or a load in time: trace:FILE, "
                                                   "poisson:RATE:INPUT/OUTPUT")] = None,
    slo: Annotated[str | None, typer.Option(help="with --serve: ttft=2s,tpot=50ms, by class if need be")] = None,
    attain: Annotated[float, typer.Option(help="share of requests that must keep the objectives")] = 0.9,
    engine: Annotated[str, typer.Option(help="the fleet's serving engine")] = DEFAULT_ENGINE,
    rival_engine: Annotated[str | None, typer.Option(help="the rival's; or the same")] = None,
    first: Annotated[int, typer.Option(min=0, help="only so many requests of the load; 0 = all")] = 0,
    drop_longer: Annotated[bool, typer.Option(help="leave out requests beyond the model's context")] = False,
    workers: Annotated[int, typer.Option(min=1, max=512, help="processes that simulate a load in time")] = 1,
    stack: Annotated[str | None, typer.Option(help="the fleet's software; default: the best known on its chip")] = None,
    rival_stack: Annotated[str | None, typer.Option(help="the rival's software; the same default")] = None,
    profile: Annotated[str | None, typer.Option(help="the fleet's kernel profile, as `calibrate` writes it")] = None,
    rival_profile: Annotated[str | None, typer.Option(help="the rival's kernel profile")] = None,
    collectives: Annotated[str | None, typer.Option(help="the fleet's collectives, as `calibrate` writes them")] = None,
    number_format: Annotated[str, typer.Option("--format", help="number format of the fleet's products")] = "bf16",
    rival_number_format: Annotated[str | None, typer.Option("--rival-format", help="the rival's; or the same")] = None,
    measured: Annotated[Path | None, typer.Option(help="your own points: which layers are missing?")] = None,
    recalibrate: Annotated[Path | None, typer.Option(help="with --measured: write the stack found")] = None,
    seed: Annotated[int, typer.Option(help="of the draws behind the intervals")] = 0,
    html: Annotated[Path | None, typer.Option(help="write one self-contained page")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """Explain the gap between a fleet and a rival, layer by layer."""
    if serve is not None and not train and is_traffic(serve, slo):
        explain_traffic(
            TrafficSides(model=read_model(model), fleets=(fleet, rival), stacks=(stack, rival_stack),
                         libraries=(profile, rival_profile), engines=(engine, rival_engine or engine),
                         formats=(number_format, rival_number_format or number_format)),
            serve, slo, attain=attain, first=first, drop_longer=drop_longer, seed=seed, workers=workers, html=html,
            as_json=as_json)
        return
    job = parse_job(read_model(model), train, serve)
    pools = one_pool(fleet, "--fleet", collectives=collectives), one_pool(rival, "--rival")
    check_format(pools[0], number_format, "--format")
    check_format(pools[1], rival_number_format or number_format, "--rival-format")
    kind = "training" if isinstance(job, Training) else "serving"
    stacks = [_stack(name, pool, kind) for name, pool in zip((stack, rival_stack), pools, strict=True)]
    if measured is not None:
        from serried.cli.diagnose import diagnose_measured

        diagnose_measured(measured, job, pools[0], stacks[0], recalibrate=recalibrate, as_json=as_json, library=profile)
        return
    if recalibrate is not None:
        raise BadInput(field="--recalibrate", value=str(recalibrate), expected="to stand beside --measured",
                       remedy="Add --measured FILE with your own points.")
    started_s = time.perf_counter()
    with progress_bar("simulating every subset of layers", quiet=as_json):
        answer = _gap(job, pools, stacks, {
            "number_format": number_format, "rival_number_format": rival_number_format or number_format, "seed": seed,
            "library": profile, "rival_library": rival_profile})
    wall_s = time.perf_counter() - started_s
    if html is not None:
        write_whole(html, page(_title(answer), f"{answer.job}. {headline(answer)}",
                              gap_sections(answer), footer=f"serried gap, seed {seed}; intervals are 80 %."))
    if as_json:
        print(json.dumps({"schema": "serried/gap/1", **plain(answer),
                          "timing": {"items": answer.evaluated, "unit": "layouts", "wall_s": wall_s}}))
        return
    screen = console()
    print_gap(answer, screen)
    if html is not None:
        screen.print(f"page written: {html}", markup=False)


def _title(answer: Waterfall) -> str:
    return " against ".join(f"{side.chip_count} {side.chip}" for side in (answer.fleet, answer.rival))


def _gap(job: Training | Serving, pools: tuple[Pool, Pool], stacks: list[Stack], options: dict[str, Any]) -> Waterfall:
    if isinstance(job, Training):
        return gap_training(job, *pools, stack=stacks[0], rival_stack=stacks[1], **options)
    return gap_serving(job, *pools, stack=stacks[0], rival_stack=stacks[1], **options)


def _stack(name: str | None, pool: Pool, kind: str) -> Stack:
    if name is None:
        return stack_for(pool.chip.family, "training" if kind == "training" else "serving")
    return read_stack(name, pool.chip.family)
