"""`serried gap --serve trace:FILE --slo ...`: the waterfall under a load in time."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from serried.cli.arguments import one_pool
from serried.cli.plan_traffic import load_of, question_of
from serried.display.page import page
from serried.display.plain import plain
from serried.display.progress import progress_bar
from serried.display.terminal import console
from serried.display.traffic_gap import print_traffic_gap, traffic_gap_sections, traffic_headline
from serried.fabric import Fleet
from serried.files import write_whole
from serried.insight import gap_traffic
from serried.serving.objectives import parse_objectives
from serried.workload import Model

__all__ = ["TrafficSides", "explain_traffic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSides:
    """What was said of the fleet and of the rival, in this order."""

    model: Model
    fleets: tuple[str, str]
    stacks: tuple[str | None, str | None]
    libraries: tuple[str | None, str | None]
    engines: tuple[str, str]
    formats: tuple[str, str]


def explain_traffic(sides: TrafficSides, serve: str, slo: str | None, *, attain: float, first: int, drop_longer: bool,
                    seed: int, workers: int, html: Path | None, as_json: bool) -> None:
    """Explain the gap and print it."""
    load = load_of(serve, first=first, seed=seed, context_tokens=sides.model.max_positions, drop_longer=drop_longer)
    asks = [question_of(sides.model, Fleet(name=fleet, pools=(one_pool(fleet, field),)), load, parse_objectives(slo),
                        engine=engine, stack=stack, library=library, pins={"weight_formats": [number_format]},
                        drafts=None, attain=attain, ranking="goodput", router="least_loaded", seed=seed)
            for field, fleet, stack, library, engine, number_format in zip(
                ("--fleet", "--rival"), sides.fleets, sides.stacks, sides.libraries, sides.engines, sides.formats,
                strict=True)]
    started_s = time.perf_counter()
    with progress_bar("simulating every subset of layers", quiet=as_json):
        found = gap_traffic(asks[0], asks[1], workers=workers)
    wall_s = time.perf_counter() - started_s
    job = f"{sides.model.name}, {serve}, {slo or 'no objectives'}"
    if html is not None:
        write_whole(html, page("The gap under a load in time", f"{job}. {traffic_headline(found)}",
                              traffic_gap_sections(found), footer=f"serried gap, seed {seed}."))
    if as_json:
        print(json.dumps({"schema": "serried/gap-traffic/1", "job": job, **plain(found),
                          "timing": {"items": found.evaluated, "unit": "layouts", "wall_s": wall_s}}))
        return
    screen = console()
    screen.print(job, markup=False)
    print_traffic_gap(found, screen)
    if html is not None:
        screen.print(f"page written: {html}", markup=False)
