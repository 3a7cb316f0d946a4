"""How verbs find the control plane, and what its jobs and nodes look like in a terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from serried.display.plain import plain
from serried.display.terminal import table
from serried.errors import NoAnswer

if TYPE_CHECKING:   # extras: whoever runs no control plane need not have them
    from serried.api.client import Client
    from serried.control.spec import JobView, NodeView

__all__ = ["AsJson", "State", "job_table", "node_table", "reach", "say", "without_extra"]

State = Annotated[Path | None, typer.Option(help="state directory of the control plane; default: "
                                                 "$XDG_STATE_HOME/serried or ~/.local/state/serried")]
AsJson = Annotated[bool, typer.Option("--json", help="an answer for programs")]


def reach(state: Path | None, *, patience_s: float = 3.0) -> Client:
    """The control plane of a state directory. Raises NoAnswer when none runs there."""
    try:
        from serried.api.client import Client
    except ImportError as error:
        raise without_extra(error) from None
    return Client(state=state, patience_s=patience_s)


def without_extra(error: ImportError) -> NoAnswer:
    """What is missing, and how it is installed."""
    return NoAnswer(f"The control plane needs {error.name}, which is not installed.", binding="installation",
                    remedy="pip install 'serried[control]'")


def say(schema: str, **fields: Any) -> None:
    """One answer for programs."""
    print(json.dumps(plain({"schema": f"serried/{schema}/1", **fields})))


def job_table(jobs: Sequence[JobView], title: str = "") -> Table:
    """A line a job."""
    now_s = time.time()
    rows = [[str(job.number), job.name, job.tenant, job.phase.value, str(job.chip_count), _age(job, now_s),
             str(job.restarts) if job.restarts else "", job.outcome] for job in jobs]
    made = table(title, ("job", "name", "tenant", "phase", "chips", "age", "restarts", "outcome"), rows, left=4)
    made.columns[7].justify = "left"
    return made


def _age(job: JobView, now_s: float) -> str:
    """How long it has run, or waited where it never did."""
    end_s = job.ended_s or now_s
    return span(max(end_s - (job.started_s or job.submitted_s), 0.0))


def span(seconds: float) -> str:
    """A time for people: 8 s, 4 min 05, 3 h 12, 2 d 07 h."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d}"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d}"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02d} h"


def node_table(nodes: Sequence[NodeView], title: str = "") -> Table:
    """A line a node."""
    rows = [[node.name, node.kind, node.state, f"{node.chip_count - node.idle_chips}/{node.chip_count}",
             ", ".join(str(job) for job in node.jobs[:8]) + (", ..." if len(node.jobs) > 8 else "")] for node in nodes]
    made = table(title, ("node", "kind", "state", "chips held", "jobs"), rows, left=3)
    made.columns[4].justify = "left"
    return made
