"""From a topology to its networks: one inside scale-up domains, one between them; and to an explicit graph."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from serried.errors import BadInput
from serried.topology.clos import Clos
from serried.topology.direct import CUBE_MESH, GraphNetwork, Torus, refuse_disconnected, without
from serried.topology.dragonfly import Dragonfly
from serried.topology.islands import island_chips
from serried.topology.spec import Graph, Indices, Topology
from serried.topology.wires import Network

__all__ = ["Wired", "explicit_graph", "wire"]

_MOST_EXPLICIT = 20_000


@dataclass(frozen=True, kw_only=True)
class Wired:
    """A topology's networks. node: consecutive chips of a scale-up domain. inner: joins them (None where a domain is
    one chip, or an island of a graph that is all there is); outer: all."""

    topology: Topology
    node: int
    inner: Network | None
    outer: Network

    @property
    def chips(self) -> int:
        """Endpoints."""
        return self.outer.chips

    @property
    def node_count(self) -> int:
        """Scale-up domains."""
        return -(-self.chips // self.node)


def wire(topology: Topology) -> Wired:
    """The networks of a topology, failures applied. Raises BadInput where the failures name what is not there."""
    kind = topology.kind
    if kind in ("clos", "rail", "hpn", "rack", "labels"):
        columns = _labelled(topology) if kind == "labels" else _nested(topology)
        node = topology.whole("node")
        chips = len(columns[0])
        inner = _inside(topology, chips) if node > 1 else None
        return Wired(topology=topology, node=min(node, chips), inner=inner, outer=_clos(topology, columns))
    outer = _flat(topology)
    return Wired(topology=topology, node=island_chips(outer.graph) if isinstance(outer, GraphNetwork) else 1,
                 inner=None, outer=outer)


def _flat(topology: Topology) -> Network:
    """Fabrics of one network."""
    kind = topology.kind
    if kind == "switch":
        chip = np.arange(topology.whole("chips"))
        return Clos(group_KE=(chip, np.zeros_like(chip)), uplinks_K=(1,), latency_s=topology.number("latency") / 2.0,
                    bandwidth_bytes_per_s_K=(topology.number("bandwidth"),), failed=topology.failed, file=topology.file)
    if kind == "dragonfly":
        uplink = topology.number("uplink_bandwidth") or topology.number("bandwidth")
        return Dragonfly(groups=topology.whole("groups"), routers=topology.whole("routers"),
                         router_chips=topology.whole("router_chips"), global_links=topology.whole("global_links"),
                         nic_bandwidth_bytes_per_s=topology.number("bandwidth"), link_bandwidth_bytes_per_s=uplink,
                         latency_s=topology.number("latency"), failed=topology.failed, file=topology.file)
    if kind in ("ring", "torus"):
        shape = (topology.whole("chips"),) if kind == "ring" else tuple(topology.whole(axis) for axis in "xyz")
        dimensions = tuple(degree for degree in shape if degree > 1) or (1,)
        torus = Torus(dimensions=dimensions, latency_s=topology.number("latency"),
                      link_bandwidth_bytes_per_s=topology.number("bandwidth") / (2.0 * len(dimensions)))
        return GraphNetwork(graph=without(_graph_of(torus, topology), topology.failed),
                            file=topology.file) if topology.failed else torus
    return GraphNetwork(graph=without(_pairs(topology), topology.failed), file=topology.file)


def _pairs(topology: Topology) -> Graph:
    """Graphs that are given pair by pair."""
    if topology.graph is not None:
        refuse_disconnected(topology.graph)
        return topology.graph
    if topology.kind == "cube-mesh":
        names, pairs, links_of_chip = 8, np.array(CUBE_MESH), 6
    else:
        names = topology.whole("chips")
        upper = np.stack(np.triu_indices(names, 1), axis=1)
        pairs, links_of_chip = np.c_[upper, np.ones(len(upper), dtype=np.int64)], max(names - 1, 1)
    both = np.concatenate([pairs, pairs[:, [1, 0, 2]]])
    return Graph(name=topology.name, node_names=tuple(f"chip{chip}" for chip in range(names)), endpoint_count=names,
                 source_L=both[:, 0], target_L=both[:, 1], latency_s_L=np.full(len(both), topology.number("latency")),
                 bandwidth_bytes_per_s_L=both[:, 2] * topology.number("bandwidth") / links_of_chip,
                 link_class_L=both[:, 2] - 1, class_names=("link", "double link"), file=topology.file)


def _nested(topology: Topology) -> tuple[Indices, ...]:
    """Groups of consecutive chips: leaf by segment and rail, pod, whole."""
    chip, node = np.arange(topology.whole("chips")), topology.whole("node")
    rails, leaf, pod = (topology.whole(key) for key in ("rails", "leaf", "pod"))
    columns = [chip, chip // leaf * rails + chip % node * rails // node]
    if pod and pod < len(chip):
        columns.append(chip // pod)
    columns.append(np.zeros_like(chip))
    return _dense(columns)


def _labelled(topology: Topology) -> tuple[Indices, ...]:
    """Groups by the names of switches, per host, each host being a scale-up domain."""
    if not topology.hosts or any(len(column) != len(topology.hosts) for column in topology.labels.values()):
        raise BadInput(file=topology.file, field="labels", value=len(topology.hosts),
                       expected="a host at least, and in every tier of [labels] a switch for each",
                       remedy="List hosts and, tier by tier, the switch that each hangs from.")
    node, columns = topology.whole("node"), [np.arange(len(topology.hosts) * topology.whole("node"))]
    outer: list[tuple[str, ...]] = [()] * len(topology.hosts)
    for _, column in reversed(list(topology.labels.items())):   # a name is local to the switch above it
        outer = [(*above, name) for above, name in zip(outer, column, strict=True)]
        number = {key: index for index, key in enumerate(dict.fromkeys(outer))}
        columns.insert(1, np.repeat(np.array([number[key] for key in outer], dtype=np.int64), node))
    columns.append(np.zeros_like(columns[0]))
    return _dense(columns)


def _dense(columns: list[Indices]) -> tuple[Indices, ...]:
    """Groups numbered without gaps, up to the first level that joins all."""
    kept = [np.unique(column, return_inverse=True)[1].astype(np.int64) for column in columns]
    top = next(level for level, column in enumerate(kept) if level and int(column.max()) == 0)
    return tuple(kept[:top + 1])


def _clos(topology: Topology, columns: tuple[Indices, ...]) -> Clos:
    """Uplinks from bandwidth down over bandwidth up, by the largest group of each level."""
    planes = topology.whole("planes")
    port = topology.number("bandwidth") / planes
    cable = topology.number("uplink_bandwidth") or port
    uplinks, pace, below = [planes], [port], port
    for level in range(1, len(columns) - 1):
        group_of_child = np.unique(np.stack([columns[level], columns[level - 1]]), axis=1)[0]
        down = float(np.bincount(group_of_child).max()) * below
        ratio = topology.number("oversubscription" if level == 1 else "pod_oversubscription")
        uplinks.append(max(1, math.floor(down / (ratio * cable) + 1e-9)))
        pace.append(cable)
        below = cable
    return Clos(group_KE=columns, uplinks_K=tuple(uplinks), bandwidth_bytes_per_s_K=tuple(pace),
                latency_s=topology.number("latency"), failed=topology.failed, file=topology.file)


def _inside(topology: Topology, chips: int) -> Network:
    """The scale-up network of one domain, repeated: a switch each, or a wire for every pair of one domain."""
    chip, node = np.arange(chips), topology.whole("node")
    return Clos(group_KE=(chip, chip // node, np.zeros_like(chip)), uplinks_K=(1, 1), file=topology.file,
                bandwidth_bytes_per_s_K=(topology.number("inner_bandwidth"), 0.0),
                latency_s=topology.number("inner_latency") / 2.0)


def explicit_graph(topology: Topology) -> Graph:
    """The whole topology as nodes and directed links, failures left out. Raises BadInput beyond 20,000 chips.

    Where scale-up domains are wired inside and outside, both networks hang from the same endpoints.
    """
    wired = wire(topology)
    if wired.chips > _MOST_EXPLICIT:
        raise BadInput(file=topology.file, field="chips", value=wired.chips,
                       expected=f"at most {_MOST_EXPLICIT:,} chips for a graph with a name for each node",
                       remedy="Ask for a part of the fabric.")
    return _graph_of(wired.outer, topology, wired.inner, wired.node)


def _graph_of(outer: Network, topology: Topology, inner: Network | None = None, node: int = 1) -> Graph:
    names = tuple(f"chip{chip}" for chip in range(outer.chips))
    if isinstance(outer, GraphNetwork):
        return outer.graph
    ends, classes = outer.ends(), [block.name for block in outer.blocks if not block.bundle]
    count = len(ends.source_L)
    counts = [block.count for block in outer.blocks if not block.bundle]
    source, target, switches = ends.source_L, ends.target_L, list(ends.switch_names)
    pace, late = outer.bandwidth_bytes_per_s_L[:count], outer.latency_s_L[:count]
    kind = np.repeat(np.arange(len(classes)), counts)
    if inner is not None:
        chip = np.arange(outer.chips)
        hub = outer.chips + len(switches) + chip // node
        switches += [f"node{domain}" for domain in range(-(-outer.chips // node))]
        source, target = np.r_[source, chip, hub], np.r_[target, hub, chip]
        pace = np.r_[pace, np.tile(inner.bandwidth_bytes_per_s_L[:outer.chips], 2)]
        late = np.r_[late, np.tile(inner.latency_s_L[:outer.chips], 2)]
        kind = np.r_[kind, np.repeat([len(classes), len(classes) + 1], outer.chips)]
        classes += ["node up", "node down"]
    live = pace > 0.0
    return Graph(name=topology.name, node_names=(*names, *switches), endpoint_count=outer.chips, file=topology.file,
                 source_L=source[live], target_L=target[live], bandwidth_bytes_per_s_L=pace[live],
                 latency_s_L=late[live], link_class_L=kind[live], class_names=tuple(classes))
