"""`serried jobs`: what was submitted, and how it stands."""

from __future__ import annotations

from typing import Annotated

import typer

from serried.cli.control_plane import AsJson, State, job_table, reach, say
from serried.display.terminal import console

__all__ = ["command"]

_PHASES = "pending, starting, running, backing off, mending, stopping, succeeded, failed, cancelled"


def command(
    phase: Annotated[str, typer.Option(help=f"only of this phase: {_PHASES}")] = "",
    tenant: Annotated[str, typer.Option(help="only of this tenant")] = "",
    after: Annotated[int, typer.Option(min=-1, help="only numbers above this")] = -1,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="at most so many")] = 100,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """List jobs in the order of their submission."""
    with reach(state) as client:
        found = client.jobs(phase=phase, tenant=tenant, after=after, limit=limit)
    if as_json:
        say("jobs", jobs=found)
        return
    screen = console()
    screen.print(job_table(found) if found else "no jobs")
    if len(found) == limit:
        screen.print(f"and perhaps more: serried jobs --after {found[-1].number}", markup=False)
