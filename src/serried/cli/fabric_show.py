"""`serried fabric show FILE`: tiers, counts, bisection, oversubscription."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from serried.cli.topologies import topology_with
from serried.display.page import page
from serried.display.plain import plain
from serried.display.spec import Section
from serried.display.terminal import console, table
from serried.files import write_whole
from serried.topology import wire
from serried.topology.reduction import reduced_fabric
from serried.topology.summary import summarise
from serried.units import format_quantity

__all__ = ["command"]


def command(
    file: Annotated[str, typer.Argument(help="a topology file")],
    fail: Annotated[list[str] | None, typer.Option(help="what is out of order besides, e.g. spine:0")] = None,
    html: Annotated[Path | None, typer.Option(help="write one self-contained page")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """Show what a topology is made of, from the chip up."""
    started_s = time.perf_counter()
    topology = topology_with(file, fail)
    wired = wire(topology)
    found, fabric = summarise(wired), reduced_fabric(topology)
    if as_json:
        tiers = [{"name": tier.name, "kind": tier.kind, "group_size": tier.group_size, "latency_s": tier.latency_s,
                  "bandwidth_bytes_per_s": tier.bandwidth_bytes_per_s, "oversubscription": tier.oversubscription}
                 for tier in fabric.tiers]
        print(json.dumps(plain({"schema": "serried/fabric-show/1", "name": topology.name, "kind": topology.kind,
                                "failed": topology.failed, "summary": asdict(found), "tiers": tiers,
                                "timing": {"items": wired.chips, "unit": "endpoints",
                                           "wall_s": time.perf_counter() - started_s}})))
        return
    head = (f"{topology.name}: {topology.kind}, {found.chips:,} chips in {found.nodes:,} scale-up domains; bisection "
            f"{format_quantity(found.bisection_bytes_per_s, 'bytes/s')} each way"
            + (f"; out of order: {', '.join(topology.failed)}" if topology.failed else ""))
    header = ["level", "groups", "chips in each", "switches", "cables up", "dead", "one cable"]
    rows = [[level.name, f"{level.groups:,}", f"{level.chips:,}", f"{level.switches:,}" if level.switches else "",
             f"{level.cables:,}" if level.cables else "", f"{level.dead_cables:,}" if level.dead_cables else "",
             format_quantity(level.cable_bandwidth_bytes_per_s, "bytes/s") if level.cables else ""]
            for level in reversed(found.levels)]
    reach = ["tier", "chips", "per chip", "oversubscribed", "hop"]
    tiers_shown = [[tier.name, f"{tier.group_size or found.chips:,}",
                    format_quantity(tier.bandwidth_bytes_per_s, "bytes/s"), f"{tier.oversubscription:.3g} : 1",
                    format_quantity(tier.latency_s, "s")] for tier in reversed(fabric.tiers)]
    if html is not None:
        write_whole(html, page(topology.name, head, [
            Section(title="Cables and switches", header=header, rows=rows),
            Section(title="As tiers", header=reach, rows=tiers_shown)],
                              footer="serried fabric show"))
    screen = console()
    screen.print(head, markup=False)
    screen.print(table("cables and switches", header, rows))
    screen.print(table("as tiers", reach, tiers_shown))
    if html is not None:
        screen.print(f"written: {html}", markup=False)
