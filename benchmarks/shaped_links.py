"""Fitted all-reduce against gloo's own and a flat ring, on links that the kernel shapes between network namespaces.

Every endpoint and every switch (a bridge) is a namespace, every link a veth pair held to its rate at both ends. One
run on an even star calibrates the software cost of a message and the share of the rate that TCP reaches; the odd
fabrics are then predicted. Needs root and iproute2, and a Python with PyTorch in SERRIED_TORCH_PYTHON or .venv-tools.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks import Row
from serried.executor import run_schedules
from serried.weave import Wires, schedule_time_s, stock_schedule, synthesise
from serried.weave.wires import wires

PAYLOAD_BYTES = int(os.environ.get("SERRIED_SHAPED_BYTES", 64 << 20))
GAIN_BAR, LOSS_BAR, ERROR_BAR = 1.5, 0.95, 0.15
_RANKS = 8
_FAST, _SLOW, _THIN, _UP = 25e6, 5e6, 6.25e6, 12.5e6   # bytes/s: 200, 40, 50 and 100 Mbit/s
#: A bucket that holds the kernel's largest packet, 64 KiB and the headers of its segments: a smaller one has every
#: packet cut to pieces in software, which costs more CPU than all else and is no property of the wires.
_BURST = "80k"
_REPEATS = int(os.environ.get("SERRIED_SHAPED_REPEATS", 2))
_PYTHON = os.environ.get("SERRIED_TORCH_PYTHON", str(Path(__file__).parents[1] / ".venv-tools" / "bin" / "python"))


def fabrics() -> list[Wires]:
    """An even star for calibration, then the three odd ones."""
    names = [f"r{rank}" for rank in range(_RANKS)]

    def tree(name: str, switches: list[str], rates: dict[tuple[int, int], float]) -> Wires:
        links = [each for (one, other), rate in rates.items() for each in ((one, other, rate, 1e-4),
                                                                           (other, one, rate, 1e-4))]
        return wires(name, (*names, *switches), _RANKS, links)

    star = {(rank, _RANKS): _FAST for rank in range(_RANKS)}
    halves = {(rank, _RANKS + rank // 4): _FAST for rank in range(_RANKS)}
    return [tree("even star", ["s"], star), tree("one slow link", ["s"], star | {(3, _RANKS): _SLOW}),
            tree("two islands, thin bridge", ["s", "t"], halves | {(_RANKS, _RANKS + 1): _THIN}),
            tree("2 x 4 hierarchy", ["s", "t", "u"],
                 halves | {(_RANKS, _RANKS + 2): _UP, (_RANKS + 1, _RANKS + 2): _UP})]


def _ip(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@contextmanager
def laid(graph: Wires) -> Iterator[list[str]]:
    """The graph as namespaces; yields those of the endpoints."""
    spaces = [f"srd-{node}" for node in range(graph.node_count)]
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))   # so that it is cleared away too
    try:
        for node, space in enumerate(spaces):
            _ip("ip", "netns", "add", space)
            _ip("ip", "-n", space, "link", "set", "lo", "up")
            if node >= graph.endpoint_count:
                _ip("ip", "-n", space, "link", "add", "br0", "type", "bridge")
                _ip("ip", "-n", space, "link", "set", "br0", "up")
        for edge, (one, other) in enumerate(zip(graph.source_E.tolist(), graph.target_E.tolist(), strict=True)):
            if one < other:
                _link(graph, spaces, edge, one, other)
        yield spaces[:graph.endpoint_count]
    finally:
        for space in spaces:
            subprocess.run(("ip", "netns", "del", space), capture_output=True, check=False)
        signal.signal(signal.SIGTERM, before)


def _link(graph: Wires, spaces: list[str], edge: int, one: int, other: int) -> None:
    ends = [(spaces[end], "eth0" if end < graph.endpoint_count else f"p{edge}", end) for end in (one, other)]
    (first, first_name, _), (second, second_name, _) = ends
    _ip("ip", "link", "add", first_name, "netns", first, "type", "veth", "peer", "name", second_name, "netns", second)
    bits = f"{graph.bandwidth_bytes_per_s_E[edge] * 8:.0f}bit"
    for space, name, end in ends:
        if end < graph.endpoint_count:
            _ip("ip", "-n", space, "addr", "add", f"10.77.0.{end + 1}/24", "dev", name)
        else:
            _ip("ip", "-n", space, "link", "set", name, "master", "br0")
        _ip("ip", "-n", space, "link", "set", name, "up")
        _ip("tc", "-n", space, "qdisc", "add", "dev", name, "root", "tbf", "rate", bits, "burst", _BURST, "limit", "1m")


def run() -> list[Row]:
    """Rows per fabric, or none with a word why."""
    if os.geteuid() or not shutil.which("ip") or not shutil.which("tc") or not Path(_PYTHON).exists():
        print("shaped links: skipped, needs root, iproute2 and a Python with PyTorch", file=sys.stderr)
        return []
    os.environ["GLOO_SOCKET_IFNAME"] = "eth0"
    even, *odd = fabrics()
    ring = stock_schedule("all_reduce", "ring", _RANKS, chunks=1)
    with laid(even) as spaces:
        small, large = (min(run_schedules([ring], size, python=_PYTHON, namespaces=spaces, repeats=3)[0].times_s)
                        for size in (1 << 16, PAYLOAD_BYTES // 4))
    reached, step_s, messages = 1.0, 0.0, 2 * (_RANKS - 1)
    for _ in range(20):                      # two unknowns, each from the run in which it weighs
        step_s = max((small - schedule_time_s(ring, even, 1 << 16) / reached) / messages, 0.0)
        reached = schedule_time_s(ring, even, PAYLOAD_BYTES / 4) / (large - messages * step_s)
    rows = [Row(name="calibration: share of the rate reached", value=reached, unit="1"),
            Row(name="calibration: software cost of a message", value=step_s, unit="s")]
    gains, errors = [], []
    for graph in odd:
        slower = replace(graph, bandwidth_bytes_per_s_E=graph.bandwidth_bytes_per_s_E * reached)
        made = synthesise("all_reduce", slower, PAYLOAD_BYTES, step_s=step_s)
        with laid(graph) as spaces:
            fitted, flat, library = run_schedules([made.schedule, ring], PAYLOAD_BYTES, python=_PYTHON,
                                                  namespaces=spaces, repeats=_REPEATS, library=True)
        assert fitted.wrong == flat.wrong == 0, "a proven schedule adds up right"
        best_s, gloo_s, ring_s = (min(each.times_s) for each in (fitted, library, flat))
        predicted = {"fitted": (made.time_s, best_s), "flat ring": (
            schedule_time_s(ring, slower, PAYLOAD_BYTES, step_s=step_s), ring_s)}
        gains.append(gloo_s / best_s)
        rows += [Row(name=f"{graph.name}: bound", value=made.bound_s * reached, unit="s"),
                 Row(name=f"{graph.name}: fitted", value=best_s, unit="s"),
                 Row(name=f"{graph.name}: gloo", value=gloo_s, unit="s"),
                 Row(name=f"{graph.name}: flat ring", value=ring_s, unit="s"),
                 Row(name=f"{graph.name}: fitted over gloo", value=gains[-1], unit="x", bar=f">= {LOSS_BAR} x",
                     met=gains[-1] >= LOSS_BAR)]
        for name, (told_s, measured_s) in predicted.items():
            errors.append(abs(told_s / measured_s - 1))
            rows.append(Row(name=f"{graph.name}: {name}, predicted over measured", value=told_s / measured_s, unit="1"))
    second = sorted(gains)[-2]
    error = statistics.median(errors)
    return [*rows, Row(name="fitted over gloo on two of three", value=second, unit="x", bar=f">= {GAIN_BAR} x",
                       met=second >= GAIN_BAR),
            Row(name="predicted against measured, median error", value=error, unit="1", bar=f"<= {ERROR_BAR}",
                met=error <= ERROR_BAR)]
