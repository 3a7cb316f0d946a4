"""`serried fleet compare FILE --policy a,b,c`: policies side by side on the same jobs and the same failures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from serried.cli.fleet_simulate import answer_of
from serried.display.fleet_simulation import print_comparison
from serried.display.progress import progress_bar
from serried.display.terminal import console
from serried.errors import BadInput
from serried.fleet.rules import POLICIES, rules_named
from serried.fleet.weighing import Weigher
from serried.simulation import simulate
from serried.simulation.scenario_file import read_scenario

__all__ = ["command"]


def command(
    file: Annotated[Path, typer.Argument(help="a scenario file (docs/fleet-scenario.md)")],
    policy: Annotated[str, typer.Option(help=f"comma-separated: {', '.join(POLICIES)}")],
    days: Annotated[float, typer.Option(min=0.001, max=3660, help="how long, in days of virtual time")] = 7.0,
    seed: Annotated[int, typer.Option(min=0, max=2**63, help="of jobs and failures, the same for all")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """Compare policies on one scenario: goodput, waits, fairness, fragmentation, preemption."""
    names = list(dict.fromkeys(name.strip() for name in policy.split(",") if name.strip()))
    if not names:
        raise BadInput(field="--policy", value=policy, expected=f"some of {', '.join(POLICIES)}",
                       remedy="Separate them by commas.")
    for name in names:
        rules_named(name)
    began, outcomes, weigher = time.perf_counter(), [], Weigher()
    with progress_bar("hours of virtual time", quiet=as_json) as report:
        for turn, name in enumerate(names):
            scenario = read_scenario(file, policy=name, weigher=weigher)
            outcomes.append(simulate(scenario, days=days, seed=seed,
                                     progress=report and _shifted(report, turn, len(names))))
    wall_s = time.perf_counter() - began
    if as_json:
        print(json.dumps({"schema": "serried/fleet-compare/1", "runs": [answer_of(one) for one in outcomes],
                          "timing": {"items": sum(one.events for one in outcomes), "unit": "events",
                                     "wall_s": wall_s}}))
        return
    print_comparison(outcomes, console())


def _shifted(report: Callable[[int, int], None], before: int, runs: int) -> Callable[[int, int], None]:
    """Progress of one run as a part of that of all."""
    return lambda done, each: report(before * each + done, runs * each)
