"""What is physically wrong with the fleet, known or not: faults strike, are found, are repaired.

A node may suffer several faults at once; it works again when the last is repaired.

Axes: N = node, F = one failure.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from serried.fleet import Fleet, Placement
from serried.simulation.failures import Failures
from serried.simulation.spec import Fault

__all__ = ["Breakage"]


class Breakage:
    """unknown_N: faults of a node that nobody knows of; known_N: those that keep it down; pace_N: of slow nodes."""

    def __init__(self, fleet: Fleet, faults: tuple[Fault, ...], failures: Failures) -> None:
        self.fleet, self.faults, self.failures = fleet, faults, failures
        self.unknown_N = np.zeros(fleet.node_count, dtype=np.int16)
        self.unknown_chips_N = np.zeros(fleet.node_count, dtype=np.uint64)
        self.known_N = np.zeros(fleet.node_count, dtype=np.int16)
        self.down_fault_N = np.zeros(fleet.node_count, dtype=np.int16)
        self.pace_N = np.ones(fleet.node_count)
        self.slow_count = self.unknown_count = 0
        self._first_chip_N = np.cumsum(fleet.chip_count_N) - fleet.chip_count_N
        self._struck: set[tuple[str, int]] = set()   # components that are broken already

    def begin(self, failure: int) -> bool:
        """Whether a failure happens at all: what is broken already does not break again."""
        component = self._component(failure)
        if component in self._struck:
            return False
        self._struck.add(component)
        return True

    def end(self, failure: int) -> None:
        """Its component works again."""
        self._struck.discard(self._component(failure))

    def _component(self, failure: int) -> tuple[str, int]:
        fault = self.faults[self.failures.fault_F[failure]]
        return f"{fault.effect} {fault.component}", int(self.failures.component_F[failure])

    def reach(self, failure: int) -> tuple[tuple[int, ...], int]:
        """The nodes that a failure takes, and the chips if it takes single ones (a mask, else 0)."""
        fault, place = self.faults[self.failures.fault_F[failure]], int(self.failures.component_F[failure])
        if fault.component == "node":
            return (place,), 0
        if fault.component in ("chip", "link"):
            node = int(np.searchsorted(self._first_chip_N, place, side="right")) - 1
            mask = 1 << place - int(self._first_chip_N[node])
            return (node,), mask if fault.component == "chip" and fault.effect == "down" else 0
        switch_N = self.fleet.switch_LN[self.fleet.levels.index(fault.component)]
        first, last = np.searchsorted(switch_N, [place, place + 1])
        return tuple(range(int(first), int(last))), 0

    def strike(self, nodes: tuple[int, ...], chips: int) -> None:
        """A fault begins that nobody knows of."""
        self.unknown_count += 1
        if chips:
            self.unknown_chips_N[nodes[0]] |= np.uint64(chips)
        else:
            self.unknown_N[list(nodes)] += 1

    def find(self, failure: int, nodes: tuple[int, ...], chips: int) -> tuple[int, ...]:
        """The fleet knows; returns the nodes that go down by it."""
        self.unknown_count -= 1
        if chips:
            self.unknown_chips_N[nodes[0]] &= ~np.uint64(chips)
            self.down_fault_N[nodes[0]] = self.failures.fault_F[failure]
            return nodes
        rows = np.array(nodes)
        self.unknown_N[rows] -= 1
        fresh = rows[self.known_N[rows] == 0]
        self.known_N[rows] += 1
        self.down_fault_N[fresh] = self.failures.fault_F[failure]
        return tuple(fresh.tolist())

    def repair(self, nodes: tuple[int, ...], chips: int) -> tuple[int, ...]:
        """One fault is mended; returns the nodes that work again."""
        if chips:
            return nodes
        rows = np.array(nodes)
        self.known_N[rows] -= 1
        return tuple(rows[self.known_N[rows] == 0].tolist())

    def slow(self, node: int, pace: float) -> None:
        """A node goes slower, or (pace 1) as it should."""
        self.slow_count += (pace < 1.0) - bool(self.pace_N[node] < 1.0)
        self.pace_N[node] = pace

    def pace_of(self, placement: Placement) -> float:
        """A gang's pace is its slowest node's."""
        if not self.slow_count:
            return 1.0
        if len(placement.node_R) == 1:
            return self.pace_N.item(placement.node_R.item())
        return float(self.pace_N[placement.nodes].min())

    def strikes(self, placement: Placement) -> bool:
        """Whether a fault that nobody knows of lies under a placement."""
        if not self.unknown_count:
            return False
        if len(placement.node_R) == 1:
            node = placement.node_R.item()
            return bool(self.unknown_N.item(node) or self.unknown_chips_N.item(node) & placement.chips_R.item())
        return bool(np.count_nonzero(self.unknown_N[placement.nodes]) or np.count_nonzero(
            self.unknown_chips_N[placement.nodes] & placement.chips_R))


def holds_chip(placement: Placement, nodes: Iterable[int], chips: int) -> bool:
    """Whether a placement holds any of these chips; any of the nodes when no chip is named."""
    rows = np.logical_or.reduce([placement.node_R == node for node in nodes])
    return bool((placement.chips_R[rows] & np.uint64(chips)).any()) if chips else bool(rows.any())
