"""The graph that schedules are fitted to: endpoints, switches, directed wires with bandwidth and latency; from TOML.

    name = "two islands"
    endpoints = ["a0", "a1", "b0", "b1"]
    switches = ["a", "b"]
    [[link]]
    between = ["a0", "a"]          # both directions; or  from = "a0", to = "a"  for one
    bandwidth = "100 Mbit/s"       # per direction
    latency = "50 us"

Axes: V = node (endpoints first), E = directed wire.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from serried.errors import BadInput, nearest
from serried.units import parse_quantity

__all__ = ["Wires", "read_wires", "wires"]

_MOST_NODES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Wires:
    """Endpoints are nodes 0 to endpoint_count - 1; bandwidth is per direction; parallel wires are added up."""

    name: str
    node_names: tuple[str, ...]
    endpoint_count: int
    source_E: npt.NDArray[np.int64]
    target_E: npt.NDArray[np.int64]
    bandwidth_bytes_per_s_E: npt.NDArray[np.float64]
    latency_s_E: npt.NDArray[np.float64]

    @property
    def node_count(self) -> int:
        """Endpoints and switches."""
        return len(self.node_names)


def wires(name: str, node_names: tuple[str, ...], endpoint_count: int,
          links: list[tuple[int, int, float, float]], *, file: str = "") -> Wires:
    """Wires from (source, target, bandwidth in bytes/s, latency in s); BadInput when an endpoint is cut off."""
    merged: dict[tuple[int, int], tuple[float, float]] = {}
    for source, target, bandwidth, latency in links:
        had = merged.get((source, target), (0.0, 0.0))
        merged[(source, target)] = had[0] + bandwidth, max(had[1], latency)
    ends = np.asarray(sorted(merged), dtype=np.int64).reshape(-1, 2)
    figures = np.asarray([merged[end] for end in sorted(merged)], dtype=np.float64).reshape(-1, 2)
    graph = csr_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(node_names), len(node_names)))
    _, part = connected_components(graph, directed=True, connection="strong")
    lone = np.flatnonzero(part[:endpoint_count] != part[0])
    if len(lone):
        raise BadInput(file=file, field="link", value=node_names[lone[0]], expected="endpoints that can all reach each "
                       f"other, but no wires lead from {node_names[0]} to {node_names[lone[0]]} and back",
                       remedy="Add the link that is missing, or leave the endpoint out.")
    return Wires(name=name, node_names=node_names, endpoint_count=endpoint_count, source_E=ends[:, 0],
                 target_E=ends[:, 1], bandwidth_bytes_per_s_E=figures[:, 0], latency_s_E=figures[:, 1])


def read_wires(path: Path) -> Wires:
    """A graph from a TOML file. Raises BadInput with the field that cannot be used."""
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(field=str(path), value=getattr(error, "strerror", "not text"),
                       expected="a fabric file that can be read", remedy="Correct the path.") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(file=str(path), field="TOML", value=str(error), expected="a TOML file",
                       remedy="Mend the line.") from None
    file = str(path)
    endpoints, switches = (_names(told, field, file) for field in ("endpoints", "switches"))
    names = (*endpoints, *switches)
    if len(endpoints) < 2 or len(set(names)) != len(names) or len(names) > _MOST_NODES:
        raise BadInput(file=file, field="endpoints", value=len(endpoints),
                       expected=f"2 or more names, each once among endpoints and switches, at most {_MOST_NODES}",
                       remedy="Name every endpoint and every switch.")
    number = {name: position for position, name in enumerate(names)}
    listed = told.get("link", [])
    if not isinstance(listed, list) or not listed:
        raise BadInput(file=file, field="link", value=listed, expected="[[link]] tables", remedy="Give every wire.")
    links = [link for position, each in enumerate(listed) for link in _link(each, f"link {position + 1}", number, file)]
    return wires(str(told.get("name", path.stem)), names, len(endpoints), links, file=file)


def _names(told: dict[str, Any], field: str, file: str) -> tuple[str, ...]:
    names = told.get(field, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInput(file=file, field=field, value=names, expected="a list of names",
                       remedy='Write for example ["g0", "g1"].')
    return tuple(names)


def _link(told: Any, where: str, number: dict[str, int], file: str) -> list[tuple[int, int, float, float]]:
    table = told if isinstance(told, dict) else {}
    ends = table.get("between") or [table.get("from"), table.get("to")]
    if not isinstance(ends, list) or len(ends) != 2 or not all(isinstance(end, str) for end in ends) or (
            ends[0] == ends[1]):
        raise BadInput(file=file, field=where, value=ends, expected="two ends", remedy="Say between = [A, B], or from "
                       "and to for one direction.")
    for end in ends:
        if end not in number:
            raise BadInput(file=file, field=where, value=end, expected="an endpoint or a switch of this file",
                           remedy=f"Nearest: {', '.join(nearest(end, number)) or 'none'}.")
    bandwidth = parse_quantity(table.get("bandwidth", ""), "bytes/s", field=f"{where}, bandwidth", file=file)
    latency = parse_quantity(table.get("latency", 0.0), "s", field=f"{where}, latency", file=file)
    if bandwidth <= 0 or latency < 0:
        raise BadInput(file=file, field=where, value=table, expected="a positive bandwidth and no negative latency",
                       remedy="Leave out a link that has failed.")
    one, other = number[ends[0]], number[ends[1]]
    there = (one, other, bandwidth, latency)
    return [there, (other, one, bandwidth, latency)] if "between" in table else [there]
