"""`serried calibrate NAME`: fit a chip's kernels, a fabric's collectives or a stack on your own measurements."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from serried.display.plain import plain
from serried.display.progress import progress_bar
from serried.display.terminal import console
from serried.errors import BadInput
from serried.files import write_whole
from serried.silicon import Chip, read_chip

if TYPE_CHECKING:
    from serried.calibration.own import OwnFit

__all__ = ["command"]

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
#: kind of file -> the option by which `gap` and `plan` take it.
_USE = {"profile": "--profile", "collectives": "--collectives", "stack": "--stack"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """One file to write: its kind (a key of _USE), its text, and the fits behind it."""

    kind: str
    text: str
    fits: Sequence[OwnFit]


def command(
    name: Annotated[str, typer.Argument(help="a chip of the catalogue, a chip file, or with --stack the stack's name")],
    gemm: Annotated[Path | None, typer.Option(help="CSV: m, n, k, dtype, time_us (captured launches)")] = None,
    attention: Annotated[Path | None, typer.Option(help="CSV: columns of kernels/attention_*.csv, time_us; `phase` "
                                                        "backward for gradients")] = None,
    memory: Annotated[Path | None, typer.Option(help="CSV: name, read_bytes, write_bytes, kernels, time_us, of kernels "
                                                     "that only move bytes")] = None,
    collectives: Annotated[list[Path] | None, typer.Option(help="text output of nccl-tests; repeatable")] = None,
    stack: Annotated[Path | None, typer.Option(help="CSV of runs: columns of training/published.csv")] = None,
    chip: Annotated[str | None, typer.Option(help="the chip, where NAME is to be another name")] = None,
    fabric: Annotated[str | None, typer.Option(help="what the logs ran on; default: the chip's own fabric")] = None,
    library: Annotated[str, typer.Option(help="time column LIBRARY_us, where there is no time_us")] = "",
    base: Annotated[str | None, typer.Option(help="with --stack: the stack whose recipe yours has")] = None,
    out: Annotated[Path | None, typer.Option(help="file to write; default: NAME.profile.toml and the like")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """Fit physical parameters on your own measurements and write them as a file that `gap` and `plan` take."""
    label = _label(name)
    tasks = _tasks(label, name, chip=chip, gemm=gemm, attention=attention, memory=memory,
                   collectives=collectives or [], stack=stack, fabric=fabric, library=library, base=base)
    if out is not None and len(tasks) > 1:
        raise BadInput(field="--out", value=str(out), expected=f"one kind of measurement, not {len(tasks)}",
                       remedy="Leave --out away, or calibrate one kind at a time.")
    started_s = time.perf_counter()
    made = []
    with progress_bar("fitting", quiet=as_json) as report:
        for position, task in enumerate(tasks):
            if report is not None:
                report(position, len(tasks))
            made.append(task())
    wall_s = time.perf_counter() - started_s
    written = {one.kind: out or Path(f"{label}.{one.kind}.toml") for one in made}
    for one in made:
        write_whole(written[one.kind], one.text)
    if as_json:
        print(json.dumps(_answer(label, made, written, wall_s)))
        return
    _print(made, written)


def _tasks(label: str, name: str, *, chip: str | None, gemm: Path | None, attention: Path | None,
           memory: Path | None, collectives: Sequence[Path], stack: Path | None, fabric: str | None, library: str,
           base: str | None) -> list[Callable[[], _Made]]:
    """What is to be fitted; nothing runs before every name on the command line is known."""
    if gemm is None and attention is None and memory is None and not collectives and stack is None:
        raise BadInput(field="--gemm / --attention / --memory / --collectives / --stack", value=None,
                       expected="at least one file of measurements", remedy="Say for example --gemm gemm.csv.")
    if base is not None and stack is None:
        raise BadInput(field="--base", value=base, expected="to stand beside --stack", remedy="Add --stack runs.csv.")
    for path in filter(None, (gemm, attention, memory, stack, *collectives)):
        if not path.is_file():
            raise BadInput(file=str(path), field="file", value=path.name, expected="a readable file",
                           remedy="Check the path.")
    tasks: list[Callable[[], _Made]] = []
    if gemm is not None or attention is not None or memory is not None:
        silicon = _chip(chip or name)
        tasks.append(lambda: _kernels(label, silicon, gemm, attention, memory, library))
    if collectives:
        wires = fabric or _chip(chip or name).fabric
        tasks.append(lambda: _collectives(label, wires, collectives))
    if stack is not None:
        runs = stack
        tasks.append(lambda: _stack(label, runs, base))
    return tasks


def _label(name: str) -> str:
    """What the files are called: the name, or the stem of the chip file."""
    label = Path(name).name.removesuffix(".toml")
    if not _NAME.match(label):
        raise BadInput(field="NAME", value=name, expected="letters, digits, dots, hyphens and underscores",
                       remedy="Call it for example my-chip.")
    return label


def _chip(name: str) -> Chip:
    try:
        return read_chip(name)
    except BadInput as error:
        if error.file or error.field != "chip":
            raise
        raise BadInput(field="chip", value=name, expected=error.expected, remedy=f"{error.remedy} A chip of your own "
                       f"is a file: give its path, or --chip with the nearest known one.") from None


def _kernels(label: str, chip: Chip, gemm: Path | None, attention: Path | None, memory: Path | None,
             library: str) -> _Made:
    from serried.calibration.own import fit_own_attention, fit_own_gemm, own_profile_text
    from serried.calibration.own_memory import fit_own_backward, fit_own_memory
    from serried.compiler import profile_for

    base = profile_for(chip)
    fits: list[OwnFit] = []
    if gemm is not None:
        fits += fit_own_gemm(gemm, chip, base, library=library).values()
    if attention is not None:
        forward = fit_own_attention(attention, chip, base, library=library)
        fits += forward.values()
        known = [fit for (family, _), fit in forward.items() if family == "attention"]
        backward = fit_own_backward(attention, chip, base, known[0] if known else None)
        fits += [backward] if backward is not None else []
    if memory is not None:
        fits.append(fit_own_memory(memory, chip, base))
    return _Made(kind="profile", text=own_profile_text(label, chip, fits), fits=fits)


def _collectives(label: str, fabric: str, logs: Sequence[Path]) -> _Made:
    from serried.calibration.own import fit_own_collectives
    from serried.fabric import read_fabric

    if not fabric:
        raise BadInput(field="--fabric", value=None, expected="what the logs ran on", remedy="The chip names no fabric "
                       "of its own; `serried catalogue fabrics` lists them.")
    fit, text = fit_own_collectives(logs, read_fabric(fabric), label)
    return _Made(kind="collectives", text=text, fits=[fit])


def _stack(label: str, runs: Path, base: str | None) -> _Made:
    from serried.calibration.own_stack import fit_own_stack

    found = fit_own_stack(runs, label, base=base)
    return _Made(kind="stack", text=found.text, fits=found.fits)


def _print(made: Sequence[_Made], written: dict[str, Path]) -> None:
    from serried.display.calibration import print_calibration

    screen = console()
    for one in made:
        print_calibration(one.fits, screen)
    screen.print()
    for one in made:
        screen.print(f"written: {written[one.kind]}  (use it: serried gap ... {_USE[one.kind]} {written[one.kind]})",
                     markup=False)


def _answer(label: str, made: Sequence[_Made], written: dict[str, Path], wall_s: float) -> dict[str, Any]:
    fits = [{"kind": one.kind, **_fit(fit)} for one in made for fit in one.fits]
    answer: dict[str, Any] = plain({
        "schema": "serried/calibrate/1", "name": label, "fits": fits,
        "written": {kind: str(path) for kind, path in written.items()},
        "timing": {"items": sum(fit["rows"] for fit in fits), "unit": "cases", "wall_s": wall_s}})
    return answer


def _fit(fit: OwnFit) -> dict[str, Any]:
    before = np.log(fit.before_s / fit.measured_s)
    return {"subject": fit.subject, "start": fit.start, "rows": len(fit.labels), "skipped": list(fit.skipped),
            "before": _errors(before), "after": _errors(fit.residual_ln),
            "held_out": _errors(fit.unseen_ln) if len(fit.unseen_ln) else None,
            "parameters": list(fit.moved),
            "cases": [{"id": label, "measured_s": measured, "predicted_s": predicted} for label, measured, predicted in
                      zip(fit.labels, fit.measured_s.tolist(), fit.predicted_s.tolist(), strict=True)]}


def _errors(residual_ln: Any) -> dict[str, Any]:
    error = np.expm1(np.abs(residual_ln))
    return {"n": len(error), "median_abs_error": float(np.median(error)),
            "p90_abs_error": float(np.quantile(error, 0.9))}
