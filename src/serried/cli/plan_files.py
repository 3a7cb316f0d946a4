"""What `serried plan --emit` writes: whole files or none."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from serried.emit.megatron import megatron_arguments
from serried.emit.torchtitan import torchtitan_arguments
from serried.emit.trace import trace_json
from serried.errors import BadInput
from serried.files import write_whole
from serried.planner import Machine, SearchResult, timeline
from serried.workload import Training

__all__ = ["EMITTERS", "EXPRESSIBLE", "emitters", "write_plan", "write_texts"]


def _launch(machine: Machine, program: str, words: Sequence[str]) -> str:
    """A torchrun line per node and the words of the tool, one argument a line."""
    per_node = min(machine.fabric.node_size or machine.chip_count, machine.chip_count)
    nodes = -(-machine.chip_count // per_node)
    lines, line = [], ""
    for word in words:
        if word.startswith("-") and line:
            lines.append(line)
            line = ""
        line += ("" if not line else " ") + shlex.quote(word)
    arguments = " \\\n  ".join([*lines, line])
    return (f'#!/usr/bin/env bash\nset -euo pipefail\ntorchrun --nnodes {nodes} --nproc-per-node {per_node} '
            f'--node-rank "${{NODE_RANK:-0}}" --master-addr "${{MASTER_ADDR:-localhost}}" \\\n  {program} \\\n'
            f"  {arguments}\n")


def _megatron(job: Training, machine: Machine, found: SearchResult) -> str:
    return _launch(machine, "pretrain_gpt.py", megatron_arguments(job, found.layouts.row(0)))


def _torchtitan(job: Training, machine: Machine, found: SearchResult) -> str:
    words = torchtitan_arguments(job, found.layouts.row(0), chip_count=machine.chip_count)
    return _launch(machine, "-m torchtitan.train", words)


def _trace(job: Training, machine: Machine, found: SearchResult) -> str:
    return trace_json(timeline(found.estimate, found.layouts, 0), title=f"{job.model.name} on {machine.chip.name}")


#: name -> file name and writer.
EMITTERS: Mapping[str, tuple[str, Callable[[Training, Machine, SearchResult], str]]] = {
    "megatron": ("megatron.sh", _megatron), "torchtitan": ("torchtitan.sh", _torchtitan),
    "trace": ("trace.json", _trace),
}
#: What a tool can express: a plan that is to be emitted is searched among these.
EXPRESSIBLE: Mapping[str, Mapping[str, Sequence[object]]] = {
    "megatron": {"schedule": ["1f1b", "interleaved"]},
    "torchtitan": {"sharding": [0, 3], "recompute": ["none", "selective", "full"], "expert_tp": [1]},
}


def write_plan(job: Training, machine: Machine, found: SearchResult, wanted: Sequence[str], folder: Path) -> list[Path]:
    """Emit the best layout with every writer of `wanted`; nothing is written when one of them refuses."""
    return write_texts([(EMITTERS[name][0], EMITTERS[name][1](job, machine, found)) for name in wanted], folder)


def write_texts(texts: Sequence[tuple[str, str]], folder: Path) -> list[Path]:
    """Write (file name, text) each, in a folder that is made where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(field="--out", value=str(folder), expected="a folder that can be written",
                       remedy=f"{error.strerror}; nothing was written.") from None
    for file, text in texts:
        write_whole(folder / file, text)
    return [folder / file for file, _ in texts]


def emitters(text: str | None, known: Iterable[str]) -> list[str]:
    """The names of --emit; BadInput for one that is not known."""
    wanted = [name.strip() for name in (text or "").split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise BadInput(field="--emit", value=name, expected=f"some of {', '.join(known)}",
                           remedy="Separate them by commas.")
    return wanted
