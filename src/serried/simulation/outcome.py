"""What came of a run: where chip-time went, who waited, who got what, what it cost.

Axes: K = kind of chip, S = switch, X = sample (one an hour).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from serried.clock import SECOND_NS
from serried.economics import energy_j
from serried.fleet import EventKind, Fleet
from serried.fleet.spec import WHOLE_MILLI
from serried.simulation.accounting import CHIP_HOUR
from serried.simulation.spec import Scenario
from serried.workload import Floats

if TYPE_CHECKING:
    from serried.simulation.simulator import Simulator

__all__ = ["ClassOutcome", "Heat", "KindOutcome", "Outcome", "ServiceOutcome", "TenantOutcome", "outcome_of"]

_MOST_TILES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassOutcome:
    """Jobs of one class. Waits are from submission to the first start, of those that started; NaN when none did.

    effective_time_ratio: useful over held chip-time.
    """

    name: str
    submitted: int
    started: int
    finished: int
    wait_p50_s: float
    wait_p90_s: float
    wait_p99_s: float
    held_chip_hours: float
    useful_chip_hours: float
    effective_time_ratio: float
    interruptions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantOutcome:
    """What one tenant held, beside the share of all held chip-time that its weight entitles it to."""

    name: str
    held_chip_hours: float
    useful_chip_hours: float
    held_ratio: float
    entitled_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOutcome:
    """One service: the load it was offered on average, in replicas, and the share of it that too few replicas met."""

    name: str
    mean_load_replicas: float
    unserved_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KindOutcome:
    """One kind of chip; energy and cost are NaN where power, or price and rent, are unknown."""

    name: str
    chip_count: int
    held_ratio: float
    working_ratio: float
    energy_j: float
    cost_usd: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Heat:
    """Share of chip-time that worked, and that nodes were down, per switch of one level, in the order of the nodes."""

    level: str
    kind_S: NDArray[np.int16]
    working_ratio_S: Floats
    down_ratio_S: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """chip_hours: accounts of the waterfall, which add up to capacity_chip_hours exactly (they do so as whole numbers).

    goodput_ratio: useful over all chip-time; allocation_ratio: held over all. fairness: Jain's index over tenants of
    held over entitled share. hours: columns of hourly samples. failures: how often each fault struck.
    """

    name: str
    policy: str
    seed: int
    days: float
    chip_count: int
    node_count: int
    capacity_chip_hours: float
    goodput_ratio: float
    allocation_ratio: float
    chip_hours: Mapping[str, float]
    classes: Sequence[ClassOutcome]
    tenants: Sequence[TenantOutcome]
    services: Sequence[ServiceOutcome]
    kinds: Sequence[KindOutcome]
    failures: Mapping[str, int]
    fairness: float
    fragmentation_ratio: float
    preemptions: int
    moves: int
    replacements: int
    energy_j: float
    cost_usd: float
    usd_per_useful_chip_hour: float
    hours: Mapping[str, Sequence[float]]
    heat: Heat
    events: int
    decisions: int
    digest: str


def outcome_of(run: Simulator) -> Outcome:
    """Add up a run that is over."""
    books, gangs, fleet, scenario = run.books, run.gangs, run.scenario.fleet, run.scenario
    capacity = books.capacity_milli * run.end_ns
    assert sum(books.total.values()) == capacity, "the accounts add up to the fleet"
    held = sum(gangs.held_K)
    assert held == books.held_total, "what jobs held is what was not free"
    useful = books.total["useful"]
    kinds = _kinds(run)
    cost_usd = float(sum(kind.cost_usd for kind in kinds))
    tenants = _tenants(run)
    hours = run.samples
    events = run.state.log
    moved = [event.cause for event in events if event.kind in (EventKind.MOVE, EventKind.EVICT, EventKind.REPLACE)]
    return Outcome(
        name=scenario.name, policy=run.policy.name, seed=run.seed, days=run.end_ns / SECOND_NS / 86400.0,
        chip_count=books.capacity_milli // WHOLE_MILLI, node_count=fleet.node_count,
        capacity_chip_hours=capacity / CHIP_HOUR, goodput_ratio=useful / capacity, allocation_ratio=held / capacity,
        chip_hours=books.chip_hours(), classes=_classes(run), tenants=tenants, services=_services(run), kinds=kinds,
        failures=_strikes(run), fairness=_jain([one.held_ratio / one.entitled_ratio for one in tenants]),
        fragmentation_ratio=float(np.mean(hours.fragmentation_ratio)) if hours.time_ns else 0.0,
        preemptions=moved.count("preempted"), moves=moved.count("defragmented") + moved.count("drained"),
        replacements=sum(event.kind == EventKind.REPLACE and event.cause == "failed" for event in events),
        energy_j=float(sum(kind.energy_j for kind in kinds)), cost_usd=cost_usd,
        usd_per_useful_chip_hour=cost_usd / (useful / CHIP_HOUR) if useful else float("nan"),
        hours={"time_s": [time_ns / SECOND_NS for time_ns in hours.time_ns], "held_ratio": hours.held_ratio,
               "down_ratio": hours.down_ratio, "fragmentation_ratio": hours.fragmentation_ratio,
               "pending": hours.pending},
        heat=_heat(run), events=len(events), decisions=len(run.decided_at), digest=run.state.digest())


def _classes(run: Simulator) -> list[ClassOutcome]:
    gangs = run.gangs
    class_J, first_J = np.array(gangs.class_J), np.array(gangs.first_start_ns_J)
    finish_J = np.array(gangs.finish_ns_J)
    interruptions_J, wait_s_J = np.array(gangs.interruptions_J), (first_J - np.array(run.state.submitted_ns_J)) / 1e9
    names = (*run.submissions.class_names, *(one.name for one in run.scenario.services))
    found = []
    for number, name in enumerate(names):
        of_class = class_J == number
        waits_s = wait_s_J[of_class & (first_J >= 0)]
        p50_s, p90_s, p99_s = np.percentile(waits_s, (50, 90, 99)).tolist() if len(waits_s) else [float("nan")] * 3
        held = gangs.held_A[number]
        found.append(ClassOutcome(
            name=name, submitted=int(of_class.sum()), started=len(waits_s),
            finished=int((finish_J[of_class] >= 0).sum()), wait_p50_s=p50_s, wait_p90_s=p90_s, wait_p99_s=p99_s,
            held_chip_hours=held / CHIP_HOUR, useful_chip_hours=gangs.useful_A[number] / CHIP_HOUR,
            effective_time_ratio=gangs.useful_A[number] / held if held else float("nan"),
            interruptions=int(interruptions_J[of_class].sum())))
    return found


def _tenants(run: Simulator) -> list[TenantOutcome]:
    """Tenants that submit; a tenant's share is its parent's, divided by weight among those below it."""
    tenants = run.scenario.fleet.tenants
    parents = {tenant.parent for tenant in tenants}
    leaves = [number for number in range(len(tenants)) if number not in parents]
    held = sum(run.gangs.held_T[number] for number in leaves)

    def entitled(number: int) -> float:
        tenant = tenants[number]
        among = sum(one.weight for one in tenants if one.parent == tenant.parent)
        return tenant.weight / among * (entitled(tenant.parent) if tenant.parent >= 0 else 1.0)

    return [TenantOutcome(name=tenants[number].name, held_chip_hours=run.gangs.held_T[number] / CHIP_HOUR,
                          useful_chip_hours=run.gangs.useful_T[number] / CHIP_HOUR,
                          held_ratio=run.gangs.held_T[number] / held if held else 0.0, entitled_ratio=entitled(number))
            for number in leaves]


def _jain(values: Sequence[float]) -> float:
    """(sum x)^2 / (n sum x^2): 1 when all are equal, 1/n when one has everything."""
    column = np.array(values)
    return float(column.sum() ** 2 / (len(column) * (column**2).sum())) if column.any() else 1.0


def _services(run: Simulator) -> list[ServiceOutcome]:
    return [ServiceOutcome(name=one.name, mean_load_replicas=run.replicas.offered_V[number] / run.end_ns,
                           unserved_ratio=run.replicas.unserved_ratio(number))
            for number, one in enumerate(run.scenario.services)]


def _strikes(run: Simulator) -> dict[str, int]:
    counts = np.bincount(np.array(run.struck_F, dtype=np.int64), minlength=len(run.scenario.faults))
    return {fault.name: int(count) for fault, count in zip(run.scenario.faults, counts.tolist(), strict=True)}


def _kinds(run: Simulator) -> list[KindOutcome]:
    scenario, fleet = run.scenario, run.scenario.fleet
    found = []
    for kind, name in enumerate(fleet.kinds):
        count = int(fleet.chip_count_N[fleet.kind_N == kind].sum())
        whole = max(count * WHOLE_MILLI * run.end_ns, 1)
        working = run.gangs.working_K[kind] / whole
        used_j, cost_usd = _energy_and_cost(scenario, kind, count, run.end_ns / SECOND_NS, working)
        found.append(KindOutcome(name=name, chip_count=count, held_ratio=run.gangs.held_K[kind] / whole,
                                 working_ratio=working, energy_j=used_j, cost_usd=cost_usd))
    return found


def _energy_and_cost(scenario: Scenario, kind: int, count: int, time_s: float, working: float) -> tuple[float, float]:
    """Chips that are owned are paid for whether they work or not, and so is rent, which has electricity in it."""
    chip, tariff = scenario.chips_K[kind], scenario.tariff
    if chip is None:
        return float("nan"), float("nan")
    used_j = float(energy_j(time_s, working, chip=chip, chip_count=count, tariff=tariff))
    given_usd = scenario.price_usd_K[kind] if scenario.price_usd_K else None
    price_usd, rent_usd_per_s = chip.get("price") if given_usd is None else given_usd, chip.get("rent")
    if price_usd is not None:
        capital_usd = price_usd * tariff.capital_ratio * count * time_s / tariff.lifetime_s
        return used_j, capital_usd + used_j * tariff.electricity_usd_per_j
    return used_j, float("nan") if rent_usd_per_s is None else rent_usd_per_s * count * time_s


def _heat(run: Simulator) -> Heat:
    fleet = run.scenario.fleet
    level, switch_N = _tiles(fleet)
    chips_S = np.bincount(switch_N, weights=fleet.chip_count_N)
    down_N = np.zeros(fleet.node_count)
    down_N[list(run.samples.down_ns)] = list(run.samples.down_ns.values())
    whole_S = np.maximum(chips_S * run.end_ns, 1)
    first_S = np.searchsorted(switch_N, np.arange(len(chips_S)))
    return Heat(level=level, kind_S=fleet.kind_N[first_S],
                working_ratio_S=np.bincount(switch_N, weights=run.gangs.working_N()) / whole_S,
                down_ratio_S=np.bincount(switch_N, weights=down_N * fleet.chip_count_N) / whole_S)


def _tiles(fleet: Fleet) -> tuple[str, NDArray[np.int32]]:
    """The finest level of at most so many switches as a page can show; nodes where there are few."""
    if fleet.node_count <= _MOST_TILES // 4 or not fleet.levels:
        return "node", np.minimum(np.arange(fleet.node_count, dtype=np.int32), _MOST_TILES - 1)
    for level, switch_N in zip(fleet.levels, fleet.switch_LN, strict=True):
        if switch_N[-1] < _MOST_TILES:
            return level, switch_N
    return fleet.levels[-1], np.minimum(fleet.switch_LN[-1], _MOST_TILES - 1)
