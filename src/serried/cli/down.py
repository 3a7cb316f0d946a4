"""`serried down`: end the control plane, its jobs and whatever runs them."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serried.cli.control_plane import AsJson, State, reach, say, without_extra
from serried.display.terminal import console
from serried.errors import NoAnswer

if TYPE_CHECKING:
    from serried.control.spec import Usage

__all__ = ["command"]


def command(
    jobs: Annotated[bool, typer.Option("--jobs/--keep-jobs", help="end the jobs too, or leave them running for the "
                                                                 "next up to adopt")] = True,
    patience: Annotated[float, typer.Option(min=1, max=3600, help="seconds to wait for the end")] = 120.0,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """End everything: jobs are cancelled, with their grace, and the control plane goes last.

    Of a control plane that was killed, what it left running is ended all the same.
    """
    try:
        from serried.api.endpoint import find_endpoint, state_directory
    except ImportError as error:
        raise without_extra(error) from None
    folder = state_directory(state)
    try:
        endpoint = find_endpoint(folder)
        with reach(state, patience_s=1.0) as client:
            standing = client.down(jobs=jobs)
    except NoAnswer as error:
        if error.binding != "control plane":
            raise
        standing = _end_what_is_left(folder, error, jobs=jobs)
    else:
        _wait_for(endpoint.pid, patience)
    if as_json:
        say("down", usage=standing)
    else:
        living = sum(count for phase, count in standing.jobs_by_phase.items()
                     if phase not in ("succeeded", "failed", "cancelled"))
        console().print(f"down; {living} jobs {'were ended' if jobs else 'run on'}", markup=False)


def _end_what_is_left(folder: Path, error: NoAnswer, *, jobs: bool) -> Usage:
    """Take the state of a dead control plane up, only to end it. The error, where there is nothing to end."""
    from serried.api.service import read_order, run_service

    if not jobs or not (folder / "order.json").exists():
        raise error
    standing: list[Usage] = []
    order = replace(read_order(folder), host="127.0.0.1", port=0, expose=False)
    run_service(order, ready=lambda _, loop: standing.append(loop.usage().result()), only_end=True)
    return standing[0]


def _wait_for(pid: int, patience: float) -> None:
    until_s = time.monotonic() + patience
    while _lives(pid):
        if time.monotonic() > until_s:
            raise NoAnswer(f"Process {pid} has not ended within {patience:g} s.",
                           remedy="Its log, control.log in the state directory, says what it waits for.")
        time.sleep(0.05)


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
