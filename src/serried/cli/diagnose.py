"""`serried gap ... --measured FILE`: which settings of the layers explain what was measured?"""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from serried.display.diagnosis import print_diagnosis
from serried.display.plain import plain
from serried.display.progress import progress_bar
from serried.display.terminal import console
from serried.fabric import Pool
from serried.files import write_whole
from serried.insight import Diagnosis, diagnose, read_measured, serving_machine, stack_found
from serried.planner import machine_of
from serried.software import Stack
from serried.workload import Serving, Training

__all__ = ["diagnose_measured"]

#: How sure the points must be of captured or eager launches for the fact to be written.
_SURE = 0.6


def diagnose_measured(measured: Path, job: Serving | Training, pool: Pool, stack: Stack, *, recalibrate: Path | None,
                      as_json: bool, library: str | None = None) -> None:
    """Rank the explanations of a user's points; with `recalibrate`, write the stack that they speak for.

    library: a kernel profile to use instead of the chip's own.
    """
    machine = machine_of(pool, stack=stack, kind="training", library=library) if isinstance(job, Training) else \
        serving_machine(pool, stack, library=library)
    points, skipped = read_measured(measured, job, machine)
    started_s = time.perf_counter()
    with progress_bar("predicting every combination of layers", quiet=as_json):
        found = diagnose(points, job, machine, skipped=skipped)
    wall_s = time.perf_counter() - started_s
    if recalibrate is not None:
        from serried.calibration.own_stack import found_stack_text

        write_whole(recalibrate, found_stack_text(_written_stack(found, stack, recalibrate), pool.chip.family))
    if as_json:
        print(json.dumps(_answer(found, recalibrate, wall_s)))
        return
    screen = console()
    print_diagnosis(found, screen, lead=f"{job.model.name} on {pool.chip_count} {pool.chip.name} "
                                        f"({machine.fabric.name}), starting from {stack.name}: {measured}")
    if recalibrate is not None:
        screen.print(f"\nstack written: {recalibrate}  (use it: serried gap ... --stack {recalibrate})", markup=False)


def _written_stack(found: Diagnosis, stack: Stack, path: Path) -> Stack:
    """The stack that the points speak for, under the name of its file; launches as they say, where they say it.

    A parameter is no surer than its explanation is near the points.
    """
    launches = found.marginals.get("launches", {})
    likeliest = max(launches, key=lambda word: launches[word], default="")
    facts = dict(stack.facts)
    if launches.get(likeliest, 0.0) > _SURE:
        facts["captured"] = likeliest == "captured"
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in path.name.removesuffix(".toml"))
    own = stack_found(found, stack, name=name or "measured")
    error = math.expm1(found.explanations[0].rms_error_ln)
    spreads = {key: max(own.spreads.get(key, 0.0), error * value) for key, value in own.parameters.items()}
    return replace(own, facts=facts, spreads=spreads)


def _answer(found: Diagnosis, written: Path | None, wall_s: float) -> dict[str, Any]:
    answer: dict[str, Any] = plain({
        "schema": "serried/diagnosis/1",
        "explanations": [{"settings": one.settings, "parameters": one.parameters, "probability": one.probability,
                          "log_likelihood": one.log_likelihood, "predicted": one.predicted,
                          "rms_error_ln": one.rms_error_ln}
                         for one in found.explanations],
        "marginals": found.marginals,
        "points": [{"label": point.label, "metric": point.metric, "unit": point.unit, "measured": point.value}
                   for point in found.points],
        "combinations": found.combinations, "skipped": list(found.skipped),
        "written": None if written is None else str(written),
        "timing": {"items": found.combinations * len(found.points), "unit": "layouts", "wall_s": wall_s}})
    return answer
