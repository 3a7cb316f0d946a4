"""`serried top`: the fleet as it lives."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from serried.cli.control_plane import AsJson, State, job_table, node_table, reach, say
from serried.display.terminal import console

if TYPE_CHECKING:
    from serried.api.client import Client
    from serried.control.spec import JobView, NodeView, Usage

__all__ = ["command"]

_BAR_CELLS = 40
_LIVING = ("running", "mending", "backing off", "starting", "stopping", "pending")


def command(
    once: Annotated[bool, typer.Option("--once", help="one picture, then end")] = False,
    interval: Annotated[float, typer.Option(min=0.1, max=3600, help="seconds between pictures")] = 1.0,
    rows: Annotated[int, typer.Option(min=1, max=10_000, help="jobs and nodes shown at most")] = 20,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Watch chips, jobs and nodes."""
    with reach(state) as client:
        if as_json:
            usage, nodes, jobs = _look(client, rows)
            say("top", usage=usage, nodes=nodes, jobs=jobs)
            return
        screen = console()
        if once or not screen.is_terminal:
            screen.print(_picture(*_look(client, rows)))
            return
        with contextlib.suppress(KeyboardInterrupt), Live(console=screen, screen=True, auto_refresh=False) as live:
            while True:
                live.update(_picture(*_look(client, rows)), refresh=True)
                time.sleep(interval)


def _look(client: Client, rows: int) -> tuple[Usage, list[NodeView], list[JobView]]:
    usage = client.usage()
    nodes = sorted(client.nodes(), key=lambda node: (node.state == "up", node.idle_chips == node.chip_count, node.name))
    jobs: list[JobView] = []
    for phase in _LIVING:
        if usage.jobs_by_phase.get(phase) and len(jobs) < rows:
            jobs += client.jobs(phase=phase, limit=rows - len(jobs))
    return usage, nodes[:rows], jobs


def _picture(usage: Usage, nodes: list[NodeView], jobs: list[JobView]) -> Group:
    chips = max(usage.chip_count, 1)
    busy, down = (round(_BAR_CELLS * count / chips) for count in (usage.busy_chips, usage.down_chips))
    bar = Text.assemble(("█" * busy, "green"), ("█" * down, "red"), ("·" * max(_BAR_CELLS - busy - down, 0), "dim"),
                        f"  {usage.busy_chips} of {usage.chip_count} chips busy, {usage.down_chips} down   ",
                        (f"{usage.policy} on {usage.engine}, {usage.records:,} records", "dim"))
    phases = ", ".join(f"{count} {phase}" for phase, count in usage.jobs_by_phase.items() if count) or "no jobs"
    parts = [bar, Text(phases)]
    if len(usage.chips_by_tenant) > 1:
        parts.append(Text("chips: " + ", ".join(f"{name} {held:g}" for name, held in usage.chips_by_tenant.items())))
    return Group(*parts, "", node_table(nodes), "", job_table(jobs) if jobs else Text("nothing runs or waits"))
