"""`serried cancel JOB...`: end jobs."""

from __future__ import annotations

from typing import Annotated

import typer

from serried.cli.control_plane import AsJson, State, job_table, reach, say
from serried.display.terminal import console

__all__ = ["command"]


def command(
    numbers: Annotated[list[int], typer.Argument(min=0, help="numbers of the jobs")],
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """End jobs: SIGTERM, and after each one's grace SIGKILL."""
    with reach(state) as client:
        found = [client.cancel(number) for number in numbers]
    if as_json:
        say("cancelled", jobs=found)
    else:
        console().print(job_table(found))
