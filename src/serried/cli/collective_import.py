"""`serried collective import LOG`: is the measured bus bandwidth acceptable at this number of ranks?"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer

from serried.calibration.nccl_log import device_in_log, read_nccl_log
from serried.catalogue import meant_by
from serried.cli.topologies import size_words
from serried.display.plain import plain
from serried.display.terminal import console, table
from serried.errors import BadInput
from serried.fabric import Fabric, collective_time_s, read_fabric
from serried.fabric.observations import bus_ratio
from serried.fabric.spec import Operation
from serried.silicon import read_chip
from serried.topology import read_topology
from serried.topology.reduction import reduced_fabric
from serried.topology.tables import is_topology
from serried.units import format_quantity

__all__ = ["command"]


def command(
    log: Annotated[Path, typer.Argument(help="text output of nccl-tests or of its relatives")],
    fabric: Annotated[str, typer.Option(help="what it ran on: a topology file, a fabric file or one of the catalogue; "
                                             "default: that of the chip which the log names")] = "",
    operation: Annotated[str, typer.Option(help="where the log does not say")] = "",
    ranks: Annotated[int, typer.Option(min=0, help="where the log does not say")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """Set every row beside the prediction; below the interval of the profile it is slow."""
    started_s = time.perf_counter()
    seen = read_nccl_log(log, operation=operation.replace("-", "_"), ranks=ranks)
    fabric = fabric or _fabric_of_device(log)
    wires: Fabric = reduced_fabric(read_topology(fabric)) if is_topology(fabric) else read_fabric(fabric)
    name, spread = seen.operation[0], wires.profile.spread
    expected_s = collective_time_s(cast(Operation, name), seen.payload_bytes, seen.degree, fabric=wires)
    ratio = bus_ratio(name, float(seen.degree[0]))
    measured, expected = (ratio * seen.payload_bytes / time_s for time_s in (seen.time_s, expected_s))
    verdicts = np.where(measured < expected * (1.0 - min(spread, 0.9)), "slow",
                        np.where(measured > expected * (1.0 + spread), "faster than predicted", "as predicted"))
    large = seen.payload_bytes >= min(2.0**26, float(seen.payload_bytes.max()))
    acceptable = bool((verdicts[large] != "slow").all())
    answer: dict[str, Any] = plain({
        "schema": "serried/collective-import/1", "operation": name, "ranks": int(seen.degree[0]), "fabric": wires.name,
        "spread": spread, "acceptable": acceptable, "rows": [
            {"payload_bytes": float(payload), "time_s": float(took), "bus_bandwidth_bytes_per_s": float(got),
             "expected_bytes_per_s": float(hoped), "verdict": str(verdict)}
            for payload, took, got, hoped, verdict in
            zip(seen.payload_bytes, seen.time_s, measured, expected, verdicts, strict=True)],
        "timing": {"items": len(seen), "unit": "cases", "wall_s": time.perf_counter() - started_s}})
    if as_json:
        print(json.dumps(answer))
        return
    screen = console()
    screen.print(table(f"{name} on {int(seen.degree[0]):,} ranks of {wires.name}; interval ±{spread:.0%}",
                       ["size", "verdict", "measured", "expected"],
                       [[size_words(row["payload_bytes"]), row["verdict"],
                         format_quantity(row["bus_bandwidth_bytes_per_s"], "bytes/s"),
                         format_quantity(row["expected_bytes_per_s"], "bytes/s")] for row in answer["rows"]], left=2))
    words = "acceptable" if acceptable else "slow: look at routing, failed links and the library's settings"
    screen.print(f"at large sizes: {words}", markup=False)
    screen.print(f"`serried calibrate CHIP --collectives {log}` fits the fabric's library on this log.", markup=False)


def _fabric_of_device(log: Path) -> str:
    """What the chips that the log names usually hang on."""
    device = device_in_log(log)
    chip = meant_by("chips", device)
    fabric = read_chip(chip).fabric if chip else ""
    if not fabric:
        raise BadInput(file=str(log), field="--fabric", value=device or None, expected="the fabric that it ran on; the "
                       "log names no chip of the catalogue", remedy="Name one: serried catalogue fabrics.")
    return fabric
