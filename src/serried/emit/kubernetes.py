"""A serving deployment as Kubernetes manifests, one JSON document (which is YAML) each.

A pool whose replica fits a node is a Deployment, one that spans nodes a LeaderWorkerSet; each has a Service, and the
router before them a Deployment and a Service of its own.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from serried.emit.engines import BOOTSTRAP_PORT, ENGINES, Engine, nodes_of, router_words
from serried.serving.cluster import PoolPlan

__all__ = ["kubernetes_manifests"]

_PORT, _ROUTER_PORT = 8000, 8080


def kubernetes_manifests(model: str, pools: Sequence[tuple[str, PoolPlan]], engine_name: str, *, context_tokens: int,
                         resources: Mapping[str, str]) -> str:
    """The manifests as one text for `kubectl apply -f`. resources: extended resource by chip."""
    engine, name = ENGINES[engine_name], _name(model)
    documents: list[Mapping[str, Any]] = []
    for role, plan in pools:
        words = engine.words(model, role, plan, port=_PORT, context_tokens=context_tokens)
        documents += _pool(f"{name}-{role}", engine, model, words, plan, resources[plan.machine.chip.name],
                           is_prefill=role == "prefill")
    urls = {role: [f"http://{name}-{role}:{_PORT}"] for role, _ in pools}
    documents += _router(name, engine, router_words(engine, urls, policy=pools[-1][1].router, port=_ROUTER_PORT))
    return "".join(f"---\n{json.dumps(document, indent=2)}\n" for document in documents)


def _name(model: str) -> str:
    """A DNS label out of a model's name."""
    return re.sub(r"[^a-z0-9]+", "-", model.rpartition("/")[2].lower()).strip("-")[:40].strip("-") or "model"


def _pool(name: str, engine: Engine, model: str, words: Sequence[str], plan: PoolPlan, resource: str, *,
          is_prefill: bool) -> list[Mapping[str, Any]]:
    nodes, replicas = nodes_of(plan), int(plan.row.replicas[0])
    chips = int(plan.row.chips_per_replica[0]) // nodes
    ports = [{"name": "http", "containerPort": _PORT}]
    ports += [{"name": "bootstrap", "containerPort": BOOTSTRAP_PORT}] if is_prefill else []
    command = [part.format(model=model) for part in engine.command]
    labels = {"app": name}
    container: dict[str, Any] = {"name": "engine", "image": engine.image, "ports": ports,
                 "resources": {"limits": {resource: str(chips)}, "requests": {resource: str(chips)}},
                 "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}]}
    volumes = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    service_labels = labels if nodes == 1 else {"leaderworkerset.sigs.k8s.io/name": name,
                                               "leaderworkerset.sigs.k8s.io/worker-index": "0"}
    service = _service(name, service_labels, [(port["name"], port["containerPort"]) for port in ports])
    if nodes == 1:
        spec = {"containers": [container | {"command": [*command, *words]} | _probes()], "volumes": volumes}
        return [{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels},
                 "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
                          "template": {"metadata": {"labels": labels}, "spec": spec}}}, service]
    shell = "NODE_RANK=$LWS_WORKER_INDEX LEADER=$LWS_LEADER_ADDRESS; " + _shell([*command, *words])
    headless = " --headless" if engine.router_tool == "vllm-router" else ""
    leader = {"containers": [container | {"command": ["sh", "-c", shell]} | _probes()], "volumes": volumes}
    worker = {"containers": [container | {"command": ["sh", "-c", shell + headless]}], "volumes": volumes}
    return [{"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet",
             "metadata": {"name": name, "labels": labels},
             "spec": {"replicas": replicas, "leaderWorkerTemplate": {
                 "size": nodes, "restartPolicy": "RecreateGroupOnPodRestart",
                 "leaderTemplate": {"metadata": {"labels": labels}, "spec": leader},
                 "workerTemplate": {"metadata": {"labels": labels}, "spec": worker}}}}, service]


def _shell(words: Sequence[str]) -> str:
    """Words for a shell; those with its variables are left to it."""
    return " ".join(f'"{word}"' if "$" in word else shlex.quote(word) for word in words)


def _probes() -> dict[str, Any]:
    health: dict[str, Any] = {"httpGet": {"path": "/health", "port": "http"}}
    return {"startupProbe": health | {"periodSeconds": 10, "failureThreshold": 180},
            "readinessProbe": health | {"periodSeconds": 5}, "livenessProbe": health | {"periodSeconds": 20,
                                                                                       "failureThreshold": 6}}


def _service(name: str, labels: Mapping[str, str], ports: Sequence[tuple[object, object]]) -> Mapping[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": dict(labels), "ports": [{"name": port, "port": number, "targetPort": number}
                                                         for port, number in ports]}}


def _router(name: str, engine: Engine, words: Sequence[str]) -> list[Mapping[str, Any]]:
    labels = {"app": f"{name}-router"}
    container = {"name": "router", "image": engine.image, "command": [*engine.router, *words],
                 "ports": [{"name": "http", "containerPort": _ROUTER_PORT}],
                 "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 5}}
    return [{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": f"{name}-router", "labels": labels},
             "spec": {"replicas": 1, "selector": {"matchLabels": labels},
                      "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}}},
            _service(f"{name}-router", labels, [("http", _ROUTER_PORT)])]
