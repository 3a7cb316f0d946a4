"""`serried down`: end the control plane, its jobs and whatever runs them."""

from __future__ import annotations

import os
import time
from typing import Annotated

import typer

from serried.cli.control_plane import AsJson, State, reach, say, without_extra
from serried.display.terminal import console
from serried.errors import NoAnswer

__all__ = ["command"]


def command(
    keep_jobs: Annotated[bool, typer.Option("--keep-jobs", help="leave the jobs running; the next up adopts them")
                         ] = False,
    patience: Annotated[float, typer.Option(min=1, max=3600, help="seconds to wait for the end")] = 120.0,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """End everything: jobs are cancelled, with their grace, and the control plane goes last."""
    try:
        from serried.api.endpoint import find_endpoint, state_directory
    except ImportError as error:
        raise without_extra(error) from None
    endpoint = find_endpoint(state_directory(state))
    with reach(state) as client:
        standing = client.down(jobs=not keep_jobs)
    until_s = time.monotonic() + patience
    while _lives(endpoint.pid):
        if time.monotonic() > until_s:
            raise NoAnswer(f"Process {endpoint.pid} has not ended within {patience:g} s.",
                           remedy="Its log, control.log in the state directory, says what it waits for.")
        time.sleep(0.05)
    if as_json:
        say("down", usage=standing)
    else:
        living = sum(count for phase, count in standing.jobs_by_phase.items()
                     if phase not in ("succeeded", "failed", "cancelled"))
        console().print(f"down; {living} jobs {'run on' if keep_jobs else 'were ended'}", markup=False)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether it has ended and only its parent does not know yet."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
