"""`serried collective run PLAN --nproc 8`: a plan as processes on this machine, every element checked."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from serried.cli.collective_files import read_plan
from serried.display.terminal import console
from serried.errors import BadInput, NoAnswer
from serried.executor import run_schedule
from serried.units import format_quantity, parse_quantity

__all__ = ["command"]

_MOST_BYTES = 1 << 30


def command(
    file: Annotated[Path, typer.Argument(help="a schedule or MSCCL++ plan (.json), MSCCL XML (.xml) or a Chakra trace "
                                              "(.RANK.et) that serried wrote")],
    nproc: Annotated[int, typer.Option(min=1, max=64, help="processes; the ranks of the plan")],
    payload: Annotated[str, typer.Option("--bytes", help="the whole buffer, e.g. 64MiB")] = "1MiB",
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="how often")] = 5,
    python: Annotated[str, typer.Option(help="an interpreter with PyTorch")] = sys.executable,
    backend: Annotated[str, typer.Option(help="backend of torch.distributed")] = "gloo",
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """Run a plan for real on torch.distributed, check every element, and time it."""
    schedule = read_plan(file, ranks=nproc)
    payload_bytes = int(parse_quantity(payload, "bytes", field="--bytes"))
    if not 4 <= payload_bytes <= _MOST_BYTES:
        raise BadInput(field="--bytes", value=payload, expected="4 bytes to 1 GiB", remedy="Every process holds it.")
    begin_s = time.perf_counter()
    outcome = run_schedule(schedule, payload_bytes, python=python, repeats=repeats, backend=backend)
    if outcome.wrong:
        raise NoAnswer(f"{outcome.wrong:,} of {outcome.checked:,} elements are wrong.", binding="the backend",
                       remedy="The plan is proven: look at the backend.")
    best_s = min(outcome.times_s)
    if as_json:
        print(json.dumps({"schema": "serried/collective-run/1", "file": str(file), "operation": schedule.operation,
                          "rank_count": nproc, "payload_bytes": outcome.payload_bytes,
                          "times_s": list(outcome.times_s), "checked": outcome.checked, "wrong": outcome.wrong,
                          "timing": {"items": nproc, "unit": "endpoints", "wall_s": time.perf_counter() - begin_s}}))
        return
    console().print(f"{schedule.name or schedule.operation} on {nproc} processes, "
                    f"{format_quantity(outcome.payload_bytes, 'bytes')}: best of {repeats} "
                    f"{format_quantity(best_s, 's')}, {format_quantity(outcome.payload_bytes / best_s, 'bytes/s')}; "
                    f"{outcome.checked:,} elements checked, all right.", markup=False)
