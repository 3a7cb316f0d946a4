"""`serried evidence`: every accuracy figure, recomputed from measurements; `--cases FILE`: from your own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from serried.display.evidence import print_evidence
from serried.display.progress import progress_bar
from serried.display.terminal import console
from serried.evidence.cases import answer
from serried.evidence.harness import AREAS, run_evidence
from serried.evidence.page import evidence_page
from serried.files import write_whole

__all__ = ["command"]


def command(
    area: Annotated[list[str] | None, typer.Option(help=f"{', '.join(AREAS)}; repeatable; all by default")] = None,
    cases: Annotated[Path | None, typer.Option(help="a CSV with the columns of one of the shipped files")] = None,
    write: Annotated[Path | None, typer.Option(help="write the accuracy page as Markdown")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """Predict every measured case and say how far off each is."""
    with progress_bar("predicting measured cases", quiet=as_json) as report_progress:
        report = run_evidence(area or AREAS, cases, progress=report_progress and (
            lambda done, _: report_progress(done, max(done, 1))))
    if write is not None:
        write_whole(write, evidence_page(report))
    if as_json:
        print(json.dumps(answer(report)))
        return
    print_evidence(report, console())
    if write is not None:
        console().print(f"page written: {write}", markup=False)
