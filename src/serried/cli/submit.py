"""`serried submit FILE`: hand a job to the control plane; it is on the disk when this returns."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Annotated

import typer

from serried.cli.control_plane import AsJson, State, job_table, reach, say, without_extra
from serried.display.terminal import console

__all__ = ["command"]

_POLL_S = 0.2
_PATIENCE_S = 30.0


def command(
    file: Annotated[Path, typer.Argument(help="a job file, TOML or YAML (docs/job-file.md)")],
    key: Annotated[str, typer.Option(help="the same key again is the same job, not a second one")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="until it is over; exit code 1 unless it succeeded")] = False,
    state: State = None,
    as_json: AsJson = False,
) -> int:
    """Submit a job: a command or a managed workload, as a gang that starts whole or not at all."""
    try:
        from serried.control.job_file import read_job
    except ImportError as error:
        raise without_extra(error) from None
    job = read_job(file)
    with reach(state, patience_s=_PATIENCE_S) as client:
        number = client.submit(job, key or secrets.token_hex(16))
        if not wait:
            if as_json:
                say("submitted", job=number)
            else:
                console().print(f"job {number} is submitted: serried logs {number} -f shows its output, serried why "
                                f"{number} what it waits for", markup=False)
            return 0
        view = client.job(number)
        while view.phase.value not in ("succeeded", "failed", "cancelled"):
            time.sleep(_POLL_S)
            view = client.job(number)
    if as_json:
        say("job", job=view)
    else:
        console().print(job_table([view]))
    return 0 if view.phase.value == "succeeded" else 1
