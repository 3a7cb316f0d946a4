"""How fast are decisions? Single workers on the openb cluster; gangs under one switch in a fleet of 470,000 chips."""

from __future__ import annotations

import time

import numpy as np

from benchmarks import Row
from serried.fleet import Alternative, Event, EventKind, Fleet, Job, Shape, State
from serried.fleet.arrival_replay import replay_arrivals
from serried.fleet.assembly import fleet_of
from serried.fleet.measures import BestFit
from serried.fleet.openb import OPENB, arrivals, read_nodes, read_pods
from serried.fleet.rules import Rules
from serried.fleet.scheduler import Scheduler

RATE_BARS = {"best-fit": 20_000, "fragmentation": 5_000, "random": 0, "dot-product": 0, "packing": 0, "clustering": 0}
GANG_P99_BAR_S = 5e-3
NODES, LEAF, SPINE, CHIPS = 58_750, 32, 1024, 8
DECISIONS = 6000


def run() -> list[Row]:
    """Decisions per second with checks of capacity at every step, and the time of one gang decision."""
    return [*_placement_rates(), *_gang_decisions()]


def _placement_rates() -> list[Row]:
    fleet = read_nodes(OPENB / "openb_node_list_gpu_node.csv.gz", seed=1)
    jobs = read_pods(OPENB / "openb_pod_list_default.csv.gz", fleet)
    arriving = arrivals(jobs, fleet, load=1.3, seed=1)
    rows = []
    for rule, bar in RATE_BARS.items():
        runs = [replay_arrivals(fleet, jobs, arriving, rule, seed=1) for _ in range(3)]
        rate_per_s = max(one.decisions / one.wall_s for one in runs)
        rows.append(Row(name=f"openb, 1,213 nodes, {rule}: decisions, capacity checked at each", value=rate_per_s,
                        unit="1/s", bar=f">= {bar:,} 1/s" if bar else "", met=rate_per_s >= bar))
    return rows


def _gang_decisions() -> list[Row]:
    """Gangs of 1 to 4,096 chips come to a fleet that is nearly full; one is finished whenever one finds no room."""
    fleet = _large_fleet()
    shapes = [Shape(alternatives=(Alternative(kinds=(kind,), worker_count=max(chips // CHIPS, 1),
                                              chips_per_worker=min(chips, CHIPS)),), level=1, level_required=True)
              for kind in range(2) for chips in 2 ** np.arange(13)]
    state, chance = State(fleet), np.random.default_rng(1)
    policy = Scheduler(fleet, BestFit(fleet), Rules(order="arrival", reservations=0))
    policy.learn(state.snapshot(), shapes)
    wall_s, running = [], []
    for turn in range(DECISIONS):
        shape = shapes[int(chance.integers(len(shapes)))]
        number = state.apply(Event(time_ns=turn, kind=EventKind.SUBMIT, request=Job(name="gang", shape=shape)))
        began = time.perf_counter()
        plan = policy.plan(state.snapshot())
        wall_s.append(time.perf_counter() - began)
        state.apply_all(plan.events)
        if plan.events:
            running.append(number)
        else:
            state.apply(Event(time_ns=turn, kind=EventKind.CANCEL, job=number))
            gone = running.pop(int(chance.integers(len(running))))
            state.apply(Event(time_ns=turn, kind=EventKind.FINISH, job=gone))
    full = 1 - int(state.columns.open_chips_N.sum()) / int(fleet.chip_count_N.sum())
    p99_s = float(np.quantile(wall_s, 0.99))
    columns_bytes = sum(column.nbytes for column in state.columns.arrays())
    return [Row(name="470,000 chips, gang of 1 to 4,096 under one spine: mean decision", value=float(np.mean(wall_s)),
                unit="s"),
            Row(name="470,000 chips, gang of 1 to 4,096 under one spine: p99 decision", value=p99_s, unit="s",
                bar=f"<= {GANG_P99_BAR_S * 1e3:g} ms", met=p99_s <= GANG_P99_BAR_S),
            Row(name="470,000 chips: share of chips in use at the end", value=full, unit=""),
            Row(name="470,000 chips: columns of the state", value=columns_bytes, unit="bytes", bar="< 50 MB",
                met=columns_bytes < 50e6)]


def _large_fleet() -> Fleet:
    number_N = np.arange(NODES)
    return fleet_of(kinds=["a", "b"], kind_N=number_N // (NODES // 2 + 1), chip_count_N=np.full(NODES, CHIPS),
                    switches={"leaf": list(number_N // LEAF), "spine": list(number_N // SPINE)})
