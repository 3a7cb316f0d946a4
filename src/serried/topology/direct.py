"""Networks with no switch between chips, or of any shape: tori, a wire for every pair, explicit graphs."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from serried.errors import BadInput, NoAnswer
from serried.topology.spec import Bools, Floats, Graph, Indices
from serried.topology.wires import Block, Ends, Routes, blocks_of, concatenated, unreachable

__all__ = ["CUBE_MESH", "GraphNetwork", "Torus", "without"]

#: Links between pairs of the hybrid cube mesh of eight: two quads, each chip with its twin; six links a chip.
CUBE_MESH = ((0, 1, 1), (0, 2, 1), (0, 3, 2), (0, 4, 2), (1, 2, 2), (1, 3, 1), (1, 5, 2), (2, 3, 2), (2, 6, 1),
             (3, 7, 1), (4, 5, 1), (4, 6, 1), (4, 7, 2), (5, 6, 2), (5, 7, 1), (6, 7, 2))
_MOST_ROUTED = 3000


@dataclass(frozen=True, kw_only=True)
class Torus:
    """Circles along each dimension; messages go the shorter way round, dimension after dimension."""

    dimensions: tuple[int, ...]
    link_bandwidth_bytes_per_s: float
    latency_s: float

    @property
    def chips(self) -> int:
        """Endpoints."""
        return int(np.prod(self.dimensions))

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """One block a dimension: both ways of chip 0, then of chip 1."""
        return blocks_of({f"{'xyzuvw'[axis]}": 2 * self.chips for axis in range(len(self.dimensions))})

    @functools.cached_property
    def bandwidth_bytes_per_s_L(self) -> Floats:
        """The same of every link."""
        return np.full(2 * self.chips * len(self.dimensions), self.link_bandwidth_bytes_per_s)

    @functools.cached_property
    def cables_L(self) -> Floats:
        """A link is one cable."""
        return np.ones(2 * self.chips * len(self.dimensions))

    @functools.cached_property
    def latency_s_L(self) -> Floats:
        """One hop."""
        return np.full(2 * self.chips * len(self.dimensions), self.latency_s)

    def route(self, source_F: Indices, target_F: Indices, routing: str, rng: np.random.Generator) -> Routes:
        """Half the circle away both ways are as short: hashing draws one, the others use both evenly."""
        parts: list[tuple[Indices, Indices]] = []
        shares: list[Floats] = []
        here_F, below = source_F.copy(), 1
        for axis, degree in enumerate(self.dimensions):
            at_F, to_F = here_F // below % degree, target_F // below % degree
            ahead_F = (to_F - at_F) % degree
            tie_F = 2 * ahead_F == degree
            forward_F = np.where(2 * ahead_F < degree, 1.0, 0.0)
            forward_F[tie_F] = rng.integers(0, 2, int(tie_F.sum())) if routing == "ecmp" else 0.5
            for way, steps_F, share_F in ((0, ahead_F, forward_F), (1, degree - ahead_F, 1.0 - forward_F)):
                sign = 1 - 2 * way
                for step in range(degree // 2):
                    rows = np.flatnonzero((steps_F > step) & (ahead_F > 0) & (share_F > 0.0))
                    chip = here_F[rows] + ((at_F[rows] + sign * step) % degree - at_F[rows]) * below
                    parts.append((rows, self.blocks[axis].first + 2 * chip + way))
                    shares.append(share_F[rows])
            here_F = here_F + (to_F - at_F) * below
            below *= degree
        routes = concatenated(parts)
        return Routes(flow_N=routes.flow_N, link_N=routes.link_N, share_N=np.concatenate(shares))

    def ends(self) -> Ends:
        """Two links leave every chip along each dimension."""
        chip, below, sources, targets = np.arange(self.chips), 1, [], []
        for degree in self.dimensions:
            at = chip // below % degree
            ahead, back = (chip + ((at + sign) % degree - at) * below for sign in (1, -1))
            sources.append(np.repeat(chip, 2))
            targets.append(np.stack([ahead, back], axis=1).reshape(-1))
            below *= degree
        return Ends(source_L=np.concatenate(sources), target_L=np.concatenate(targets), switch_names=())


@dataclass(frozen=True, kw_only=True)
class GraphNetwork:
    """Shortest paths over an explicit graph; every hop of equal length is a choice."""

    graph: Graph
    file: str = ""

    @property
    def chips(self) -> int:
        """Endpoints."""
        return self.graph.endpoint_count

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """One block: links keep the order of the graph."""
        return blocks_of({"link": self.graph.link_count})

    @property
    def bandwidth_bytes_per_s_L(self) -> Floats:
        """Of each link."""
        return self.graph.bandwidth_bytes_per_s_L

    @functools.cached_property
    def cables_L(self) -> Floats:
        """A link is one cable."""
        return np.ones(self.graph.link_count)

    @property
    def latency_s_L(self) -> Floats:
        """Of each link."""
        return self.graph.latency_s_L

    @functools.cached_property
    def _hops(self) -> Floats:
        """Hops between every two nodes; infinite where there is no way."""
        from scipy.sparse import csr_array  # late: a verb that only asks for a law starts without it
        from scipy.sparse.csgraph import shortest_path

        if self.graph.node_count > _MOST_ROUTED:
            raise BadInput(file=self.file, field="nodes", value=self.graph.node_count,
                           expected=f"at most {_MOST_ROUTED:,} nodes where routes must be searched",
                           remedy="Describe it by a generator, or without failures.")
        live = self.graph.bandwidth_bytes_per_s_L > 0.0
        ends = (self.graph.source_L[live], self.graph.target_L[live])
        wires = csr_array((np.ones(int(live.sum())), ends), shape=(self.graph.node_count,) * 2)
        found: Floats = shortest_path(wires, unweighted=True)
        return found

    @functools.cached_property
    def _leaving(self) -> tuple[Indices, Indices, Indices]:
        """Live links by their source, and where each source's begin and end."""
        live = np.flatnonzero(self.graph.bandwidth_bytes_per_s_L > 0.0)
        order = live[np.argsort(self.graph.source_L[live], kind="stable")]
        nodes = np.arange(self.graph.node_count)
        return (order, np.searchsorted(self.graph.source_L[order], nodes),
                np.searchsorted(self.graph.source_L[order], nodes, side="right"))

    def route(self, source_F: Indices, target_F: Indices, routing: str, rng: np.random.Generator) -> Routes:
        """Hop by hop towards the target: hashing takes one of the equal next links, the others all of them evenly."""
        far = ~np.isfinite(self._hops[source_F, target_F])
        if far.any():
            raise unreachable(int(source_F[far][0]), int(target_F[far][0]))
        order, first, last = self._leaving
        flow, here, share = np.arange(len(source_F)), source_F.copy(), np.ones(len(source_F))
        flows, links, shares = [], [], []
        while len(flow):
            count = last[here] - first[here]
            row = np.repeat(np.arange(len(flow)), count)
            link = order[np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count) + first[here][row]]
            nearer = self._hops[self.graph.target_L[link], target_F[flow[row]]] == (
                self._hops[here[row], target_F[flow[row]]] - 1.0)
            row, link = row[nearer], link[nearer]
            if routing == "ecmp":
                draw = np.lexsort((rng.random(len(row)), row))
                row, link = row[draw], link[draw]
                kept = np.r_[True, row[1:] != row[:-1]] if len(row) else np.zeros(0, dtype=bool)
                row, link = row[kept], link[kept]
            ways = np.bincount(row, minlength=len(flow))
            passed = share[row] / ways[row]
            flows.append(flow[row])
            links.append(link)
            shares.append(passed)
            flow, here, share = flow[row], self.graph.target_L[link], passed
            going = here != target_F[flow]
            flow, here, share = flow[going], here[going], share[going]
        return Routes(flow_N=np.concatenate(flows), link_N=np.concatenate(links), share_N=np.concatenate(shares))

    def ends(self) -> Ends:
        """As given."""
        return Ends(source_L=self.graph.source_L, target_L=self.graph.target_L,
                    switch_names=self.graph.node_names[self.graph.endpoint_count:])


def without(graph: Graph, failed: tuple[str, ...]) -> Graph:
    """The graph with "link:i" (that cable, both ways) or "switch:i" out of order; refuses what is cut apart."""
    dead: Bools = np.zeros(graph.link_count, dtype=bool)
    pair = np.minimum(graph.source_L, graph.target_L) * graph.node_count + np.maximum(graph.source_L, graph.target_L)
    for word in failed:
        kind, _, digits = word.partition(":")
        index, switches = int(digits), graph.node_count - graph.endpoint_count
        if kind == "link" and index < graph.link_count:
            back = np.flatnonzero((pair == pair[index]) & (graph.source_L == graph.target_L[index]) & ~dead)
            dead[index] = True
            dead[back[:1]] = True
        elif kind == "switch" and index < switches:
            node = graph.endpoint_count + index
            dead |= (graph.source_L == node) | (graph.target_L == node)
        else:
            raise BadInput(file=graph.file, field="failed", value=word, remedy="Name what this graph has.",
                           expected=f"link:0..{graph.link_count - 1}" + (f" or switch:0..{switches - 1}" if switches
                                                                         else ""))
    kept = Graph(name=graph.name, node_names=graph.node_names, endpoint_count=graph.endpoint_count,
                 source_L=graph.source_L[~dead], target_L=graph.target_L[~dead], file=graph.file,
                 bandwidth_bytes_per_s_L=graph.bandwidth_bytes_per_s_L[~dead], latency_s_L=graph.latency_s_L[~dead],
                 link_class_L=graph.link_class_L[~dead], class_names=graph.class_names)
    refuse_disconnected(kept, failed)
    return kept


def refuse_disconnected(graph: Graph, failed: tuple[str, ...] = ()) -> None:
    """Every endpoint must reach every other; the error names one that cannot."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    wires = csr_array((np.ones(graph.link_count), (graph.source_L, graph.target_L)), shape=(graph.node_count,) * 2)
    _, part = connected_components(wires, directed=True, connection="strong")
    lost = np.flatnonzero(part[:graph.endpoint_count] != part[0])
    if not len(lost):
        return
    names, place = graph.node_names, f"no way between {graph.node_names[0]} and {graph.node_names[lost[0]]}"
    if failed:
        raise NoAnswer(f"{graph.name} is cut apart: {place}.", binding="disconnected", remedy="Repair a link.")
    raise BadInput(file=graph.file, field="link", value=names[lost[0]], expected=f"a connected graph, but there is "
                   f"{place} and back ({len(lost)} of {graph.endpoint_count} endpoints are cut off)",
                   remedy="Add the missing links.")
