"""`serried fleet simulate FILE`: a fleet through days of virtual time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from serried.display.fleet_simulation import lead_of, outcome_sections, print_outcome
from serried.display.page import page
from serried.display.plain import plain
from serried.display.progress import progress_bar
from serried.display.terminal import console
from serried.files import write_whole
from serried.simulation import Outcome, simulate
from serried.simulation.scenario_file import read_scenario

__all__ = ["answer_of", "command"]


def command(
    file: Annotated[Path, typer.Argument(help="a scenario file (docs/fleet-scenario.md)")],
    days: Annotated[float, typer.Option(min=0.001, max=3660, help="how long, in days of virtual time")] = 30.0,
    seed: Annotated[int, typer.Option(min=0, max=2**63, help="the same seed gives the same run, bit by bit")] = 1,
    policy: Annotated[str | None, typer.Option(help="instead of the file's own")] = None,
    html: Annotated[Path | None, typer.Option(help="write one self-contained page")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """Simulate a fleet: jobs, services, failures, repair and a policy, and where every chip-hour went."""
    scenario = read_scenario(file, policy=policy)
    began = time.perf_counter()
    with progress_bar("hours of virtual time", quiet=as_json) as report:
        outcome = simulate(scenario, days=days, seed=seed, progress=report)
    wall_s = time.perf_counter() - began
    if html is not None:
        write_whole(html, page(scenario.name, lead_of(outcome), outcome_sections(outcome),
                              footer="serried fleet simulate"))
    if as_json:
        print(json.dumps({"schema": "serried/fleet-simulate/1"} | answer_of(outcome) | {
            "timing": {"items": outcome.events, "unit": "events", "wall_s": wall_s}}))
        return
    screen = console()
    print_outcome(outcome, screen)
    screen.print(f"{outcome.events:,} events in {wall_s:.1f} s.", markup=False)
    if html is not None:
        screen.print(f"written: {html}", markup=False)


def answer_of(outcome: Outcome) -> dict[str, Any]:
    """An outcome as plain data."""
    found: dict[str, Any] = plain(outcome)
    return found
