"""What `serried plan --emit` writes of a serving deployment: launch commands and Kubernetes manifests."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serried.catalogue.entry import DATA, read_toml
from serried.cli.plan_files import write_texts
from serried.emit.engines import ENGINES, nodes_of, router_words
from serried.emit.kubernetes import kubernetes_manifests
from serried.errors import BadInput
from serried.serving.cluster import PoolPlan
from serried.serving.traffic_search import Question, Trial
from serried.silicon import Chip

__all__ = ["SERVING_EMITTERS", "EmitWords", "write_launches"]

SERVING_EMITTERS = ("vllm", "sglang", "kubernetes")
_FIRST_PORT, _ROUTER_PORT = 8000, 8080


@dataclass(frozen=True, slots=True, kw_only=True)
class EmitWords:
    """What a plan cannot know. resource: the chips' extended resource, None = as data/emit/devices.toml says."""

    resource: str | None = None


def write_launches(ask: Question, trial: Trial, wanted: Sequence[str], words: EmitWords, out: Path) -> list[Path]:
    """Emit one deployment; nothing is written when a tool has no word for it."""
    roles = ("serve",) if len(trial.plans) == 1 else ("prefill", "decode")
    pools = list(zip(roles, trial.plans, strict=True))
    context = int((ask.requests.input_tokens_R + ask.requests.output_tokens_R).max())
    texts = [(f"{name}.sh", _script(ask.model.name, pools, name, context)) for name in wanted if name in ENGINES]
    if "kubernetes" in wanted:
        resources = {plan.machine.chip.name: words.resource or _device(plan.machine.chip, "resource")
                     for _, plan in pools}
        engine = next((name for name in wanted if name in ENGINES), "vllm")
        texts.append(("kubernetes.yaml", kubernetes_manifests(ask.model.name, pools, engine, context_tokens=context,
                                                              resources=resources)))
    return write_texts(texts, out)


def _device(chip: Chip, what: str) -> str:
    """What schedulers and launchers call the chip; BadInput where nobody has said."""
    devices: Mapping[str, Mapping[str, str]] = read_toml(DATA / "emit" / "devices.toml")["vendor"]
    if chip.vendor not in devices:
        raise BadInput(field="--resource", value=None, expected=f"the extended resource of {chip.name} in Kubernetes",
                       remedy="Give it as its device plugin calls it: --resource example.com/chip.")
    return devices[chip.vendor][what]


def _script(model: str, pools: Sequence[tuple[str, PoolPlan]], name: str, context: int) -> str:
    """One shell function for each engine process, to be run on the node that it names, and one for the router."""
    engine = ENGINES[name]
    lines = ["#!/usr/bin/env bash", "# Run on every node: NODE=0, 1, ... HOSTS=\"host0 host1 ...\"",
             "set -euo pipefail", ": \"${NODE:?which node is this}\" \"${HOSTS:?names of all}\"", "HOST=($HOSTS)"]
    urls: dict[str, list[str]] = {}
    node = 0
    for role, plan in pools:
        width, nodes = int(plan.row.chips_per_replica[0]), nodes_of(plan)
        per_node = max(plan.machine.fabric.node_size or width, width // nodes)
        visible, used = _device(plan.machine.chip, "visible"), per_node
        node -= 1
        for replica in range(int(plan.row.replicas[0])):
            if used + width // nodes > per_node:
                node, used = node + 1, 0
            port = _FIRST_PORT + used
            words = engine.words(model, role, plan, port=port, context_tokens=context)
            command = [part.format(model=model) for part in engine.command] + words
            chips = ",".join(str(chip) for chip in range(used, used + width // nodes))
            urls.setdefault(role, []).append(f"http://${{HOST[{node}]}}:{port}")
            for rank in range(nodes):
                lines += ["", f"# {role} replica {replica}" + (f", node {rank} of {nodes}" if nodes > 1 else ""),
                          f"if [ \"$NODE\" = {node + rank} ]; then",
                          f"  {_environment(name, role, used, rank, node, nodes)}{visible}={chips} \\",
                          f"  {_shell(command + (['--headless'] if rank and name == 'vllm' else []))} &", "fi"]
            node, used = node + nodes - 1, used + width // nodes
        node += 1
    router = [*engine.router, *router_words(engine, urls, policy=pools[-1][1].router, port=_ROUTER_PORT)]
    lines += ["", "if [ \"$NODE\" = 0 ]; then", f"  {_shell(router)} &", "fi", "wait"]
    return "\n".join(lines) + "\n"


def _environment(name: str, role: str, used: int, rank: int, leader: int, nodes: int) -> str:
    found = f"NODE_RANK={rank} LEADER=\"${{HOST[{leader}]}}\"; " if nodes > 1 else ""
    return found + (f"VLLM_NIXL_SIDE_CHANNEL_PORT={5600 + used} " if name == "vllm" and role != "serve" else "")


def _shell(words: Sequence[str]) -> str:
    """Words for a shell, an argument a line; those with its variables are left to it."""
    return " ".join(("\\\n    " if word.startswith("--") else "")
                    + (f'"{word}"' if "$" in word else shlex.quote(word)) for word in words)
