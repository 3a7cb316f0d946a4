"""The gap between two fleets under real traffic and objectives: what each layer does to the most that they can serve.

What is compared is goodput per chip at the highest rate of the same traffic at which enough of its requests keep their
objectives, as chip-seconds for 1,000 output tokens of such requests. Every subset of layers is simulated on the first
requests of the load, at rates from the least engine time downwards; the bars are Shapley values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from serried.engine import Cluster, EngineModel, EnginePool, simulate
from serried.errors import NoAnswer
from serried.insight.game import End, hybrid
from serried.insight.shapley import coalitions, shapley_values
from serried.insight.spec import LAYER_OF_PARAMETER, LAYERS
from serried.insight.words import setting
from serried.planner.spec import FORMATS, Machine
from serried.serving.bound import least_times
from serried.serving.cluster import PoolPlan, engine_models, transfer_between
from serried.serving.demand import likely_demand
from serried.serving.report import report_of
from serried.serving.spec import Deployments
from serried.serving.traffic_search import Question, Trial, search_traffic
from serried.serving.workers import workers_of
from serried.software import Stack
from serried.traffic import Requests, cut, scaled

__all__ = ["TRAFFIC_LAYERS", "LayerBar", "TrafficGap", "TrafficSide", "gap_traffic"]

UNIT_TOKENS = 1000.0
#: The layers of a gap, and how the engine batches.
TRAFFIC_LAYERS = (*LAYERS, "batching")
_REQUESTS, _LOWEST, _STEP, _REFINED = 150, 2.0**-12, 0.7, 2
_SCALES = (1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSide:
    """One side as it stands: the deployment that is best at `found_at` times the load's rate, and what it serves at
    most: times the rate, chip-seconds for 1,000 output tokens that keep the objectives, and goodput a chip."""

    chip: str
    chip_count: int
    stack: str
    engine: str
    number_format: str
    pools: tuple[Mapping[str, int | bool | str], ...]
    found_at: float
    most_rate_ratio: float
    chip_s: float
    goodput_tokens_per_s_per_chip: float
    evidence_class: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBar:
    """What a layer contributes: in ln of goodput a chip and in chip-seconds; negative when it is a lead."""

    layer: str
    gap_ln: float
    gap_s: float
    from_setting: str
    to_setting: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficGap:
    """gap_ln: ln(rival's goodput a chip / fleet's); the bars add up to it."""

    unit_of_work: str
    fleet: TrafficSide
    rival: TrafficSide
    gap_ln: float
    bars: tuple[LayerBar, ...]
    requests: int
    evaluated: int
    notes: tuple[str, ...]


def gap_traffic(fleet: Question, rival: Question, *, workers: int = 1, engine: str = "processes") -> TrafficGap:
    """Why the fleet serves the load worse (or better) per chip than the rival. Both questions ask of one pool of equal
    chips and share the load and the objectives. Raises NoAnswer when a side keeps them at no rate."""
    found = [_best(ask) for ask in (fleet, rival)]
    play = _Play(sides=((fleet, found[0][0]), (rival, found[1][0])),
                 load=cut(fleet.requests, count=min(_REQUESTS, len(fleet.requests))))
    layers = TRAFFIC_LAYERS if fleet.profile != rival.profile else tuple(LAYERS)
    on_CL = coalitions(len(layers))
    keys = [play.key(dict(zip(layers, row.tolist(), strict=True))) for row in on_CL]
    distinct = sorted(set(keys))
    with workers_of(play, count=workers, engine=engine) as staff:
        value = dict(zip(distinct, staff.map(distinct), strict=True))
    chip_s_C = np.array([value[key][0] for key in keys])
    if not np.isfinite(chip_s_C[[0, -1]]).all():
        raise NoAnswer("One side keeps the objectives at no rate of this load.", binding="objectives",
                       remedy="Relax the objectives; `serried plan` says what binds on each fleet.")
    chip_s_C = np.where(np.isfinite(chip_s_C), chip_s_C, max(chip_s_C[0], chip_s_C[-1]))
    ln_L, s_L = (np.where(np.abs(value_L) > 1e-12, value_L, 0.0)   # what rounding leaves of nothing
                 for value_L in (shapley_values(-np.log(chip_s_C)), shapley_values(-chip_s_C)))
    ends = tuple(_end(ask, trial) for ask, (trial, _) in zip((fleet, rival), found, strict=True))
    words = [[ask.profile.name if layer == "batching" else setting(layer, end) for layer in layers]
             for ask, end in zip((fleet, rival), ends, strict=True)]
    return TrafficGap(
        unit_of_work=f"chip-seconds for {UNIT_TOKENS:,.0f} output tokens of requests that keep the objectives, at the "
                     f"highest rate at which {fleet.attain:.0%} do",
        fleet=_side(fleet, *found[0], value[keys[0]]), rival=_side(rival, *found[1], value[keys[-1]]),
        gap_ln=float(np.log(chip_s_C[0] / chip_s_C[-1])), requests=len(play.load), evaluated=len(distinct),
        bars=tuple(LayerBar(layer=layer, gap_ln=float(ln), gap_s=float(seconds), from_setting=one, to_setting=other)
                   for layer, ln, seconds, one, other in zip(layers, ln_L, s_L, *words, strict=True)),
        notes=(f"every subset was simulated on the first {len(play.load):,} requests, caches empty at the start; a "
               "subset that keeps the objectives at no rate counts as the worse of the two sides",))


def _best(ask: Question) -> tuple[Trial, float]:
    """The best deployment, at the first of the falling rates at which there is one."""
    refused: NoAnswer | None = None
    for scale in _SCALES:
        small = replace(ask, requests=scaled(cut(ask.requests, count=4 * _REQUESTS), rate=scale), glimpses=64, trials=4)
        try:
            return search_traffic(small, top=1).best[0], scale
        except NoAnswer as error:
            if error.binding in ("memory", "legality"):
                raise
            refused = error
    assert refused is not None, "every rate was refused"
    raise refused


def _end(ask: Question, trial: Trial) -> End[Deployments]:
    machine, row = ask.machines[0], trial.plans[-1].row
    return End(machine=machine, number_format=FORMATS[int(row.weight_format[0])], layout=row)


def _side(ask: Question, trial: Trial, found_at: float, value: tuple[float, float]) -> TrafficSide:
    machine = ask.machines[0]
    return TrafficSide(
        chip=machine.chip.name, chip_count=machine.chip_count, stack=machine.stack.name, engine=ask.profile.name,
        number_format=FORMATS[int(trial.plans[-1].row.weight_format[0])],
        pools=tuple(plan.row.row(0) for plan in trial.plans), found_at=found_at, most_rate_ratio=value[1],
        chip_s=value[0], goodput_tokens_per_s_per_chip=UNIT_TOKENS / value[0],
        evidence_class=machine.profile.evidence_class)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Play:
    """Simulates coalitions; sent to workers once. A coalition is known by the end (0, 1) that each layer is taken from,
    with layers whose ends are alike taken from the first."""

    sides: tuple[tuple[Question, Trial], tuple[Question, Trial]]
    load: Requests

    def key(self, on: Mapping[str, bool]) -> tuple[int, ...]:
        """The coalition without switches that change nothing."""
        (one, first), (other, last) = self.sides
        here, there = one.machines[0], other.machines[0]
        alike = {"kernels": here.profile == there.profile, "collectives": here.fabric.profile == there.fabric.profile,
                 "precision": first.plans[-1].row.weight_format[0] == last.plans[-1].row.weight_format[0],
                 "schedule_and_overlap": True, "host": True, "batching": one.profile == other.profile}
        for name, layer in LAYER_OF_PARAMETER.items():
            same = here.stack.parameters.get(name) == there.stack.parameters.get(name)
            alike[layer] = alike.get(layer, True) and same
        alike["kernels"] &= here.stack.facts == there.stack.facts
        return tuple(int(on.get(layer, False) and not alike.get(layer, False)) for layer in TRAFFIC_LAYERS)

    def __call__(self, key: tuple[int, ...]) -> tuple[float, float]:
        """Chip-seconds for 1,000 good output tokens, and the ratio of the highest rate to the load's own."""
        at = dict(zip(TRAFFIC_LAYERS, key, strict=True))
        ask = self.sides[at["silicon"]][0]
        machine = self.machine(at)
        for layout in dict.fromkeys((at["layout"], at["silicon"])):   # its own where the other's cannot stand
            plans = self.plans(machine, self.sides[layout][1], at)
            cluster = plans and _cluster(ask, plans)
            if plans and cluster:
                return _most(ask, self.load, plans, cluster)
        return float("inf"), 0.0

    def machine(self, at: Mapping[str, int]) -> Machine:
        """The machine of a coalition, each parameter of its stack from the end that its layer is taken from."""
        first, last = (End(machine=ask.machines[0], number_format="", layout=trial) for ask, trial in self.sides)
        made = hybrid((first, last), silicon=at["silicon"], kernels=at["kernels"], collectives=at["collectives"])
        stacks: Sequence[Stack] = [ask.machines[0].stack for ask, _ in self.sides]
        base = stacks[at["kernels"]]
        parameters = {name: stacks[at[LAYER_OF_PARAMETER.get(name, "kernels")]].parameters.get(name, value)
                      for name, value in base.parameters.items()}
        return replace(made, stack=replace(base, parameters=parameters))

    def plans(self, machine: Machine, trial: Trial, at: Mapping[str, int]) -> tuple[PoolPlan, ...]:
        """A deployment on the machine, as many times as its chips allow; () when they do not."""
        ask = self.sides[at["batching"]][0]
        number_format = self.sides[at["precision"]][1].plans[-1].row.weight_format
        own = self.sides[0][0].profile == self.sides[1][0].profile
        copies = machine.chip_count // trial.chips
        alone = len(trial.plans) == 1
        plans = []
        for plan in trial.plans:
            count = machine.chip_count // plan.row.chips_per_replica if alone else plan.row.replicas * max(copies, 1)
            profile = plan.profile if own else replace(ask.profile, settings=replace(
                ask.profile.settings, max_sequences=plan.profile.settings.max_sequences))
            plans.append(replace(plan, machine=machine, profile=profile,
                                 row=replace(plan.row, replicas=count, weight_format=number_format)))
        used = sum(int(plan.row.chip_count[0]) for plan in plans)
        return tuple(plans) if 0 < used <= machine.chip_count else ()


def _cluster(ask: Question, plans: tuple[PoolPlan, ...]) -> Cluster | None:
    """What the simulator runs, None where a pool does not fit."""
    engines: list[EngineModel | None] = [engine_models(ask.model, plan.machine, plan.row, plan.profile)[0]
                                         for plan in plans]
    pools = [EnginePool(engine=engine, count=int(plan.row.replicas[0]), router=plan.router)
             for engine, plan in zip(engines, plans, strict=True) if engine is not None]
    if len(pools) < len(plans):
        return None
    if len(pools) == 1:
        return Cluster(serve=pools[0])
    return Cluster(serve=pools[1], prefill=pools[0], transfer=transfer_between(ask.model, plans[0], plans[1]))


def _most(ask: Question, load: Requests, plans: tuple[PoolPlan, ...], cluster: Cluster) -> tuple[float, float]:
    """Down from the rate that engine time allows to the first that keeps the objectives, then closer to the edge."""
    def goodput(ratio: float) -> float:
        offered = scaled(load, rate=ratio)
        report = report_of(offered, simulate(offered, cluster, seed=ask.seed), plans, ask.objectives)
        return report.goodput_tokens_per_s_per_chip if report.attainment >= ask.attain else 0.0

    high = ratio = _ceiling(load, cluster)
    found = 0.0
    while not found and ratio > _LOWEST:
        high, ratio = ratio, ratio * _STEP
        found = goodput(ratio)
    for _ in range(_REFINED if found else 0):
        middle = float(np.sqrt(ratio * high))
        better = goodput(middle)
        ratio, high, found = (middle, high, better) if better else (ratio, middle, found)
    return (UNIT_TOKENS / found, ratio) if found else (float("inf"), 0.0)


def _ceiling(load: Requests, cluster: Cluster) -> float:
    """Times the load's rate that the least engine time of the fuller pool allows."""
    demand = likely_demand(load)
    span_s = max(float(np.ptp(load.arrival_ns_R)) * 1e-9, 1e-9)
    ratios: list[float] = []
    pools: list[tuple[EnginePool, bool, bool]] = [(cluster.serve, cluster.prefill is None, True)]
    pools += [(cluster.prefill, True, False)] if cluster.prefill else []
    for pool, prefills, decodes in pools:
        least = least_times(pool.engine, demand, prefills=prefills, decodes=decodes)
        work_s: NDArray[np.float64] = least.prefill_s_R + least.decode_s_R
        ratios.append(pool.count * span_s / max(float(work_s.sum()), 1e-12))
    return min(ratios)
