"""`serried drain NODE...`: take a node out of service, gently."""

from __future__ import annotations

from typing import Annotated

import typer

from serried.cli.control_plane import AsJson, State, node_table, reach, say
from serried.display.terminal import console

__all__ = ["command"]


def command(
    nodes: Annotated[list[str], typer.Argument(help="names of the nodes")],
    why: Annotated[str, typer.Option(help="for the books")] = "",
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Let nothing new start on nodes; what runs there is moved or ends first, as the policy says."""
    with reach(state) as client:
        found = [client.drain(node, why) for node in nodes]
    if as_json:
        say("nodes", nodes=found)
    else:
        console().print(node_table(found))
