"""`serried plan --serve`: the best deployments of a steady load."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serried.cli.arguments import check_format
from serried.display.page import page
from serried.display.plain import plain
from serried.display.spec import Section
from serried.display.terminal import console, table
from serried.errors import BadInput
from serried.evidence.intervals import interval
from serried.fabric import Pool
from serried.files import write_whole
from serried.insight import serving_machine
from serried.planner import FORMATS
from serried.serving import ServingSearch, search_static
from serried.serving.spec import CACHE_FORMATS
from serried.software import read_stack
from serried.workload import Serving

__all__ = ["plan_serving"]

_HEADER = ("", "tokens/s", "80 % interval", "per chip", "TTFT ms", "TPOT ms", "batch", "GB", "deployment")


def plan_serving(job: Serving, pool: Pool, *, stack: str | None, library: str | None, top: int,
                 pins: Mapping[str, Sequence[Any]], emit: Sequence[str], as_json: bool, html: Path | None) -> None:
    """Search every legal deployment and print the best."""
    if emit:
        raise BadInput(field="--emit", value=",".join(emit), expected="objectives beside it",
                       remedy="Add --slo, so that a load in time is searched, whose batching the commands can state.")
    _refuse_unknown_formats(pins, pool)
    machine = serving_machine(pool, None if stack is None else read_stack(stack, pool.chip.family),
                              library=library)
    started_s = time.perf_counter()
    found = search_static(job, machine, top=top, **pins)
    wall_s = time.perf_counter() - started_s
    spread = interval("serving", machine.profile.evidence_class)
    rows = _rows(found, spread)
    lead = (f"{job.model.name}, {job.input_tokens} tokens in, {job.output_tokens} out, {job.concurrency} in flight, on "
            f"{machine.chip_count} {machine.chip.name} ({machine.fabric.name}), {machine.stack.name}")
    if html is not None:
        write_whole(html, page("Best deployments", lead, [Section(title="Best first", header=_HEADER, rows=rows)]))
    if as_json:
        print(json.dumps(plain({
            "schema": "serried/plan-serving/1", "chip": machine.chip.name, "chip_count": machine.chip_count,
            "stack": machine.stack.name, "evidence_class": machine.profile.evidence_class,
            "deployments": [_answer(found, row, spread) for row in range(len(found.deployments))],
            "evaluated": found.evaluated, "fitting": found.fitting,
            "timing": {"items": found.evaluated, "unit": "layouts", "wall_s": wall_s}})))
        return
    screen = console()
    screen.print(lead, markup=False)
    screen.print(table("Best deployments", _HEADER, rows))
    screen.print(f"\n{found.evaluated:,} legal deployments evaluated, {found.fitting:,} fit, in {wall_s:.2f} s. "
                 f"Evidence: {machine.profile.evidence_class}.", markup=False)


def _refuse_unknown_formats(pins: Mapping[str, Sequence[Any]], pool: Pool) -> None:
    for name, known in (("weight_formats", FORMATS), ("cache_formats", tuple(CACHE_FORMATS))):
        for value in pins.get(name, ()):
            if value not in known:
                raise BadInput(field=f"--pin {name}", value=value, expected=f"some of {', '.join(known)}",
                               remedy=f"Write for example --pin {name}={known[0]}|{known[-1]}.")
    for value in pins.get("weight_formats", ()):
        check_format(pool, value, "--pin weight_formats")


def _rows(found: ServingSearch, spread: tuple[float, float]) -> list[list[str]]:
    rows, estimate = [], found.estimate
    for row in range(len(found.deployments)):
        rate = float(estimate.output_tokens_per_s[row])
        words = ", ".join(f"{name}={value}" for name, value in found.deployments.row(row).items()
                          if value not in (0, 1, "bf16") or name == "tp")
        rows.append([str(row + 1), f"{rate:,.0f}", f"{rate * spread[0]:,.0f} … {rate * spread[1]:,.0f}",
                     f"{estimate.output_tokens_per_s_per_chip[row]:,.1f}", f"{estimate.ttft_s[row] * 1e3:,.4g}",
                     f"{estimate.tpot_s[row] * 1e3:,.4g}", f"{estimate.batch[row]:,.0f}",
                     f"{estimate.memory_bytes[row] / 1e9:.1f}", words])
    return rows


def _answer(found: ServingSearch, row: int, spread: tuple[float, float]) -> dict[str, Any]:
    estimate, rate = found.estimate, float(found.estimate.output_tokens_per_s[row])
    return {"deployment": found.deployments.row(row), "output_tokens_per_s": rate, "low": rate * spread[0],
            "high": rate * spread[1], "output_tokens_per_s_per_chip": float(estimate.output_tokens_per_s_per_chip[row]),
            "ttft_s": float(estimate.ttft_s[row]), "tpot_s": float(estimate.tpot_s[row]),
            "batch": float(estimate.batch[row]), "memory_bytes": float(estimate.memory_bytes[row])}
