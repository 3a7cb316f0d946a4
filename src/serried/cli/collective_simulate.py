"""`serried collective simulate OP --fabric FILE`: time under contention, failures and other jobs."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

from serried.cli.topologies import parse_operation, parse_sizes, size_words, topology_with
from serried.display.plain import plain
from serried.display.terminal import console, table
from serried.errors import BadInput
from serried.fabric.observations import bus_ratio
from serried.topology import wire
from serried.topology.simulation import PLACEMENTS, Simulated, axis_rates, simulate
from serried.topology.wires import ROUTINGS
from serried.units import format_quantity

__all__ = ["command"]


def command(
    operation: Annotated[str, typer.Argument(metavar="OP", help="all-reduce, all-gather, reduce-scatter, ...")],
    fabric: Annotated[str, typer.Option(help="a topology file, as `fabric build` writes it")],
    asked: Annotated[str, typer.Option("--bytes", help="size or range, e.g. 1GiB or 1KiB..8GiB")] = "1GiB",
    routing: Annotated[str, typer.Option(help=", ".join(ROUTINGS))] = "ecmp",
    fail: Annotated[list[str] | None, typer.Option(help="what is out of order, e.g. link:3, spine:0")] = None,
    jobs: Annotated[int, typer.Option(help="equal jobs at the same time")] = 1,
    placement: Annotated[str, typer.Option(help=", ".join(PLACEMENTS))] = "packed",
    axes: Annotated[str | None, typer.Option(help="of one job at once, inside out: tp=8:ring,dp=64:direct")] = None,
    draws: Annotated[int, typer.Option(min=1, max=10_000, help="draws of the hash under ecmp")] = 4,
    queue_pairs: Annotated[int, typer.Option(min=1, max=64, help="hashed parts of a flow, for each port")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="of the draws")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """Route every flow, share every link, and time each algorithm on what is left."""
    name, sizes = parse_operation(operation), parse_sizes(asked)
    started_s = time.perf_counter()
    wired = wire(topology_with(fabric, fail))
    found = simulate(name, sizes, wired, routing=routing, jobs=jobs, placement=placement, draws=draws, seed=seed,
                     queue_pairs=queue_pairs)
    shared = axis_rates(wired, _axes(axes), routing=routing, seed=seed, queue_pairs=queue_pairs) if axes else {}
    answer = _answer(name, found, shared, routing, jobs, time.perf_counter() - started_s)
    if as_json:
        print(json.dumps(answer))
        return
    screen = console()
    screen.print(f"{operation} over {found.ranks:,} of {found.endpoints:,} chips, {jobs} job{'s' * (jobs > 1)}, "
                 f"{routing}, {placement}", markup=False)
    rows = [[size_words(row["payload_bytes"]), row["algorithm"], row["protocol"], format_quantity(row["time_s"], "s"),
             f"{format_quantity(row['low_s'], 's')} … {format_quantity(row['high_s'], 's')}",
             format_quantity(row["bus_bandwidth_bytes_per_s"], "bytes/s"), f"{row['slowdown']:.2f}"]
            for row in answer["sizes"]]
    screen.print(table("", ["size", "algorithm", "protocol", "time", "draws, 80 %", "bus bandwidth", "slowdown"], rows,
                       left=3))
    screen.print("fullest links: " + (", ".join(f"{row['link']} {row['used']:.0%}" for row in answer["bottlenecks"])
                                      or "none"), markup=False)
    for row in answer["axes"]:
        screen.print(f"axis {row['axis']}: {_pace(row['alone_bytes_per_s'])} alone, "
                     f"{_pace(row['shared_bytes_per_s'])} with the others", markup=False)
    screen.print(f"{found.endpoints:,} endpoints in {answer['timing']['wall_s']:.2f} s", markup=False)


def _pace(rate: float | None) -> str:
    return "off the adapters" if rate is None else format_quantity(rate, "bytes/s")


def _axes(text: str) -> dict[str, tuple[int, int, str]]:
    """`tp=8:ring,dp=64:direct`, from the inside out: each axis' stride is the product of those before it."""
    found: dict[str, tuple[int, int, str]] = {}
    stride = 1
    for part in text.split(","):
        name, _, rest = part.partition("=")
        digits, _, pattern = rest.partition(":")
        if not digits.isdigit() or not 2 <= int(digits) <= 4_000_000 or pattern not in ("", "ring", "direct"):
            raise BadInput(field="--axes", value=part, expected="NAME=DEGREE[:ring|direct], e.g. ep=16:direct",
                           remedy="List the axes from the inside out.")
        found[name.strip()] = (int(digits), stride, pattern or "ring")
        stride *= int(digits)
    return found


def _answer(operation: str, found: Simulated, shared: dict[str, tuple[float, float]], routing: str, jobs: int,
            wall_s: float) -> dict[str, Any]:
    rows = []
    for row, best in enumerate(found.best):
        way, payload = found.ways[best], float(found.payload_bytes[row])
        rows.append({"payload_bytes": payload, "algorithm": way.algorithm, "protocol": way.protocol,
                     "time_s": float(way.time_s[row]), "low_s": float(way.low_s[row]), "high_s": float(way.high_s[row]),
                     "bus_bandwidth_bytes_per_s": bus_ratio(operation, found.ranks) * payload / float(way.time_s[row]),
                     "slowdown": way.slowdown, "stock_time_s": float(found.ways[found.stock[row]].time_s[row])})
    last = rows[-1]
    answer: dict[str, Any] = plain({
        "schema": "serried/collective-simulate/1", "operation": operation, "ranks": found.ranks, "jobs": jobs,
        "routing": routing, "time_s": last["time_s"], "bus_bandwidth_bytes_per_s": last["bus_bandwidth_bytes_per_s"],
        "algorithm": last["algorithm"], "protocol": last["protocol"], "sizes": rows,
        "bottlenecks": [{"link": link, "used": used} for link, used in found.ways[found.best[-1]].bottlenecks],
        "axes": [{"axis": axis, "alone_bytes_per_s": _finite(alone), "shared_bytes_per_s": _finite(together)}
                 for axis, (alone, together) in shared.items()],
        "timing": {"items": found.endpoints, "unit": "endpoints", "wall_s": wall_s}})
    return answer


def _finite(rate: float) -> float | None:
    return rate if rate < float("inf") else None
