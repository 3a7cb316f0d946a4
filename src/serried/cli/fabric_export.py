"""`serried fabric export FILE --to slurm-conf|slurm-yaml|kubernetes`: the tree of switches for a scheduler."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from serried.cli.topologies import topology_with
from serried.errors import BadInput
from serried.files import write_whole
from serried.topology import wire
from serried.topology.labels import KUBERNETES_KEYS, kubernetes_labels
from serried.topology.slurm import slurm_conf, slurm_yaml

__all__ = ["command"]

FORMS = ("slurm-conf", "slurm-yaml", "kubernetes")


def command(
    file: Annotated[str, typer.Argument(help="a topology file")],
    to: Annotated[str, typer.Option(help=", ".join(FORMS))],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="file to write; default: the terminal")] = None,
    keys: Annotated[str | None, typer.Option(help="labels of the tiers, from the inside out")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """Write the switches above the hosts; rails of one segment count as one leaf."""
    if to not in FORMS:
        raise BadInput(field="--to", value=to, expected=f"one of {', '.join(FORMS)}", remedy="Correct it.")
    started_s = time.perf_counter()
    topology = topology_with(file, None)
    text = slurm_conf(topology) if to == "slurm-conf" else slurm_yaml(topology) if to == "slurm-yaml" else \
        kubernetes_labels(topology, tuple(keys.split(",")) if keys else KUBERNETES_KEYS)
    if out is not None:
        write_whole(out, text)
    if as_json:
        print(json.dumps({"schema": "serried/fabric-export/1", "form": to, "written": None if out is None else str(out),
                          "text": text if out is None else None, "timing": {
                              "items": wire(topology).chips, "unit": "endpoints",
                              "wall_s": time.perf_counter() - started_s}}))
    elif out is None:
        print(text, end="")
    else:
        print(f"written: {out}")
