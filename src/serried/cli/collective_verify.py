"""`serried collective verify FILE`: symbolic execution of a plan, its own or an imported one."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from serried.cli.collective_files import read_plan
from serried.display.terminal import console
from serried.weave import check

__all__ = ["command"]


def command(
    file: Annotated[Path, typer.Argument(help="a schedule (.json) or MSCCL XML (.xml)")],
    ranks: Annotated[int | None, typer.Option(min=1, help="ranks that it must be for")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """Prove that a plan ends right on every rank, without deadlock or race; or say where it does not."""
    schedule = read_plan(file, ranks=ranks)
    begin_s = time.perf_counter()
    check(schedule, file=str(file))
    wall_s = time.perf_counter() - begin_s
    if as_json:
        print(json.dumps({"schema": "serried/collective-verify/1", "file": str(file), "name": schedule.name,
                          "operation": schedule.operation, "rank_count": schedule.rank_count,
                          "chunk_count": schedule.chunk_count, "step_count": len(schedule.steps), "proven": True,
                          "timing": {"items": schedule.rank_count, "unit": "endpoints", "wall_s": wall_s}}))
        return
    console().print(f"{file}: {schedule.operation} on {schedule.rank_count} ranks is right: {len(schedule.steps):,} "
                    f"steps on {schedule.chunk_count:,} chunks, every contribution once, no deadlock, no race "
                    f"({wall_s:.2f} s).", markup=False)
