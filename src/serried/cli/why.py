"""`serried why JOB`: what a job waits for, in a sentence and in figures."""

from __future__ import annotations

from typing import Annotated

import typer

from serried.cli.control_plane import AsJson, State, reach, say
from serried.display.terminal import console, table
from serried.units import significant

__all__ = ["command"]


def command(
    number: Annotated[int, typer.Argument(min=0, help="number of the job")],
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Explain why a job waits, as the fleet stands now."""
    with reach(state) as client:
        found = client.why(number)
    if as_json:
        say("why", why=found)
        return
    screen = console()
    screen.print(f"job {number}: {found.sentence}", markup=False)
    if found.figures:
        screen.print(table("", ("figure", "value"), [[name.replace("_", " "), significant(value)]
                                                     for name, value in found.figures.items()]))
