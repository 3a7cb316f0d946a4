"""`serried job N`: one job, rank by rank, and what happened to it."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from serried.cli.control_plane import AsJson, State, job_table, reach, say
from serried.display.terminal import console, table

__all__ = ["command"]


def command(
    number: Annotated[int, typer.Argument(min=0, help="number of the job")],
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Show a job, its ranks and its history."""
    with reach(state) as client:
        view, history = client.job(number), client.history(number)
    if as_json:
        say("job-history", job=view, history=history)
        return
    screen = console()
    screen.print(job_table([view]))
    if view.ranks:
        rows = [[str(one.rank), one.node, ",".join(map(str, one.chips)), str(one.pid or ""),
                 "" if one.step < 0 else str(one.step), "" if one.exit_code is None else str(one.exit_code),
                 "straggles" if one.straggles else ""] for one in view.ranks]
        screen.print("", table("", ("rank", "node", "chips", "pid", "step", "exit", ""), rows, left=3))
    screen.print("", table("", ("time", "what", ""), [_line(record) for record in history], left=3))


def _line(record: dict[str, Any]) -> list[str]:
    """One record for people."""
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.get("time_s", 0.0)))
    what = str(record.get("kind", record.get("record", ""))).lower()
    why = "; ".join(str(record[name]) for name in ("cause", "why", "text", "error") if record.get(name))
    return [clock, what, why]
