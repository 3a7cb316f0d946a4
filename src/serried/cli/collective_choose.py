"""`serried collective choose OP --fabric FILE --bytes 1KiB..8GiB`: algorithm and protocol by size."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from serried.cli.topologies import parse_operation, parse_sizes, size_words, topology_with
from serried.display.plain import plain
from serried.display.terminal import console, table
from serried.emit.nccl_tuner import nccl_tuner_csv
from serried.errors import BadInput
from serried.files import write_whole
from serried.topology import wire
from serried.topology.simulation import PLACEMENTS, Simulated, simulate
from serried.topology.wires import ROUTINGS
from serried.units import format_quantity

__all__ = ["command"]

_EMITTERS = ("nccl-tuner",)


def command(
    operation: Annotated[str, typer.Argument(metavar="OP", help="all-reduce, all-gather, reduce-scatter, ...")],
    fabric: Annotated[str, typer.Option(help="a topology file, as `fabric build` writes it")],
    asked: Annotated[str, typer.Option("--bytes", help="size or range, e.g. 1KiB..8GiB")] = "1KiB..8GiB",
    routing: Annotated[str, typer.Option(help=", ".join(ROUTINGS))] = "ecmp",
    placement: Annotated[str, typer.Option(help=", ".join(PLACEMENTS))] = "packed",
    fail: Annotated[list[str] | None, typer.Option(help="what is out of order, e.g. link:3")] = None,
    stock: Annotated[bool, typer.Option("--stock", help="only what the library has")] = False,
    emit: Annotated[str | None, typer.Option(help=f"{', '.join(_EMITTERS)} (only what the library has)")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="file for what is emitted")] = Path("nccl_tuner.csv"),
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """The fastest way for each size by predicted time on these wires, beside the library's fastest."""
    if emit is not None and emit not in _EMITTERS:
        raise BadInput(field="--emit", value=emit, expected=f"one of {', '.join(_EMITTERS)}", remedy="Correct it.")
    started_s = time.perf_counter()
    name, wired = parse_operation(operation), wire(topology_with(fabric, fail))
    found = simulate(name, parse_sizes(asked), wired, routing=routing, placement=placement, draws=4)
    picks = found.stock if stock or emit else found.best
    rows = [_row(found, row, pick) for row, pick in enumerate(picks)]
    if emit is not None:
        write_whole(out, nccl_tuner_csv(
            name, [row["payload_bytes"] for row in rows], [row["algorithm"] for row in rows],
            [row["protocol"] for row in rows], ranks=found.ranks, nodes=found.ranks // wired.node))
    answer: dict[str, Any] = plain({
        "schema": "serried/collective-choose/1", "operation": name, "ranks": found.ranks, "routing": routing,
        "sizes": rows, "written": str(out) if emit else None,
        "timing": {"items": found.endpoints, "unit": "endpoints", "wall_s": time.perf_counter() - started_s}})
    if as_json:
        print(json.dumps(answer))
        return
    screen = console()
    screen.print(f"{operation} over {found.ranks:,} chips, {routing}, {placement}", markup=False)
    screen.print(table("", ["size", "algorithm", "protocol", "time", "the library's own", ""], [
        [size_words(row["payload_bytes"]), row["algorithm"], row["protocol"], format_quantity(row["time_s"], "s"),
         f"{row['stock_algorithm']} {row['stock_protocol']}", format_quantity(row["stock_time_s"], "s")]
        for row in rows], left=3))
    if emit:
        screen.print(f"written: {out}", markup=False)


def _row(found: Simulated, row: int, pick: int) -> dict[str, Any]:
    way, own = found.ways[pick], found.ways[found.stock[row]]
    return {"payload_bytes": float(found.payload_bytes[row]), "algorithm": way.algorithm, "protocol": way.protocol,
            "time_s": float(way.time_s[row]), "slowdown": way.slowdown, "stock_algorithm": own.algorithm,
            "stock_protocol": own.protocol, "stock_time_s": float(own.time_s[row])}
