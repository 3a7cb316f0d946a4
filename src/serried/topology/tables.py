"""Read and write a topology as a small TOML file.

    schema = "serried/topology/1"        schema = "serried/topology/1"
    name = "pod"                         name = "odd-node"
    kind = "hpn"                         kind = "explicit"
    failed = ["spine:3"]
                                         [[node]]
    [parameters]                         name = "chip0"          # switch = true for one that forwards
    chips = 15360
    bandwidth = "400 Gb/s"               [[link]]                # both directions, unless one_way = true
                                         from = "chip0"
                                         to = "chip1"
                                         bandwidth = "50 GB/s"
                                         latency = "1 us"
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serried.catalogue.entry import read_toml
from serried.errors import BadInput
from serried.topology.kinds import KINDS, PARAMETERS, build_topology
from serried.topology.spec import Graph, Topology
from serried.units import parse_quantity

__all__ = ["SCHEMA", "graph_of_rows", "is_topology", "read_topology", "topology_toml"]

SCHEMA = "serried/topology/1"
_KEYS = {"schema", "name", "kind", "failed", "parameters", "node", "link", "hosts", "labels"}
_NODE_KEYS, _LINK_KEYS = {"name", "switch"}, {"from", "to", "bandwidth", "latency", "class", "one_way"}
_FAILURE = re.compile(r"^[a-z]+:\d{1,9}$")
_MOST_NODES = 20_000


def is_topology(path: str | Path) -> bool:
    """Whether the file there says that it is a topology."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            return SCHEMA in file.read(4096)
    except (OSError, ValueError):
        return False


def read_topology(path: str | Path) -> Topology:
    """The topology in a file; BadInput names file and field for anything unknown, missing or out of range."""
    raw, file = read_toml(Path(path)), str(path)
    if raw.get("schema") != SCHEMA:
        raise BadInput(file=file, field="schema", value=raw.get("schema"), expected=repr(SCHEMA),
                       remedy=f'Begin the file with schema = "{SCHEMA}"; `serried fabric build` writes one.')
    _known(raw, _KEYS, "", file)
    failed = _texts(raw.get("failed", []), "failed", file)
    for word in failed:
        if not _FAILURE.match(word):
            raise BadInput(file=file, field="failed", value=word, expected='"<class>:<number>", e.g. "spine:0"',
                           remedy="`serried fabric show` lists the classes.")
    kind, name = raw.get("kind"), raw.get("name", Path(path).stem)
    if not isinstance(kind, str) or not isinstance(name, str):
        raise BadInput(file=file, field="kind", value=kind, expected=f"one of {', '.join(KINDS)}", remedy="Give it.")
    graph = None
    if kind == "explicit":
        graph = graph_of_rows(name, _rows(raw, "node", file), _rows(raw, "link", file), file)
    elif raw.keys() & {"node", "link"}:
        raise BadInput(file=file, field="node", value=kind, expected='[[node]] and [[link]] only with kind "explicit"',
                       remedy="Remove them, or say that the graph is explicit.")
    labels = {tier: _texts(column, f"labels.{tier}", file) for tier, column in _table(raw, "labels", file).items()}
    return build_topology(name, kind, _table(raw, "parameters", file), failed=failed, graph=graph,
                          hosts=_texts(raw.get("hosts", []), "hosts", file), labels=labels, file=file)


def graph_of_rows(name: str, nodes: Sequence[Mapping[str, Any]], links: Sequence[Mapping[str, Any]],
                  file: str = "") -> Graph:
    """An explicit graph from its [[node]] and [[link]] tables; refuses doubles, loose ends and loops."""
    if not nodes or len(nodes) > _MOST_NODES:
        raise BadInput(file=file, field="node", value=len(nodes), expected=f"1 to {_MOST_NODES:,} [[node]] tables",
                       remedy="Describe a larger fabric by a generator and its parameters.")
    for position, row in enumerate(nodes):
        _known(row, _NODE_KEYS, f"node[{position}].", file)
        if not isinstance(row.get("name"), str) or not isinstance(row.get("switch", False), bool):
            raise BadInput(file=file, field=f"node[{position}]", value=row, expected="name = text, switch = true|false",
                           remedy="Give each node a name.")
    chips = [row["name"] for row in nodes if not row.get("switch", False)]
    names = chips + [row["name"] for row in nodes if row.get("switch", False)]
    index = {node: position for position, node in enumerate(names)}
    if len(index) != len(names) or not chips:
        double = next((node for node in names if names.count(node) > 1), "none")
        raise BadInput(file=file, field="node.name", value=double, expected="names that differ, of one chip at least",
                       remedy="Rename it.")
    columns: list[tuple[int, int, float, float, str]] = []
    for position, row in enumerate(links):
        columns += _link(row, f"link[{position}]", index, file)
    classes = tuple(dict.fromkeys(column[4] for column in columns))
    source, target = (np.array([column[side] for column in columns], dtype=np.int64) for side in (0, 1))
    bandwidth, latency = (np.array([column[side] for column in columns], dtype=np.float64) for side in (2, 3))
    return Graph(name=name, node_names=tuple(names), endpoint_count=len(chips), source_L=source, target_L=target,
                 bandwidth_bytes_per_s_L=bandwidth, latency_s_L=latency, class_names=classes, file=file,
                 link_class_L=np.array([classes.index(column[4]) for column in columns], dtype=np.int64))


def _link(row: Mapping[str, Any], where: str, index: Mapping[str, int],
          file: str) -> list[tuple[int, int, float, float, str]]:
    _known(row, _LINK_KEYS, f"{where}.", file)
    for end in ("from", "to"):
        if row.get(end) not in index:
            raise BadInput(file=file, field=f"{where}.{end}", value=row.get(end), expected="the name of a [[node]]",
                           remedy="Add the node or correct the name.")
    if row["from"] == row["to"]:
        raise BadInput(file=file, field=where, value=row["from"], expected="two different ends", remedy="Remove it.")
    bandwidth = parse_quantity(row.get("bandwidth", ""), "bytes/s", field=f"{where}.bandwidth", file=file)
    latency = parse_quantity(row.get("latency", "1 us"), "s", field=f"{where}.latency", file=file)
    if bandwidth <= 0 or latency < 0:
        raise BadInput(file=file, field=where, value=row.get("bandwidth"),
                       expected="a positive bandwidth and a latency that is not negative", remedy="Correct it.")
    ends, name = (index[row["from"]], index[row["to"]]), str(row.get("class", "link"))
    there = (*ends, bandwidth, latency, name)
    return [there] if row.get("one_way") is True else [there, (ends[1], ends[0], bandwidth, latency, name)]


def topology_toml(topology: Topology) -> str:
    """A topology as the text of its file; `read_topology` gives it back."""
    lines = [f'schema = "{SCHEMA}"', f"name = {_text(topology.name)}", f"kind = {_text(topology.kind)}"]
    if topology.failed:
        lines.append(f"failed = {_text(list(topology.failed))}")
    if topology.hosts:
        lines.append(f"hosts = {_text(list(topology.hosts))}")
    lines += ["", "[parameters]"]
    lines += [f"{key} = {_shown(key, value)}" for key, value in topology.parameters.items()]
    if topology.labels:
        lines += ["", "[labels]   # from the inside out"]
        lines += [f"{_text(tier)} = {_text(list(column))}" for tier, column in topology.labels.items()]
    if topology.graph is not None:
        lines += _graph_lines(topology.graph)
    return "\n".join(lines) + "\n"


def _graph_lines(graph: Graph) -> list[str]:
    lines = []
    for node, name in enumerate(graph.node_names):
        lines += ["", "[[node]]", f"name = {_text(name)}", *(["switch = true"] if graph.is_switch(node) else [])]
    for link in range(graph.link_count):
        source, target = (graph.node_names[int(end[link])] for end in (graph.source_L, graph.target_L))
        lines += ["", "[[link]]", f"from = {_text(source)}", f"to = {_text(target)}",
                  f'bandwidth = "{float(graph.bandwidth_bytes_per_s_L[link])!r} bytes/s"',
                  f'latency = "{float(graph.latency_s_L[link])!r} s"',
                  f"class = {_text(graph.class_names[int(graph.link_class_L[link])])}", "one_way = true"]
    return lines


def _shown(key: str, value: float | str) -> str:
    unit = PARAMETERS[key][0]
    if isinstance(value, str):
        return _text(value)
    if unit in ("count", "1") or value == 0:
        return f"{value:.17g}"
    return f'"{value!r} {unit}"'


def _text(value: str | list[str]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _known(row: Mapping[str, Any], known: set[str], where: str, file: str) -> None:
    for key in row:
        if key not in known:
            raise BadInput(file=file, field=f"{where}{key}", value=row[key],
                           expected=f"one of {', '.join(sorted(known))}", remedy="Remove it or correct its name.")


def _rows(raw: Mapping[str, Any], key: str, file: str) -> list[Mapping[str, Any]]:
    rows = raw.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadInput(file=file, field=key, value=rows, expected=f"[[{key}]] tables", remedy=f"Write [[{key}]].")
    return rows


def _table(raw: Mapping[str, Any], key: str, file: str) -> Mapping[str, Any]:
    table = raw.get(key, {})
    if not isinstance(table, dict):
        raise BadInput(file=file, field=key, value=table, expected="a table", remedy=f"Write [{key}].")
    return table


def _texts(raw: Any, field: str, file: str) -> tuple[str, ...]:
    if not isinstance(raw, list) or not all(isinstance(word, str) for word in raw):
        raise BadInput(file=file, field=field, value=raw, expected="a list of texts", remedy="Quote each.")
    return tuple(raw)
