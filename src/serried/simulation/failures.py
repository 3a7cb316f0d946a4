"""When what breaks, drawn beforehand for a whole run: one independent stream of chance per fault.

Axes: F = one failure, in the order of time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serried.clock import FOREVER_NS, SECOND_NS, Chance
from serried.errors import BadInput
from serried.fleet import Fleet
from serried.simulation.spec import Fault, Ints

__all__ = ["COMPONENTS", "Failures", "component_count", "draw_failures", "gang_failures_per_s"]

#: What breaks besides the switches of a fleet's levels.
COMPONENTS = ("chip", "link", "node")
_MOST_FAILURES = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Failures:
    """Failures as columns: when, which fault, which component (a chip's number over the fleet, a node, a switch), and
    how long its repair takes once it is known."""

    time_ns_F: Ints
    fault_F: NDArray[np.int32]
    component_F: Ints
    repair_ns_F: Ints

    def __len__(self) -> int:
        return len(self.time_ns_F)


def component_count(fleet: Fleet, component: str) -> int:
    """How many of a component a fleet has."""
    if component in ("chip", "link"):
        return int(fleet.chip_count_N.sum())
    if component == "node":
        return fleet.node_count
    return int(fleet.switch_LN[fleet.levels.index(component)].max()) + 1


def draw_failures(fleet: Fleet, faults: Sequence[Fault], *, end_ns: int, chance: Chance) -> Failures:
    """Every failure before `end_ns`: n components of rate r fail as one Poisson process of rate n r, each alike.

    A component that is down already when its turn comes does not fail again; the simulation passes over it.
    """
    parts = [_of_fault(fleet, number, fault, end_ns, chance.stream("failures", fault.name))
             for number, fault in enumerate(faults)]
    if not parts:
        none = np.empty(0, dtype=np.int64)
        return Failures(time_ns_F=none, fault_F=none.astype(np.int32), component_F=none, repair_ns_F=none)
    time_ns, fault, component, repair_ns = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(time_ns, kind="stable")
    return Failures(time_ns_F=time_ns[order], fault_F=fault[order].astype(np.int32), component_F=component[order],
                    repair_ns_F=repair_ns[order])


def _of_fault(fleet: Fleet, number: int, fault: Fault, end_ns: int,
              random: np.random.Generator) -> tuple[Ints, Ints, Ints, Ints]:
    count = component_count(fleet, fault.component)
    expected = count * fault.rate_per_s * end_ns / SECOND_NS
    if expected > _MOST_FAILURES:
        raise BadInput(field=f"fault {fault.name}", value=fault.rate_per_s, expected=f"at most {_MOST_FAILURES:,} "
                       "failures in a run", remedy=f"{expected:,.3g} would happen: check the unit of its rate.")
    total = int(random.poisson(expected))
    time_ns = np.sort((random.random(total) * end_ns).astype(np.int64))   # given their number, times are uniform
    component = random.integers(count, size=total)
    logarithm = np.log(max(fault.repair_median_ns, 1)) + fault.repair_spread * random.standard_normal(total)
    repair_ns = np.minimum(np.exp(logarithm), FOREVER_NS / 4).astype(np.int64) if fault.repair_median_ns else (
        np.zeros(total, dtype=np.int64))
    return time_ns, np.full(total, number), component, repair_ns


def gang_failures_per_s(faults: Sequence[Fault], *, node_count: float, chip_count: float,
                        switch_counts: Sequence[float] = (), levels: Sequence[str] = ()) -> float:
    """Failures a second that a gang of so many nodes, chips and switches meets; slow nodes do not count."""
    counts = {"chip": chip_count, "link": chip_count, "node": node_count} | dict(
        zip(levels, switch_counts, strict=False))
    return sum(fault.rate_per_s * counts.get(fault.component, 0.0) for fault in faults if fault.effect == "down")
