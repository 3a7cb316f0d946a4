"""Nouns of the wires: a topology as a generator and its parameters, and a small explicit graph.

Axes: N = node of the graph (endpoints first), L = directed link.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bools", "Floats", "Graph", "Indices", "Topology"]

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Nodes and directed links, as columns.

    node_names: the endpoints (chips), then the switches; endpoint_count tells them apart. source, target: node of each
    end of a link. bandwidth_bytes_per_s: of that one direction. latency_s: one way. link_class: index into
    class_names, equal for links that the structure makes alike.
    """

    name: str
    node_names: tuple[str, ...]
    endpoint_count: int
    source_L: Indices
    target_L: Indices
    bandwidth_bytes_per_s_L: Floats
    latency_s_L: Floats
    link_class_L: Indices
    class_names: tuple[str, ...]
    file: str = ""

    @property
    def node_count(self) -> int:
        """Endpoints and switches."""
        return len(self.node_names)

    @property
    def link_count(self) -> int:
        """Directed links."""
        return len(self.source_L)

    def is_switch(self, node: int) -> bool:
        """Whether a node forwards and neither sends nor receives."""
        return node >= self.endpoint_count


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Structure as the name of a generator, its parameters in base units, and what is broken.

    kind: a key of `serried.topology.kinds.KINDS`. parameters: every parameter of that kind, defaults filled in.
    failed: what is out of order, as "<class>:<index>", e.g. "spine:0". graph: the nodes and links of kind "explicit".
    hosts, labels: of kind "labels", the name of each host and, from the inside out, its switch at each tier.
    """

    name: str
    kind: str
    parameters: Mapping[str, float | str]
    failed: tuple[str, ...] = ()
    graph: Graph | None = None
    hosts: tuple[str, ...] = ()
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    file: str = ""

    def number(self, parameter: str) -> float:
        """A parameter that is a number."""
        return float(self.parameters[parameter])

    def whole(self, parameter: str) -> int:
        """A parameter that is a count."""
        return int(self.parameters[parameter])

    def word(self, parameter: str) -> str:
        """A parameter that is a word."""
        return str(self.parameters[parameter])
