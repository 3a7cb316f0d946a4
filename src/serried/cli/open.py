"""`serried open NODE...`: let a drained node take work again."""

from __future__ import annotations

from typing import Annotated

import typer

from serried.cli.control_plane import AsJson, State, node_table, reach, say
from serried.display.terminal import console

__all__ = ["command"]


def command(
    nodes: Annotated[list[str], typer.Argument(help="names of the nodes")],
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Let nodes take work again."""
    with reach(state) as client:
        found = [client.open(node) for node in nodes]
    if as_json:
        say("nodes", nodes=found)
    else:
        console().print(node_table(found))
