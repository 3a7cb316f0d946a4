"""`serried fabric build KIND ... -o FILE`: write a topology."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from serried.display.terminal import console
from serried.errors import BadInput
from serried.files import write_whole
from serried.topology import KINDS, build_topology, topology_toml, wire

__all__ = ["command"]


def command(
    kind: Annotated[str, typer.Argument(help=", ".join(kind for kind in KINDS if kind not in ("labels", "explicit")))],
    out: Annotated[Path, typer.Option("-o", "--out", help="file to write")],
    chips: Annotated[int | None, typer.Option(help="endpoints")] = None,
    planes: Annotated[int | None, typer.Option(help="ports of an adapter, each to a network of its own")] = None,
    rails: Annotated[int | None, typer.Option(help="leaves over which a node's chips are spread")] = None,
    oversubscription: Annotated[float | None, typer.Option(help="of the leaves")] = None,
    bandwidth: Annotated[str | None, typer.Option(help='per chip and direction, e.g. "400 Gb/s"')] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="any parameter, e.g. leaf=512")] = None,
    fail: Annotated[list[str] | None, typer.Option(help="what is out of order, e.g. spine:0")] = None,
    name: Annotated[str | None, typer.Option(help="default: the file's")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """Check that the parameters make a fabric, and write them down."""
    started_s = time.perf_counter()
    given: dict[str, object] = {key: value for key, value in (
        ("chips", chips), ("planes", planes), ("rails", rails), ("oversubscription", oversubscription),
        ("bandwidth", bandwidth)) if value is not None}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise BadInput(field="--set", value=setting, expected="NAME=VALUE",
                           remedy=f"Names of {kind}: {', '.join(KINDS.get(kind, {}))}.")
        given[key.strip()] = value.strip()
    made = build_topology(name or out.stem, kind, given, failed=tuple(fail or []))
    wired = wire(made)
    wired.outer.bandwidth_bytes_per_s_L.sum()   # failures that are not there are refused before anything is written
    write_whole(out, topology_toml(made))
    if as_json:
        print(json.dumps({"schema": "serried/fabric-build/1", "name": made.name, "kind": made.kind,
                          "parameters": dict(made.parameters), "written": str(out),
                          "timing": {"items": wired.chips, "unit": "endpoints",
                                     "wall_s": time.perf_counter() - started_s}}))
        return
    console().print(f"{made.name}: {made.kind} of {wired.chips:,} chips; written: {out}", markup=False)
