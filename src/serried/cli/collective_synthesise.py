"""`serried collective synthesise OP --fabric FILE`: a schedule fitted to explicit wires, beside its bound."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from serried.cli.collective_files import WRITERS
from serried.display.terminal import console, table
from serried.emit.limits import TooManySteps
from serried.errors import BadInput, nearest
from serried.files import write_whole
from serried.topology import explicit_graph, read_topology
from serried.topology.tables import is_topology
from serried.units import format_quantity, parse_quantity, significant
from serried.weave import OPERATIONS, Synthesis, check, read_wires, stock_times_s, synthesise
from serried.weave.wires import Wires
from serried.weave.wires import wires as wires_of

__all__ = ["command"]


def command(
    operation: Annotated[str, typer.Argument(help=", ".join(each.replace("_", "-") for each in OPERATIONS[:4]))],
    fabric: Annotated[Path, typer.Option(help="explicit wires, a TOML file (docs/schedule.md)")],
    payload: Annotated[str, typer.Option("--bytes", help="the whole buffer, e.g. 64MiB")] = "64MiB",
    tiers: Annotated[str | None, typer.Option(help="groups for stock hierarchies, inside out, e.g. 4,2")] = None,
    step: Annotated[str, typer.Option(help="software cost of a message, e.g. 20us")] = "0 s",
    chunks: Annotated[int | None, typer.Option(min=1, max=256, help="chunks per rank; default: the fastest that all "
                                                          "forms can hold")] = None,
    root: Annotated[int, typer.Option(min=0, help="of a broadcast")] = 0,
    emit: Annotated[str, typer.Option(help=f"forms: {', '.join(WRITERS)}; comma-separated")] = "schedule",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="file name without ending")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """Fit a schedule to wires by packing trees; print the bound it reaches and what stock algorithms would take."""
    wanted = operation.replace("-", "_")
    if wanted not in OPERATIONS:
        raise BadInput(field="OPERATION", value=operation, expected=f"one of {', '.join(OPERATIONS)}",
                       remedy=f"Nearest: {', '.join(nearest(wanted, OPERATIONS)) or 'all_reduce'}.")
    forms = [form.strip() for form in emit.split(",") if form.strip()]
    for form in forms:
        if form not in WRITERS:
            raise BadInput(field="--emit", value=form, expected=f"some of {', '.join(WRITERS)}",
                           remedy="Separate them by commas.")
    wires = _wires(fabric)
    if root >= wires.endpoint_count:
        raise BadInput(field="--root", value=root, expected=f"an endpoint below {wires.endpoint_count}",
                       remedy="Endpoints count from 0.")
    groups = [int(part) for part in (tiers or "").split(",") if part.strip().isdecimal()]
    payload_bytes = parse_quantity(payload, "bytes", field="--bytes")
    step_s = parse_quantity(step, "s", field="--step")
    if payload_bytes <= 0 or step_s < 0:
        raise BadInput(field="--bytes", value=payload, expected="more than nothing", remedy="Write for example 64MiB.")
    begin_s = time.perf_counter()
    made, endings = _told(lambda grain: synthesise(wanted, wires, payload_bytes, root=root, step_s=step_s, grain=grain),
                          chunks, forms if out is not None else [], payload_bytes)
    check(made.schedule)
    wall_s = time.perf_counter() - begin_s
    stock = stock_times_s(wanted, wires, payload_bytes, tiers=groups, step_s=step_s, root=root)
    texts = [] if out is None else [(out.with_name(out.name + ending), content) for ending, content in endings.items()]
    for path, content in texts:
        write_whole(path, content)
    if as_json:
        print(json.dumps({
            "schema": "serried/collective-synthesise/1", "operation": wanted, "fabric": wires.name,
            "rank_count": wires.endpoint_count, "payload_bytes": payload_bytes, "bound_s": made.bound_s,
            "packed_s": made.packed_s, "chunked_s": made.chunked_s, "time_s": made.time_s,
            "tree_count": made.tree_count, "chunk_count": made.schedule.chunk_count,
            "step_count": len(made.schedule.steps), "stock_s": stock, "written": [str(path) for path, _ in texts],
            "timing": {"items": wires.endpoint_count, "unit": "endpoints", "wall_s": wall_s}}))
        return
    screen = console()
    screen.print(f"{wanted} of {format_quantity(payload_bytes, 'bytes')} on {wires.name}, {wires.endpoint_count} "
                 f"endpoints: {made.tree_count} trees in {made.schedule.chunk_count} chunks, "
                 f"{len(made.schedule.steps):,} steps, proven right ({wall_s:.1f} s).", markup=False)
    rows = [("bound: no schedule is faster", made.bound_s), ("trees on the fullest wire", made.packed_s),
            ("in whole chunks", made.chunked_s), ("fitted, with latency and pipelining", made.time_s),
            *((f"stock: {algorithm.replace('_', ' ')}", time_s) for algorithm, time_s in stock.items())]
    screen.print(table("", ["", "time", "over the bound"], [
        [label, format_quantity(time_s, "s"), significant(time_s / made.bound_s)] for label, time_s in rows]))
    faster = [algorithm.replace("_", " ") for algorithm, time_s in stock.items() if time_s < made.time_s]
    if faster:
        screen.print(f"On these wires {faster[0]} is predicted to be faster than the fitted schedule: try more chunks, "
                     "or take it.", markup=False)
    for path, _ in texts:
        screen.print(f"written: {path}", markup=False)


def _told(fit: Callable[[int | None], Synthesis], chunks: int | None, forms: Sequence[str],
          payload_bytes: float) -> tuple[Synthesis, dict[str, bytes]]:
    """The fitted schedule, and its files by ending. Unless the number of chunks is given there are as many as all forms
    can hold: half as many each time that one cannot."""
    made = fit(chunks)
    while True:
        try:
            return made, {ending: content for form in forms
                          for ending, content in WRITERS[form](made.schedule, payload_bytes).items()}
        except TooManySteps as limit:
            fewer = made.schedule.chunk_count // made.schedule.rank_count // 2
            if chunks is not None or not fewer:
                raise
            finer_s, made = made.time_s, fit(fewer)
            print(f"serried: {limit.value} cannot hold so many steps: half as many chunks, {fewer} a rank, take "
                  f"{format_quantity(made.time_s, 's')} instead of {format_quantity(finer_s, 's')}.", file=sys.stderr)


def _wires(path: Path) -> Wires:
    """The wires in a file: as this room writes them, or any topology small enough to be a graph."""
    if not is_topology(path):
        return read_wires(path)
    graph = explicit_graph(read_topology(path))
    links = zip(graph.source_L.tolist(), graph.target_L.tolist(), graph.bandwidth_bytes_per_s_L.tolist(),
                graph.latency_s_L.tolist(), strict=True)
    return wires_of(graph.name, graph.node_names, graph.endpoint_count, list(links), file=str(path))
