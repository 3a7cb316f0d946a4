"""A deployment as it is started: commands of the engines that people run, and a Kubernetes manifest.

Every number comes from the plan. Names of formats are the tools' own; one that a tool does not have is refused.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from serried.catalogue.entry import DATA, read_toml
from serried.emit.arguments import check_arguments
from serried.errors import BadInput
from serried.planner.spec import FORMATS
from serried.serving.cluster import PoolPlan
from serried.serving.spec import CACHE_FORMATS
from serried.workload import Model

__all__ = ["ENGINES", "kubernetes_manifest", "launch_script", "sglang_arguments", "vllm_arguments"]

_FIRST_PORT = 8000
_VLLM_FORMAT = {"bf16": [], "fp16": ["--dtype", "float16"], "fp8": ["--quantization", "fp8"],
                "fp8-block": ["--quantization", "fp8"], "nvfp4": ["--quantization", "modelopt_fp4"],
                "int8": ["--quantization", "compressed-tensors"]}
_SGLANG_FORMAT = {"bf16": [], "fp16": ["--dtype", "float16"], "fp8": ["--quantization", "fp8"],
                  "fp8-block": ["--quantization", "fp8"], "nvfp4": ["--quantization", "modelopt_fp4"],
                  "int8": ["--quantization", "w8a8_int8"]}
_VLLM_CACHE = {"bf16": "auto", "fp8": "fp8"}
_SGLANG_CACHE = {"bf16": "auto", "fp8": "fp8_e4m3"}
_ROLE = {"prefill": "kv_producer", "decode": "kv_consumer"}


def _named(table: Mapping[str, Any], name: str, tool: str, field: str) -> Any:
    if name not in table:
        raise BadInput(field=field, value=name, expected=f"a format that {tool} has: {', '.join(table)}",
                       remedy="Pin another format, or emit for another engine.")
    return table[name]


def _formats(plan: PoolPlan) -> tuple[str, str]:
    return FORMATS[int(plan.row.weight_format[0])], tuple(CACHE_FORMATS)[int(plan.row.cache_format[0])]


def vllm_arguments(plan: PoolPlan, *, role: str = "", port: int = _FIRST_PORT) -> list[str]:
    """Words after `vllm serve MODEL`. role: "prefill" or "decode" where these are apart."""
    row, settings = plan.row.row(0), plan.profile.settings
    weights, cache = _formats(plan)
    words = ["--tensor-parallel-size", str(row["tp"]), "--pipeline-parallel-size", str(row["pp"])]
    words += ["--data-parallel-size", str(row["attention_dp"])] if int(row["attention_dp"]) > 1 else []
    words += ["--enable-expert-parallel"] if int(row["ep"]) > 1 else []
    words += ["--max-num-seqs", str(settings.max_sequences), "--max-num-batched-tokens", str(settings.token_budget),
              "--gpu-memory-utilization", f"{plan.profile.memory_fraction:g}",
              "--kv-cache-dtype", _named(_VLLM_CACHE, cache, "vLLM", "--pin cache_formats"),
              *_named(_VLLM_FORMAT, weights, "vLLM", "--pin weight_formats")]
    words += ["--enable-prefix-caching"] if settings.prefix_caching else []
    if role:
        words += ["--kv-transfer-config", json.dumps({"kv_connector": "NixlConnector", "kv_role": _ROLE[role]},
                                                     separators=(",", ":"))]
    if settings.acceptance:
        words += ["--speculative-config", json.dumps({"method": "mtp", "num_speculative_tokens": len(
            settings.acceptance)}, separators=(",", ":"))]
    words += ["--port", str(port)]
    check_arguments(words, "vllm")
    return words


def sglang_arguments(plan: PoolPlan, model: str, *, role: str = "", port: int = _FIRST_PORT) -> list[str]:
    """Words after `python -m sglang.launch_server`; its tensor degree counts every chip of a stage."""
    row, settings = plan.row.row(0), plan.profile.settings
    weights, cache = _formats(plan)
    groups = int(row["attention_dp"])
    words = ["--model-path", model, "--tp-size", str(int(row["tp"]) * groups), "--pp-size", str(row["pp"])]
    words += ["--dp-size", str(groups), "--enable-dp-attention"] if groups > 1 else []
    words += ["--ep-size", str(row["ep"])] if int(row["ep"]) > 1 else []
    words += ["--max-running-requests", str(settings.max_sequences), "--chunked-prefill-size",
              str(settings.token_budget), "--mem-fraction-static", f"{plan.profile.memory_fraction:g}",
              "--kv-cache-dtype", _named(_SGLANG_CACHE, cache, "SGLang", "--pin cache_formats"),
              *_named(_SGLANG_FORMAT, weights, "SGLang", "--pin weight_formats")]
    words += ["--disaggregation-mode", role] if role else []
    words += ["--port", str(port)]
    check_arguments(words, "sglang")
    return words


def _vllm_command(plan: PoolPlan, model: str, role: str, port: int) -> list[str]:
    return ["vllm", "serve", model, *vllm_arguments(plan, role=role, port=port)]


def _sglang_command(plan: PoolPlan, model: str, role: str, port: int) -> list[str]:
    return ["python", "-m", "sglang.launch_server", *sglang_arguments(plan, model, role=role, port=port)]


#: Engine to the words of one replica: (pool, model, role, port).
ENGINES: Mapping[str, Callable[[PoolPlan, str, str, int], list[str]]] = {
    "vllm": _vllm_command, "sglang": _sglang_command}


def _roles(pools: Sequence[PoolPlan]) -> list[tuple[str, PoolPlan]]:
    return [("", pools[0])] if len(pools) == 1 else [("prefill", pools[0]), ("decode", pools[1])]


def launch_script(engine: str, model: Model, pools: Sequence[PoolPlan]) -> str:
    """A shell script with one command per replica, each on a port of its own, and a line on who stands where."""
    lines, port = ["#!/usr/bin/env bash", "set -euo pipefail"], _FIRST_PORT
    for role, plan in _roles(pools):
        replicas, chips = int(plan.row.replicas[0]), int(plan.row.chips_per_replica[0])
        lines.append(f"\n# {role or 'serving'}: {replicas} replicas of {chips} {plan.machine.chip.name} each; one "
                     "command on the node (or the first of the nodes) of each replica")
        for _ in range(replicas):
            words = ENGINES[engine](plan, model.name, role, port)
            lines.append(_folded(words))
            port += 1
    return "\n".join(lines) + "\n"


def _folded(words: Sequence[str]) -> str:
    """One argument a line."""
    lines: list[str] = []
    for word in words:
        if word.startswith("--") or not lines:
            lines.append(shlex.quote(word))
        else:
            lines[-1] += " " + shlex.quote(word)
    return " \\\n  ".join(lines)


def kubernetes_manifest(engine: str, model: Model, pools: Sequence[PoolPlan], *, image: str = "") -> str:
    """A List of Deployments and Services as JSON, which kubectl reads: one Deployment a pool, one Pod a replica.

    A replica that spans nodes becomes a LeaderWorkerSet of as many Pods as it has nodes. The extended resource is the
    one that the vendor's device plugin advertises.
    """
    resources: dict[str, str] = read_toml(DATA / "emit" / "kubernetes-resources.toml")["resources"]
    items: list[dict[str, Any]] = []
    for role, plan in _roles(pools):
        name = f"serried-{engine}" + (f"-{role}" if role else "")
        chips, node = int(plan.row.chips_per_replica[0]), max(plan.machine.fabric.node_size, 1)
        resource = resources.get(plan.machine.chip.vendor, resources["*"])
        pod = _pod(name, ENGINES[engine](plan, model.name, role, _FIRST_PORT), image or f"{engine}:latest", resource,
                   min(chips, node))
        nodes = -(-chips // node)
        items.append(_workload(name, pod, int(plan.row.replicas[0]), nodes))
        items.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                      "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": _FIRST_PORT}]}})
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=2) + "\n"


def _pod(name: str, command: Sequence[str], image: str, resource: str, chips: int) -> dict[str, Any]:
    probe = {"httpGet": {"path": "/health", "port": _FIRST_PORT}, "periodSeconds": 10}
    return {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{
        "name": "engine", "image": image, "command": list(command), "ports": [{"containerPort": _FIRST_PORT}],
        "resources": {"limits": {resource: str(chips)}},
        "startupProbe": {**probe, "failureThreshold": 180}, "readinessProbe": probe,
        "livenessProbe": {**probe, "failureThreshold": 6},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}]}],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}]}}


def _workload(name: str, pod: dict[str, Any], replicas: int, nodes: int) -> dict[str, Any]:
    if nodes == 1:
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
                "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": pod}}
    return {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "metadata": {"name": name},
            "spec": {"replicas": replicas, "leaderWorkerTemplate": {"size": nodes, "workerTemplate": pod}}}
