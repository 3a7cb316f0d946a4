"""Small scenarios that tests run."""

from __future__ import annotations

import numpy as np

from serried.clock import DAY_NS, HOUR_NS, SECOND_NS
from serried.fleet import Alternative, Shape, Tenant
from serried.fleet.assembly import fleet_of
from serried.fleet.rules import Rules
from serried.simulation import Checkpoint, Fault, JobClass, Scenario, Service


def gang(chips: int, *, width: int = 4, kinds: int = 1, **asked: object) -> Shape:
    """A gang on any kind; kind 1 is twice as fast."""
    return Shape(alternatives=tuple(Alternative(kinds=(kind,), worker_count=max(chips // width, 1),
                                                chips_per_worker=min(chips, width),
                                                throughput_per_s=chips * (1.0 + kind))
                                    for kind in range(kinds)), **asked)


def scenario(*, nodes: int = 16, kinds: int = 1, jobs_per_day: float = 60, rate_per_day: float = 0.02,
             service: bool = True, rules: Rules | None = None, decide_every_ns: int = 0,
             checkpoint: Checkpoint | None = None) -> Scenario:
    """Everything that can happen, on a few nodes of four chips."""
    fleet = fleet_of(kinds=[f"kind-{kind}" for kind in range(kinds)], kind_N=np.arange(nodes) * kinds // nodes,
                     chip_count_N=np.full(nodes, 4), tenants=(Tenant(name="a"), Tenant(name="b", weight=2.0)),
                     usage_half_life_ns=DAY_NS,
                     switches={"leaf": list(np.arange(nodes) // 4), "spine": list(np.arange(nodes) // 8)})
    rate_per_s = rate_per_day / 86400
    faults = tuple(
        Fault(name=name, component=component, rate_per_s=rate_per_s, detection_ns=300 * SECOND_NS,
              repair_median_ns=repair_ns, repair_spread=0.5, effect=effect, pace=pace)
        for name, component, repair_ns, effect, pace in (
            ("chip", "chip", 4 * HOUR_NS, "down", 1.0), ("link", "link", HOUR_NS, "down", 1.0),
            ("node", "node", 8 * HOUR_NS, "down", 1.0), ("process", "chip", 0, "down", 1.0),
            ("leaf", "leaf", HOUR_NS, "down", 1.0), ("slow", "node", 2 * HOUR_NS, "slow", 0.5)))
    saves = checkpoint or Checkpoint(write_ns=20 * SECOND_NS, restart_ns=120 * SECOND_NS)
    classes = tuple(
        JobClass(name=name, arrivals_per_s=jobs_per_day * share / 86400, weights_Z=(1.0,) * len(sizes),
                 shapes_Z=tuple(gang(chips, kinds=kinds, level=level) for chips in sizes), median_ns=median_ns,
                 spread=1.0, longest_ns=3 * DAY_NS, tenants=((0, 1.0), (1, 1.0)), checkpoint=saves, priority=priority,
                 daily_swing=0.5, estimate_ratio=1.5, backlog=2)
        for name, share, sizes, level, median_ns, priority in (
            ("small", 1.0, (1, 2, 4), -1, HOUR_NS, 0), ("large", 0.2, (8, 16, 32), 1, 6 * HOUR_NS, 1)))
    services = (Service(name="chat", shape=gang(4, kinds=kinds), tenant=0, base_load=1.0, peak_load=3.0, noise=0.1,
                        start_ns=60 * SECOND_NS, priority=2),) if service else ()
    return Scenario(name="small", fleet=fleet, chips_K=(None,) * kinds, rules=rules or Rules(), faults=faults,
                    classes=classes, services=services, decide_every_ns=decide_every_ns)


def alone(*, nodes: int, work_ns: int, checkpoint: Checkpoint, mtbf_s: float, spares: int = 4) -> Scenario:
    """One gang on nodes that fail and are whole again at once."""
    fleet = fleet_of(kinds=["kind"], kind_N=np.zeros(nodes + spares, dtype=int),
                     chip_count_N=np.full(nodes + spares, 1))
    shape = Shape(alternatives=(Alternative(kinds=(0,), worker_count=nodes),))
    job = JobClass(name="run", arrivals_per_s=0, backlog=1, shapes_Z=(shape,), weights_Z=(1,), median_ns=work_ns,
                   spread=0, longest_ns=work_ns, tenants=((0, 1),), checkpoint=checkpoint)
    fault = Fault(name="process", component="node", rate_per_s=1 / (mtbf_s * nodes))
    return Scenario(name="alone", fleet=fleet, chips_K=(None,), rules=Rules(), faults=(fault,), classes=(job,))
