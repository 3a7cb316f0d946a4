"""A dragonfly: chips on routers, routers of a group all joined, cables between every two groups; minimal paths.

Kim, Dally, Scott and Abts 2008. A message takes at most one local, one global and one local cable.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from serried.errors import BadInput
from serried.topology.spec import Bools, Floats, Indices
from serried.topology.wires import Block, Ends, Routes, blocks_of, concatenated, resample, unreachable

__all__ = ["Dragonfly"]


@dataclass(frozen=True, kw_only=True)
class Dragonfly:
    """`groups` of `routers` of `router_chips`; `global_links` cables between each pair of groups."""

    groups: int
    routers: int
    router_chips: int
    global_links: int
    nic_bandwidth_bytes_per_s: float
    link_bandwidth_bytes_per_s: float
    latency_s: float
    failed: tuple[str, ...] = ()
    file: str = ""

    @property
    def chips(self) -> int:
        """Endpoints."""
        return self.groups * self.routers * self.router_chips

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Ids: chips up, chips down, local by (group, from, to), global by (from, to, cable)."""
        return blocks_of({"nic up": self.chips, "nic down": self.chips, "local": self.groups * self.routers**2,
                          "global": self.groups**2 * self.global_links})

    @functools.cached_property
    def cables_L(self) -> Floats:
        """1 where there is a cable in order: none leads from a router or a group to itself."""
        local = np.tile((1.0 - np.eye(self.routers)).reshape(-1), self.groups)
        between = np.repeat(1.0 - np.eye(self.groups), self.global_links)
        live: Floats = np.concatenate([np.ones(2 * self.chips), local, between])
        for word in self.failed:
            kind, _, digits = word.partition(":")
            name = {"link": "global", "nic": "nic up"}.get(kind, kind)
            block = next((block for block in self.blocks if block.name == name), None)
            if block is None or int(digits) >= block.count:
                raise BadInput(file=self.file, field="failed", value=word, remedy="Name what this topology has.",
                               expected=f"nic:0..{self.chips - 1}, local:0..{self.blocks[2].count - 1} or "
                               f"link:0..{self.blocks[3].count - 1}")
            live[[block.first + int(digits), self._back(kind, int(digits))]] = 0.0
        return live

    def _back(self, kind: str, index: int) -> int:
        """Id of the other direction of a cable."""
        if kind == "nic":
            return self.chips + index
        if kind == "local":
            group, rest = divmod(index, self.routers**2)
            here, there = divmod(rest, self.routers)
            return self.blocks[2].first + group * self.routers**2 + there * self.routers + here
        pair, cable = divmod(index, self.global_links)
        here, there = divmod(pair, self.groups)
        return self.blocks[3].first + (there * self.groups + here) * self.global_links + cable

    @functools.cached_property
    def bandwidth_bytes_per_s_L(self) -> Floats:
        """Of each link; 0 where there is none."""
        pace = np.full(len(self.cables_L), self.link_bandwidth_bytes_per_s)
        pace[:2 * self.chips] = self.nic_bandwidth_bytes_per_s
        found: Floats = self.cables_L * pace
        return found

    @functools.cached_property
    def latency_s_L(self) -> Floats:
        """The same of every cable."""
        return np.full(len(self.cables_L), self.latency_s)

    def _gateway(self, group: Indices, other: Indices, cable: Indices | int) -> Indices:
        """The router of `group` that holds that cable to `other`: cables are dealt out in turn."""
        turn = other - (other > group)
        gate: Indices = (turn * self.global_links + cable) % self.routers
        return gate

    def _path(self, source_F: Indices, target_F: Indices, cable_F: Indices) -> list[tuple[Indices, Indices]]:
        """(flows, links) along minimal paths that use the given global cables."""
        router = [ends // self.router_chips for ends in (source_F, target_F)]
        group, at = [ends // self.routers for ends in router], [ends % self.routers for ends in router]
        rows = np.arange(len(source_F))
        far = group[0] != group[1]
        out = np.where(far, self._gateway(group[0], group[1], cable_F), at[1])
        into = np.where(far, self._gateway(group[1], group[0], cable_F), at[1])
        local, between = self.blocks[2].first, self.blocks[3].first
        first, last = at[0] != out, far & (into != at[1])
        return [(rows, source_F), (rows, self.chips + target_F),
                (rows[first], (local + group[0] * self.routers**2 + at[0] * self.routers + out)[first]),
                (rows[far], (between + (group[0] * self.groups + group[1]) * self.global_links + cable_F)[far]),
                (rows[last], (local + group[1] * self.routers**2 + into * self.routers + at[1])[last])]

    def route(self, source_F: Indices, target_F: Indices, routing: str, rng: np.random.Generator) -> Routes:
        """Hashing draws one global cable a flow; the others share out over all that are in order."""
        count = len(source_F)
        if routing == "ecmp":
            cable_F = np.zeros(count, dtype=np.int64)

            def draw(rows: Indices) -> Indices:
                cable_F[rows] = rng.integers(0, self.global_links, len(rows))
                return rows[~self._open(source_F[rows], target_F[rows], cable_F[rows])]

            resample(count, draw, source_F, target_F)
            return concatenated(self._path(source_F, target_F, cable_F))
        open_FC = np.stack([self._open(source_F, target_F, np.full(count, cable))
                            for cable in range(self.global_links)], axis=1)
        ways_F = open_FC.sum(axis=1)
        if not ways_F.all():
            lost = int(np.flatnonzero(ways_F == 0)[0])
            raise unreachable(int(source_F[lost]), int(target_F[lost]))
        flows, links = [], []
        for cable in range(self.global_links):
            for rows, link in self._path(source_F, target_F, np.full(count, cable)):
                kept = open_FC[rows, cable]
                flows.append(rows[kept])
                links.append(link[kept])
        flow_N = np.concatenate(flows)
        return Routes(flow_N=flow_N, link_N=np.concatenate(links), share_N=1.0 / ways_F[flow_N])

    def _open(self, source_F: Indices, target_F: Indices, cable_F: Indices) -> Bools:
        """Whether every cable of the path is in order."""
        whole: Bools = np.ones(len(source_F), dtype=bool)
        for rows, links in self._path(source_F, target_F, cable_F):
            np.logical_and.at(whole, rows, self.cables_L[links] > 0.0)
        return whole

    def ends(self) -> Ends:
        """Chips, then routers; where there is no cable both ends are the same and the bandwidth is 0."""
        chip = np.arange(self.chips)
        router = self.chips + chip // self.router_chips
        group, here, there = (axis.reshape(-1) for axis in np.indices((self.groups, self.routers, self.routers)))
        first = self.chips + group * self.routers
        home, away, cable = (axis.reshape(-1) for axis in np.indices((self.groups, self.groups, self.global_links)))
        out = self.chips + home * self.routers + self._gateway(home, away, cable)
        into = self.chips + away * self.routers + self._gateway(away, home, cable)
        return Ends(source_L=np.concatenate([chip, router, first + here, out]),
                    target_L=np.concatenate([router, chip, first + there, into]),
                    switch_names=tuple(f"router{index}" for index in range(self.groups * self.routers)))
