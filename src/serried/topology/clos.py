"""Folded Clos networks of any depth, by arithmetic on addresses.

A chip belongs to one group at each level: itself, its leaf, its pod, the whole. A flow climbs to the lowest level at
which both ends share a group, choosing one uplink at each step; the choices (the path) settle the way down, because
uplink u of every group leads to the switch numbered u above it. Ports of a dual-plane adapter are uplinks of level 0.

Axes: K = level, from the chip up; E = chip.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from serried.errors import BadInput
from serried.topology.spec import Floats, Indices
from serried.topology.wires import Block, Ends, Routes, blocks_of, concatenated, resample, unreachable

__all__ = ["LEVELS", "Clos"]

LEVELS = ("nic", "leaf", "spine", "core", "top")


@dataclass(frozen=True, kw_only=True)
class Clos:
    """group_KE: group of each chip by level; the last level has one group. uplinks_K: choices at each climb.

    bandwidth_bytes_per_s_K, latency_s: of one cable of each level. failed: "<class>:<index>", see `_unknown`.
    """

    group_KE: tuple[Indices, ...]
    uplinks_K: tuple[int, ...]
    bandwidth_bytes_per_s_K: tuple[float, ...]
    latency_s: float
    failed: tuple[str, ...] = ()
    file: str = ""

    @property
    def chips(self) -> int:
        """Endpoints."""
        return len(self.group_KE[0])

    @functools.cached_property
    def groups_K(self) -> tuple[int, ...]:
        """Groups at each level."""
        return tuple(int(column.max()) + 1 for column in self.group_KE)

    @functools.cached_property
    def paths_K(self) -> tuple[int, ...]:
        """Paths from a chip up to each level's uplinks."""
        return tuple(int(count) for count in np.cumprod(self.uplinks_K))

    @functools.cached_property
    def parent_K(self) -> tuple[Indices, ...]:
        """Group above each group."""
        parents = []
        for below, above in zip(self.group_KE[:-1], self.group_KE[1:], strict=True):
            parent = np.zeros(int(below.max()) + 1, dtype=np.int64)
            parent[below] = above
            parents.append(parent)
        return tuple(parents)

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Cables up by level, the same down, then bundles up and down."""
        cables = {LEVELS[level]: groups * paths for level, (groups, paths) in
                  enumerate(zip(self.groups_K[:-1], self.paths_K, strict=True))}
        bundles = {LEVELS[level]: self.groups_K[level] for level in range(len(self.uplinks_K))}
        sizes = {f"{name} {way}": count for way in ("up", "down") for name, count in cables.items()}
        sizes |= {f"{name}s {way}": count for way in ("up", "down") for name, count in bundles.items()}
        return blocks_of(sizes, bundles=frozenset(f"{name}s {way}" for way in ("up", "down") for name in bundles))

    @functools.cached_property
    def live_K(self) -> tuple[Floats, ...]:
        """1 for each cable in order, 0 for each that is not, by level, as [group, path]."""
        live = [np.ones((groups, paths)) for groups, paths in zip(self.groups_K[:-1], self.paths_K, strict=True)]
        for word in self.failed:
            self._break(word, live)
        return tuple(live)

    def _break(self, word: str, live: list[Floats]) -> None:
        kind, _, digits = word.partition(":")
        index, top = int(digits), len(live)
        if kind == "link":   # cables between switches, from the leaves up; where there are none, those of the chips
            level = 1 if top > 1 else 0
            while level < top - 1 and index >= live[level].size:
                index -= live[level].size
                level += 1
        elif kind == "nic":
            level = 0
        elif kind in LEVELS[1:top + 1]:
            return self._break_switch(word, LEVELS.index(kind), index, live)
        else:
            raise self._unknown(word)
        if index >= live[level].size:
            raise self._unknown(word)
        live[level].reshape(-1)[index] = 0.0
        return None

    def _break_switch(self, word: str, level: int, index: int, live: list[Floats]) -> None:
        """A switch takes its cables down and up with it."""
        paths = self.paths_K[level - 1]
        group, path = divmod(index, paths)
        if group >= self.groups_K[level]:
            raise self._unknown(word)
        live[level - 1][self.parent_K[level - 1] == group, path] = 0.0
        if level < len(live):
            uplinks = self.uplinks_K[level]
            live[level][group, path * uplinks:(path + 1) * uplinks] = 0.0

    def _unknown(self, word: str) -> BadInput:
        top = len(self.uplinks_K)
        there = [f"nic:0..{self.groups_K[0] * self.paths_K[0] - 1}"]
        cables = sum(self.groups_K[level] * self.paths_K[level] for level in range(1, top))
        there += [f"link:0..{cables - 1}"] if cables else []
        there += [f"{LEVELS[level]}:0..{self.groups_K[level] * self.paths_K[level - 1] - 1}"
                  for level in range(1, top + 1)]
        return BadInput(file=self.file, field="failed", value=word, expected=f"one of {', '.join(there)}",
                        remedy="Name what this topology has.")

    @functools.cached_property
    def cables_L(self) -> Floats:
        """Live cables behind each id."""
        cables = np.concatenate([live.reshape(-1) for live in self.live_K])
        bundles = np.concatenate([live.sum(axis=1) for live in self.live_K])
        found: Floats = np.concatenate([cables, cables, bundles, bundles])
        return found

    @functools.cached_property
    def bandwidth_bytes_per_s_L(self) -> Floats:
        """Of each cable or bundle, both ways the same."""
        pace = [np.full(block.count, self.bandwidth_bytes_per_s_K[position % len(self.uplinks_K)])
                for position, block in enumerate(self.blocks)]
        found: Floats = self.cables_L * np.concatenate(pace)
        return found

    @functools.cached_property
    def latency_s_L(self) -> Floats:
        """One cable and the switch behind it."""
        return np.full(len(self.cables_L), self.latency_s)

    def meeting_level(self, source_F: Indices, target_F: Indices) -> Indices:
        """The lowest level at which both ends share a group."""
        level_F = np.full(len(source_F), len(self.uplinks_K), dtype=np.int64)
        for level in range(len(self.uplinks_K) - 1, 0, -1):
            level_F[self.group_KE[level][source_F] == self.group_KE[level][target_F]] = level
        return level_F

    def route(self, source_F: Indices, target_F: Indices, routing: str, rng: np.random.Generator) -> Routes:
        """One path a flow under hashing; bundles under spraying and planning."""
        level_F = self.meeting_level(source_F, target_F)
        if routing == "ecmp":
            return self._hashed(source_F, target_F, level_F, rng)
        top, parts = len(self.uplinks_K), []
        for level in range(top):
            rows = np.flatnonzero(level_F > level)
            for way, ends_F in ((2, source_F), (3, target_F)):
                block = self.blocks[way * top + level]
                group = self.group_KE[level][ends_F[rows]]
                dead = self.bandwidth_bytes_per_s_L[block.first + group] <= 0.0
                if dead.any():
                    raise unreachable(int(source_F[rows[dead][0]]), int(target_F[rows[dead][0]]))
                parts.append((rows, block.first + group))
        return concatenated(parts)

    def _hashed(self, source_F: Indices, target_F: Indices, level_F: Indices, rng: np.random.Generator) -> Routes:
        """A path drawn at random among those in order: every switch hashes the flow on its own."""
        path_F = np.zeros((len(self.uplinks_K), len(source_F)), dtype=np.int64)
        first = True

        def draw(rows: Indices) -> Indices:
            nonlocal first
            path, broken = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=bool)
            for level, uplinks in enumerate(self.uplinks_K):
                by_host = first and level == 0   # a host deals its flows out to its ports; only switches hash
                path = path * uplinks + (rows % uplinks if by_host else rng.integers(0, uplinks, len(rows)))
                path_F[level, rows] = path
                if not self.failed:
                    continue
                for ends_F in (source_F, target_F):
                    dead = self.live_K[level][self.group_KE[level][ends_F[rows]], path] == 0.0
                    broken |= dead & (level_F[rows] > level)
            first = False
            return rows[broken]

        resample(len(source_F), draw, source_F, target_F)
        top, parts = len(self.uplinks_K), []
        for level in range(top):
            rows = np.flatnonzero(level_F > level)
            for way, ends_F in ((0, source_F), (1, target_F)):
                group = self.group_KE[level][ends_F[rows]]
                parts.append((rows, self.blocks[way * top + level].first + group * self.paths_K[level]
                              + path_F[level, rows]))
        return concatenated(parts)

    def ends(self) -> Ends:
        """Chips, then the switches of each level, numbered by (group, path)."""
        sources, targets, names, first_below, first = [], [], [], 0, self.chips
        for level, uplinks in enumerate(self.uplinks_K):
            group, path = (axis.reshape(-1) for axis in np.indices((self.groups_K[level], self.paths_K[level])))
            below = group if level == 0 else group * self.paths_K[level - 1] + path // uplinks
            sources.append(first_below + below)
            targets.append(first + self.parent_K[level][group] * self.paths_K[level] + path)
            count = self.groups_K[level + 1] * self.paths_K[level]
            names += [f"{LEVELS[level + 1]}{switch}" for switch in range(count)]
            first_below, first = first, first + count
        up, down = np.concatenate(sources), np.concatenate(targets)
        return Ends(source_L=np.concatenate([up, down]), target_L=np.concatenate([down, up]), switch_names=tuple(names))
