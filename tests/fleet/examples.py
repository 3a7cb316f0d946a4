"""Small fleets and jobs that tests are worked out on."""

from __future__ import annotations

import numpy as np

from serried.fleet import Alternative, Event, EventKind, Fleet, Job, Placement, Shape, State, Tenant
from serried.fleet.assembly import fleet_of
from serried.fleet.measures import BestFit
from serried.fleet.rules import Rules
from serried.fleet.scheduler import Scheduler

HOUR_NS = 3_600_000_000_000


def small_fleet(nodes: int = 8, *, chips: int = 4, leaf: int = 2, spine: int = 4, kinds: int = 1,
                tenants: tuple[Tenant, ...] = (Tenant(name="all"),), half_life_ns: int = 0) -> Fleet:
    """`nodes` nodes of `chips` chips, `leaf` nodes a leaf switch, `spine` nodes a spine; kinds in equal blocks."""
    return fleet_of(kinds=[f"kind-{number}" for number in range(kinds)],
                    kind_N=np.arange(nodes) * kinds // nodes, chip_count_N=np.full(nodes, chips), cpu_milli_N=64_000,
                    memory_bytes_N=2**38, tenants=tenants, usage_half_life_ns=half_life_ns,
                    switches={"leaf": list(np.arange(nodes) // leaf), "spine": list(np.arange(nodes) // spine)})


def gang(workers: int, chips: int = 4, *, kinds: tuple[int, ...] = (0,), **asked: object) -> Shape:
    """A gang of so many workers of so many whole chips."""
    return Shape(alternatives=(Alternative(kinds=kinds, worker_count=workers, chips_per_worker=chips),), **asked)


def share(milli: int, **asked: object) -> Shape:
    """A share of one chip."""
    return Shape(alternatives=(Alternative(kinds=(0,)),), share_milli=milli, **asked)


def submit(state: State, shape: Shape, *, time_ns: int | None = None, **asked: object) -> int:
    """Submit a job of a shape; returns its number."""
    job = Job(name=f"job-{len(state.jobs)}", shape=shape, **asked)
    return state.apply(Event(time_ns=state.time_ns if time_ns is None else time_ns, kind=EventKind.SUBMIT, request=job))


def happen(state: State, kind: EventKind, job: int = -1, *, time_ns: int | None = None, **said: object) -> None:
    """Apply one event, now unless said otherwise."""
    state.apply(Event(time_ns=state.time_ns if time_ns is None else time_ns, kind=kind, job=job, **said))


def on(nodes: list[int], chips: int = 0b1111, workers: int = 1, alternative: int = 0) -> Placement:
    """The same chips of each of some nodes."""
    return Placement(node_R=np.array(nodes, dtype=np.int32), chips_R=np.full(len(nodes), chips, dtype=np.uint64),
                     workers_R=np.full(len(nodes), workers, dtype=np.int32), alternative=alternative)


def scheduler_of(fleet: Fleet, **rules: object) -> Scheduler:
    """A scheduler with best fit for single workers."""
    return Scheduler(fleet, BestFit(fleet), Rules(**rules))


def settle(state: State, policy: Scheduler, time_ns: int | None = None) -> list[Event]:
    """Carry out plans until there is nothing left to do; returns what was done."""
    done: list[Event] = []
    while (plan := policy.plan(state.snapshot(time_ns))).events:
        state.apply_all(plan.events)
        done += plan.events
        assert len(done) < 10_000, "a policy comes to rest"
    return done


def nodes_of(state: State, job: int) -> list[int]:
    """Where a job stands."""
    return state.placements[job].node_R.tolist()
