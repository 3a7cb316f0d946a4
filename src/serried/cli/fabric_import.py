"""`serried fabric import FILE -o FILE`: Slurm, Kubernetes, NCCL or a table of hosts as a topology."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from serried.display.terminal import console
from serried.errors import BadInput
from serried.files import write_whole
from serried.topology import topology_toml, wire
from serried.topology.labels import KUBERNETES_KEYS, read_host_table, read_kubernetes
from serried.topology.nccl_xml import read_nccl_xml
from serried.topology.slurm import read_slurm
from serried.topology.spec import Topology

__all__ = ["command"]

FORMS = {".conf": "slurm", ".yaml": "slurm", ".yml": "slurm", ".json": "kubernetes", ".xml": "nccl", ".csv": "hosts"}


def command(
    file: Annotated[Path, typer.Argument(help="topology.conf, topology.yaml, nodes.json, topology.xml, hosts.csv")],
    out: Annotated[Path, typer.Option("-o", "--out", help="file to write")],
    keys: Annotated[str | None, typer.Option(help="labels or columns of the switches, from the inside out")] = None,
    host: Annotated[str, typer.Option(help="column of a table that names the host")] = "ip",
    link_bandwidth: Annotated[str, typer.Option(help="nccl: of one chip-to-chip link and direction")] = "25 GB/s",
    settings: Annotated[list[str] | None, typer.Option("--set", help="any parameter, e.g. node=8; repeatable")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """Read what a scheduler, a cluster or a library knows of the wires."""
    started_s = time.perf_counter()
    given = dict(setting.split("=", 1) for setting in settings or [] if "=" in setting)
    made = _read(file, tuple(key.strip() for key in keys.split(",")) if keys else (), host, link_bandwidth, given)
    wired = wire(made)
    write_whole(out, topology_toml(made))
    if as_json:
        print(json.dumps({"schema": "serried/fabric-import/1", "name": made.name, "kind": made.kind,
                          "hosts": len(made.hosts), "tiers": {tier: len(set(column)) for tier, column in
                                                              made.labels.items()}, "written": str(out),
                          "timing": {"items": wired.chips, "unit": "endpoints",
                                     "wall_s": time.perf_counter() - started_s}}))
        return
    tiers = ", ".join(f"{len(set(column)):,} {tier}" for tier, column in made.labels.items())
    console().print(f"{made.name}: {wired.chips:,} chips{f' under {tiers}' if tiers else ''}; written: {out}",
                    markup=False)


def _read(file: Path, keys: tuple[str, ...], host: str, link_bandwidth: str, given: dict[str, str]) -> Topology:
    form = FORMS.get(file.suffix.casefold())
    if form == "slurm":
        return read_slurm(file, given)
    if form == "kubernetes":
        return read_kubernetes(file, given, keys or KUBERNETES_KEYS)
    if form == "nccl":
        return read_nccl_xml(file, given, link_bandwidth=link_bandwidth)
    if form == "hosts":
        return read_host_table(file, given, keys or ("ASW", "PSW", "DSW"), host)
    raise BadInput(field="FILE", value=str(file), expected=f"a name that ends in {', '.join(FORMS)}",
                   remedy="Rename it by what it is.")
