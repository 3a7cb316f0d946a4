"""Hosts with labels: Kubernetes nodes, and tables of hosts with a column for each tier.

The keys of Kubernetes labels differ by whoever sets them, so they are an argument; from the inside out.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serried.errors import BadInput
from serried.topology.kinds import build_topology
from serried.topology.slurm import read_text, tiers_of
from serried.topology.spec import Topology

__all__ = ["KUBERNETES_KEYS", "kubernetes_labels", "read_host_table", "read_kubernetes"]

KUBERNETES_KEYS = ("fabric.topograph.run/tier-0", "fabric.topograph.run/tier-1", "fabric.topograph.run/tier-2")
_TIERS = ("leaf", "spine", "core", "top")


def read_kubernetes(path: Path, given: Mapping[str, Any], keys: Sequence[str] = KUBERNETES_KEYS,
                    name: str = "") -> Topology:
    """`kubectl get nodes -o json`: metadata.name and metadata.labels; tiers of which no node has a label are left out.

    Raises BadInput naming the node that lacks a label which others have.
    """
    try:
        raw = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BadInput(file=str(path), field="file", value=path.name, expected="JSON", remedy=str(error)) from None
    items = raw.get("items", [raw]) if isinstance(raw, dict) else raw
    hosts: list[str] = []
    labels: list[dict[str, Any]] = []
    for position, item in enumerate(items if isinstance(items, list) else []):
        metadata = item.get("metadata") if isinstance(item, dict) else None
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            raise BadInput(file=str(path), field=f"items[{position}].metadata.name", value=None, expected="a node",
                           remedy="Give the output of `kubectl get nodes -o json`.")
        hosts.append(metadata["name"])
        found = metadata.get("labels")
        labels.append(found if isinstance(found, dict) else {})
    had = [key for key in keys if any(key in row for row in labels)]
    return _topology(path, hosts, [[row.get(key) for row in labels] for key in had], had, given, name,
                     missing=", ".join(keys))


def read_host_table(path: Path, given: Mapping[str, Any], columns: Sequence[str], host: str,
                    name: str = "") -> Topology:
    """A CSV with a row for each host; `columns` name its switches from the inside out."""
    reader = csv.DictReader(io.StringIO(read_text(path)))
    lacking = [column for column in (host, *columns) if column not in (reader.fieldnames or ())]
    if lacking:
        raise BadInput(file=str(path), field="line 1", value=list(reader.fieldnames or ()),
                       expected=f"the column {lacking[0]}", remedy="Name the columns with --keys, host first.")
    rows = list(reader)
    return _topology(path, [row[host] for row in rows], [[row[column] for row in rows] for column in columns], columns,
                     given, name, missing=", ".join(columns))


def _topology(path: Path, hosts: Sequence[str], values: Sequence[Sequence[object]], keys: Sequence[str],
              given: Mapping[str, Any], name: str, *, missing: str) -> Topology:
    if not hosts or not keys or len(set(hosts)) != len(hosts) or len(keys) > len(_TIERS):
        raise BadInput(file=str(path), field="hosts", value=len(hosts), remedy="Name the keys with --keys.",
                       expected=f"hosts of different names, with one to four of {missing}")
    for key, column in zip(keys, values, strict=True):
        for host, value in zip(hosts, column, strict=True):
            if not isinstance(value, str) or not value:
                raise BadInput(file=str(path), field=f"{host}.{key}", value=value, expected="the name of a switch",
                               remedy="Label every host, or leave the key out.")
    columns = _distinct([[str(value) for value in column] for column in values])
    return build_topology(name or path.stem, "labels", given, hosts=tuple(hosts), file=str(path),
                          labels={_TIERS[tier]: tuple(column) for tier, column in enumerate(columns)})


def _distinct(columns: list[list[str]]) -> list[list[str]]:
    """A switch's name that stands under several switches names several: "P8.S1" is not "P10.S1"."""
    for tier in range(len(columns) - 2, -1, -1):
        above: dict[str, set[str]] = {}
        for switch, parent in zip(columns[tier], columns[tier + 1], strict=True):
            above.setdefault(switch, set()).add(parent)
        columns[tier] = [f"{parent}.{switch}" if len(above[switch]) > 1 else switch
                         for switch, parent in zip(columns[tier], columns[tier + 1], strict=True)]
    return columns


def kubernetes_labels(topology: Topology, keys: Sequence[str] = KUBERNETES_KEYS) -> str:
    """A list of nodes with their labels, as `kubectl apply --server-side -f` takes it."""
    hosts, labels = tiers_of(topology)
    if len(labels) > len(keys):
        raise BadInput(field="--keys", value=list(keys), expected=f"a key for each of {len(labels)} tiers",
                       remedy="Name more keys.")
    items = [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": host, "labels": {
        key: column[row] for key, column in zip(keys, labels.values(), strict=False)}}}
        for row, host in enumerate(hosts)]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=1) + "\n"
