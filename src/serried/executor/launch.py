"""Every rank as a process: start them, wait, and gather what they measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serried.errors import BadInput, NoAnswer
from serried.executor.program import rank_programs
from serried.weave import Schedule, check

__all__ = ["Outcome", "run_schedule"]

_WORKER = Path(__file__).with_name("worker.py")
_ELEMENT_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """times_s: of each repeat, until the slowest rank was done; wrong of `checked` elements over all ranks."""

    times_s: tuple[float, ...]
    checked: int
    wrong: int
    payload_bytes: int


def run_schedule(schedule: Schedule, payload_bytes: int, *, python: str = sys.executable, repeats: int = 3,
                 backend: str = "gloo", patience_s: float = 120.0, prefix: Sequence[Sequence[str]] = (),
                 meet: str = "", library: bool = False) -> Outcome:
    """Run a schedule for real. python: an interpreter with PyTorch. prefix: words before each rank's command (a network
    namespace). meet: where ranks find each other, by default a file. library: the library's own all-reduce instead.

    Raises BadInput when the schedule is wrong, NoAnswer when a rank fails.
    """
    check(schedule)
    programs = rank_programs(schedule, -(-payload_bytes // _ELEMENT_BYTES))
    if subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode:
        raise BadInput(field="--python", value=python, expected="a Python that has PyTorch",
                       remedy='Install the extra: pip install "serried[executor]".')
    with tempfile.TemporaryDirectory(prefix="serried-run-") as folder:
        return _run(programs, Path(folder), python, repeats, backend, patience_s, prefix, meet, library)


def _run(programs: list[dict[str, object]], folder: Path, python: str, repeats: int, backend: str, patience_s: float,
         prefix: Sequence[Sequence[str]], meet: str, library: bool) -> Outcome:
    processes: list[subprocess.Popen[bytes]] = []
    asked = {"repeats": repeats, "backend": backend, "patience_s": patience_s, "library": library,
             "meet": meet or f"file://{folder / 'meet'}"}
    try:
        for rank, program in enumerate(programs):
            path = folder / f"rank{rank}.json"
            path.write_text(json.dumps(program | asked), encoding="utf-8")
            with (folder / f"rank{rank}.log").open("wb") as log:
                processes.append(subprocess.Popen([*(prefix[rank] if prefix else ()), python, str(_WORKER), str(path)],
                                                  stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}))
        _wait(processes, folder, patience_s)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
    told = [json.loads((folder / f"rank{rank}.json.done").read_text(encoding="utf-8"))
            for rank in range(len(programs))]
    return Outcome(times_s=tuple(max(times) for times in zip(*(each["times_s"] for each in told), strict=True)),
                   checked=sum(each["checked"] for each in told), wrong=sum(each["wrong"] for each in told),
                   payload_bytes=int(str(programs[0]["whole"])) * _ELEMENT_BYTES)


def _wait(processes: Sequence[subprocess.Popen[bytes]], folder: Path, patience_s: float) -> None:
    """Until all have ended well; the first that fails ends the wait, with the last line that it wrote."""
    end_s = time.monotonic() + patience_s
    while any(process.poll() is None for process in processes):
        failed = [rank for rank, process in enumerate(processes) if process.poll()]
        if failed or time.monotonic() > end_s:
            break
        time.sleep(0.02)
    for rank, process in enumerate(processes):
        if process.poll() != 0:
            lines = (folder / f"rank{rank}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise NoAnswer(f"rank {rank} did not finish: {lines[-1] if lines else 'no word within the time given'}.",
                           binding=f"rank {rank}", remedy="Give it more time or a smaller buffer.")
