"""Plans of collectives as files: which forms are written, and which are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from serried.emit.msccl_xml import read_msccl_xml, write_msccl_xml
from serried.errors import BadInput
from serried.weave import Schedule, read_schedule, schedule_to_json

__all__ = ["WRITERS", "read_plan"]

#: Form -> (ending, writer).
WRITERS: Mapping[str, tuple[str, Callable[[Schedule], str]]] = {
    "schedule": (".json", lambda schedule: json.dumps(schedule_to_json(schedule)) + "\n"),
    "msccl-xml": (".xml", write_msccl_xml),
}


def read_plan(path: Path, *, ranks: int | None = None) -> Schedule:
    """A plan of any known form, by its ending. Raises BadInput, also when it is for another number of ranks."""
    schedule = read_msccl_xml(path) if path.suffix == ".xml" else read_schedule(path)
    if ranks is not None and schedule.rank_count != ranks:
        raise BadInput(file=str(path), field="ranks", value=schedule.rank_count, expected=f"a plan for {ranks} ranks",
                       remedy="Use a plan that was made for as many ranks as there are.")
    return schedule
