"""`serried logs JOB`: what a rank wrote, across rotation and, with -f, across restarts."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Annotated

import typer

from serried.cli.control_plane import AsJson, State, reach

__all__ = ["command"]


def command(
    number: Annotated[int, typer.Argument(min=0, help="number of the job")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until the job is over")] = False,
    rank: Annotated[int, typer.Option(min=0, help="whose output")] = 0,
    tail: Annotated[int, typer.Option(min=-1, max=100_000, help="last lines; -1 = all that is kept")] = -1,
    epoch: Annotated[int | None, typer.Option(min=0, help="of an attempt before")] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Print the output of a rank. With --json every line is an object."""
    with contextlib.suppress(KeyboardInterrupt), reach(state) as client:   # Ctrl-C is how one stops following
        rest = b""
        for piece in client.logs(number, rank=rank, tail=tail, follow=follow, epoch=epoch):
            if not as_json:
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
                continue
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                _tell(number, rank, line)
        if rest:
            _tell(number, rank, rest)


def _tell(number: int, rank: int, line: bytes) -> None:
    print(json.dumps({"schema": "serried/log-line/1", "job": number, "rank": rank,
                      "line": line.decode("utf-8", "replace")}), flush=True)
