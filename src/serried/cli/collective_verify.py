"""`serried collective verify FILE`: symbolic execution of a plan, its own or an imported one."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from serried.cli.collective_files import Proof, prove
from serried.display.terminal import console

__all__ = ["command"]

_WORDS = {"data": "every contribution once, no deadlock, no race",
          "traffic": "every message meets, no deadlock; what is added to what, this form does not say",
          "choice": "every line is read, no size has two choices"}


def command(
    file: Annotated[Path, typer.Argument(help="a schedule or MSCCL++ plan (.json), MSCCL XML (.xml), Chakra trace "
                                              "(.RANK.et), GOAL (.goal) or NCCL tuner table (.csv)")],
    ranks: Annotated[int | None, typer.Option(min=1, help="ranks that it must be for")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """Prove that a plan ends right on every rank, without deadlock or race; or say where it does not."""
    begin_s = time.perf_counter()
    proof = prove(file, ranks=ranks)
    wall_s = time.perf_counter() - begin_s
    if as_json:
        print(json.dumps({"schema": "serried/collective-verify/1", "file": str(file)} | asdict(proof) | {
            "timing": {"items": proof.rank_count, "unit": "endpoints", "wall_s": wall_s}}))
        return
    console().print(f"{file}: {_what(proof)}, {_WORDS[proof.proven]} ({wall_s:.2f} s).", markup=False)


def _what(proof: Proof) -> str:
    if proof.proven == "choice":
        return f"{proof.step_count:,} lines for {proof.operation}"
    chunks = f" on {proof.chunk_count:,} chunks" if proof.chunk_count else ""
    return (f"{proof.operation or proof.form} on {proof.rank_count} ranks is right: {proof.step_count:,} steps{chunks}")
