"""Plans of collectives as files: which forms are written, which are read, and what is proven of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from serried.emit.chakra import read_chakra, write_chakra
from serried.emit.goal import read_goal, write_goal
from serried.emit.msccl_xml import read_msccl_xml, write_msccl_xml
from serried.emit.mscclpp_json import write_mscclpp_json
from serried.emit.mscclpp_plan import schedule_of_mscclpp
from serried.emit.nccl_tuner import check_ranges, read_nccl_tuner
from serried.emit.traffic import Task
from serried.errors import BadInput
from serried.weave import Schedule, check, schedule_of_json, schedule_to_json
from serried.weave.schedule_file import read_json

__all__ = ["WRITERS", "Proof", "prove", "read_plan"]

#: Form -> endings and contents of a schedule's files, for a whole buffer of so many bytes.
WRITERS: Mapping[str, Callable[[Schedule, float], Mapping[str, bytes]]] = {
    "schedule": lambda schedule, _: {".json": (json.dumps(schedule_to_json(schedule)) + "\n").encode()},
    "msccl-xml": lambda schedule, _: {".xml": write_msccl_xml(schedule).encode()},
    "mscclpp-json": lambda schedule, _: {".mscclpp.json": write_mscclpp_json(schedule).encode()},
    "chakra": write_chakra,
    "goal": lambda schedule, payload_bytes: {".goal": write_goal(schedule, payload_bytes).encode()},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was read, and how far it is proven: `data` = every rank ends right, without deadlock or race; `traffic` =
    every message meets and nothing waits for ever; `choice` = every size has one known algorithm. chunk_count is 0
    where the form holds none, and so is rank_count in a table for any number."""

    form: str
    name: str
    operation: str
    rank_count: int
    chunk_count: int
    step_count: int
    proven: str


def _read(path: Path) -> tuple[str, Schedule | list[Task]]:
    """(form, what it says), not yet proven where it is a schedule."""
    if path.suffix == ".xml":
        return "msccl-xml", read_msccl_xml(path)
    if path.suffix == ".et":
        return "chakra", read_chakra(path)
    if path.suffix == ".goal":
        return "goal", read_goal(_text(path), file=str(path))
    told = read_json(path)
    if isinstance(told, dict) and "gpus" in told:
        return "mscclpp-json", schedule_of_mscclpp(told, file=str(path))
    return "schedule", schedule_of_json(told, file=str(path))


def read_plan(path: Path, *, ranks: int | None = None) -> Schedule:
    """A plan of a form that says what happens to the data. Raises BadInput, also when it is for other ranks."""
    form, told = _read(path)
    if not isinstance(told, Schedule):
        raise BadInput(field=str(path), value=form, expected="a plan that says what happens to the data",
                       remedy="Use a schedule, MSCCL XML, an MSCCL++ plan or a trace that serried wrote.")
    _for_ranks(path, told.rank_count, ranks)
    return told


def prove(path: Path, *, ranks: int | None = None) -> Proof:
    """Read a file of any form that is written here and prove what it can say; BadInput with the place where not."""
    if path.suffix == ".csv":
        rows = read_nccl_tuner(path)
        check_ranges(rows, file=str(path), ranks=ranks)
        return Proof(form="nccl-tuner", name="", operation=", ".join(sorted({row["collective_type"] for row in rows})),
                     rank_count=ranks or 0, chunk_count=0, step_count=len(rows), proven="choice")
    form, told = _read(path)
    if not isinstance(told, Schedule):
        count = 1 + max((max(task.rank, task.peer) for task in told), default=0)
        _for_ranks(path, count, ranks)
        return Proof(form=form, name="", operation="", rank_count=count, chunk_count=0, step_count=len(told),
                     proven="traffic")
    _for_ranks(path, told.rank_count, ranks)
    check(told, file=str(path))
    return Proof(form=form, name=told.name, operation=told.operation, rank_count=told.rank_count,
                 chunk_count=told.chunk_count, step_count=len(told.steps), proven="data")


def _for_ranks(path: Path, found: int, wanted: int | None) -> None:
    if wanted is not None and found != wanted:
        raise BadInput(file=str(path), field="ranks", value=found, expected=f"a plan for {wanted} ranks",
                       remedy="Use a plan that was made for as many ranks as there are.")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(field=str(path), value=getattr(error, "strerror", None) or "not text",
                       expected="a file that can be read", remedy="Correct the path.") from None
