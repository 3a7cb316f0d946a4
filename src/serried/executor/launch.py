"""Every rank as a process: start them, wait, and gather what they measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serried.errors import BadInput, NoAnswer
from serried.executor.program import rank_programs
from serried.weave import Schedule, check

__all__ = ["Outcome", "run_schedule", "run_schedules"]

_WORKER = Path(__file__).with_name("worker.py")
_ELEMENT_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """times_s: of each repeat, until the slowest rank was done; wrong of `checked` elements over all ranks."""

    times_s: tuple[float, ...]
    checked: int
    wrong: int
    payload_bytes: int


def run_schedule(schedule: Schedule, payload_bytes: int, **how: Any) -> Outcome:
    """Run one schedule for real; see `run_schedules`."""
    return run_schedules([schedule], payload_bytes, **how)[0]


def run_schedules(schedules: Sequence[Schedule], payload_bytes: int, *, python: str = sys.executable, repeats: int = 3,
                  backend: str = "gloo", patience_s: float = 300.0, namespaces: Sequence[str] = (), meet: str = "",
                  library: bool = False) -> list[Outcome]:
    """Run schedules one after the other on the same processes. python: an interpreter with PyTorch.

    namespaces: a network namespace per rank. meet: where ranks find each other, by default a file. library: at the end
    the library's own all-reduce of the same buffer as a further outcome.
    Raises BadInput when a schedule is wrong, NoAnswer when a rank fails.
    """
    programs: list[list[dict[str, Any]]] = []
    for schedule in schedules:
        check(schedule)
        each = rank_programs(schedule, -(-payload_bytes // _ELEMENT_BYTES))
        programs.append([program | {"library": False} for program in each])
    if library:
        programs.append([program | {"library": True} for program in programs[-1]])
    if subprocess.run([python, "-c", "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is None)"],
                      capture_output=True, check=False).returncode:
        raise BadInput(field="--python", value=python, expected="a Python that has PyTorch",
                       remedy='Install the extra: pip install "serried[executor]".')
    with tempfile.TemporaryDirectory(prefix="serried-run-") as folder:
        task = {"repeats": repeats, "backend": backend, "patience_s": patience_s,
                "rank_count": schedules[0].rank_count, "meet": meet or f"file://{folder}/meet"}
        told = _run(programs, task, Path(folder), python, namespaces)
    return [Outcome(times_s=tuple(max(times) for times in zip(*(rank[job]["times_s"] for rank in told), strict=True)),
                    checked=sum(rank[job]["checked"] for rank in told), wrong=sum(rank[job]["wrong"] for rank in told),
                    payload_bytes=int(programs[job][0]["whole"]) * _ELEMENT_BYTES) for job in range(len(programs))]


def _run(programs: Sequence[Sequence[dict[str, Any]]], task: dict[str, Any], folder: Path, python: str,
         namespaces: Sequence[str]) -> list[list[dict[str, Any]]]:
    """What every rank tells of every program."""
    paths = [folder / f"rank{rank}.json" for rank in range(task["rank_count"])]
    for rank, path in enumerate(paths):
        path.write_text(json.dumps({"rank": rank, "namespace": namespaces[rank] if namespaces else "",
                                    "programs": [each[rank] for each in programs]}), encoding="utf-8")
    (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
    command = [python, str(_WORKER), str(folder / "task.json"), *map(str, paths)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        try:
            _, said = process.communicate(timeout=task["patience_s"])
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as stopped:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(stopped, KeyboardInterrupt):
                raise
            raise NoAnswer(f"The ranks did not finish within {task['patience_s']:g} s.", binding="time",
                           remedy="Give them more time or a smaller buffer.") from None
    if process.returncode:
        for rank, path in enumerate(paths):
            failed = path.with_name(path.name + ".failed")
            if failed.exists():
                raise NoAnswer(f"Rank {rank} failed: {failed.read_text(encoding='utf-8')}.", binding=f"rank {rank}")
        last = said.decode(errors="replace").strip().splitlines()
        raise NoAnswer(f"The ranks did not start: {last[-1] if last else 'no word'}.", binding=python)
    return [json.loads(path.with_name(path.name + ".done").read_text(encoding="utf-8")) for path in paths]
