"""Every deployment that a load could stand on, as columns: engines, how many of each, prefill pools apart or not.

Axes: E = engine (a layout under settings on a pool of the fleet, for a role), C = candidate, R = request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from serried.engine import Cluster, EngineModel, EnginePool, EngineSettings
from serried.planner.spec import FORMATS, Machine
from serried.serving.cluster import PoolPlan, engine_models, transfer_between
from serried.serving.legality import LEGALITY
from serried.serving.profile import EngineProfile
from serried.serving.search import launches
from serried.serving.spec import CACHE_FORMATS, Deployments
from serried.workload import Model
from serried.workload.spec import Serving

__all__ = ["Candidates", "Engines", "Space", "candidates_of", "cluster_at", "engines_of", "layouts_of", "plans_at"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What is searched. A setting of 0 is the engine's own. disaggregated: also with prefill pools apart."""

    weight_formats: Sequence[str] = ("bf16",)
    cache_formats: Sequence[str] = ("bf16",)
    max_sequences: Sequence[int] = (0, 256, 64)
    token_budgets: Sequence[int] = (0, 2048)
    acceptances: Sequence[tuple[float, ...]] = ((),)
    disaggregated: bool = True
    aggregated: bool = True
    whole_experts: bool = False
    """Only layouts that spread experts over every chip of a stage or over none, as some engines do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """Engines that fit. plans: one replica each; pool_E: pool of the fleet; chips_E: of one replica. layout_E: engines
    of equal layout and format share a number. refused: engines that hold no block."""

    plans: tuple[PoolPlan, ...]
    models: tuple[EngineModel, ...]
    pool_E: Ints
    chips_E: Ints
    layout_E: Ints
    refused: int = 0

    def __len__(self) -> int:
        return len(self.plans)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Columns over C. serve_C, prefill_C: engines (-1 = no prefill pool); ..._count_C: replicas; chips_C: in all."""

    serve_C: Ints
    serve_count_C: Ints
    prefill_C: Ints
    prefill_count_C: Ints
    chips_C: Ints

    def __len__(self) -> int:
        return len(self.serve_C)

    def take(self, rows: NDArray[np.intp]) -> Candidates:
        """The candidates at `rows`, in that order."""
        return Candidates(serve_C=self.serve_C[rows], serve_count_C=self.serve_count_C[rows],
                          prefill_C=self.prefill_C[rows], prefill_count_C=self.prefill_count_C[rows],
                          chips_C=self.chips_C[rows])


def layouts_of(model: Model, machine: Machine, space: Space) -> Deployments:
    """Every legal layout of one replica on at most the machine's chips."""
    count = machine.chip_count
    degrees = np.array(sorted({1 << power for power in range(count.bit_length()) if 1 << power <= count}
                              | {number for number in range(1, count + 1) if count % number == 0}))
    formats = np.array([FORMATS.index(name) for name in space.weight_formats])
    caches = np.array([tuple(CACHE_FORMATS).index(name) for name in space.cache_formats])
    grid = np.meshgrid(degrees, degrees, degrees, degrees, formats, caches, indexing="ij")
    tp, pp, groups, ep, weight, cache = (axis.ravel().astype(np.int64) for axis in grid)
    keep = tp * pp * groups <= count
    if space.whole_experts:
        keep &= (ep == 1) | (ep == tp * groups)
    one = np.ones(int(keep.sum()), dtype=np.int64)
    rows = Deployments(tp=tp[keep], pp=pp[keep], ep=ep[keep], attention_dp=groups[keep], replicas=one,
                       weight_format=weight[keep], cache_format=cache[keep], max_batch=0 * one,
                       captured=np.full(len(one), launches(machine)[0]))
    job = Serving(model=model, input_tokens=1, output_tokens=1, concurrency=count)
    legal = np.ones(len(rows), dtype=bool)
    for rule in LEGALITY:
        if rule.name != "chips":
            legal &= rule.holds(job, machine, rows)
    node = max(machine.fabric.node_size, 1)
    legal &= (rows.chips_per_replica <= node) | (rows.chips_per_replica % node == 0)
    return rows.take(np.flatnonzero(legal))


def engines_of(model: Model, machines: Sequence[Machine], profile: EngineProfile, space: Space, *,
               router: str = "least_loaded") -> Engines:
    """Every engine of the space that holds at least one block of cache, on every pool of the fleet."""
    plans: list[PoolPlan] = []
    models: list[EngineModel] = []
    pool, layout, offset, refused = [], [], 0, 0
    for number, machine in enumerate(machines):
        rows = layouts_of(model, machine, space)
        seen: set[tuple[int, EngineSettings]] = set()
        for changed in _settings(profile, space):
            for row, engine in enumerate(engine_models(model, machine, rows, changed)):
                if engine is None:
                    refused += 1
                    continue
                settings = (row, engine.settings)
                if settings in seen:
                    continue
                seen.add(settings)
                plans.append(PoolPlan(machine=machine, row=rows.take(np.array([row])), profile=changed, router=router))
                models.append(engine)
                pool.append(number)
                layout.append(offset + row)
        offset += len(rows)
    chips = [int(plan.row.chips_per_replica[0]) for plan in plans]
    return Engines(plans=tuple(plans), models=tuple(models), pool_E=np.array(pool, dtype=np.int64),
                   chips_E=np.array(chips, dtype=np.int64), layout_E=np.array(layout, dtype=np.int64), refused=refused)


def _settings(profile: EngineProfile, space: Space) -> list[EngineProfile]:
    own = profile.settings
    chosen = {(seats or own.max_sequences, budget or own.token_budget, acceptance) for seats in space.max_sequences
              for budget in space.token_budgets for acceptance in space.acceptances}
    return [profile.with_settings(max_sequences=seats, token_budget=budget, acceptance=acceptance)
            for seats, budget, acceptance in sorted(chosen, reverse=True)]


def candidates_of(engines: Engines, chips_P: Sequence[int], space: Space) -> Candidates:
    """Every engine in every count, and every pair of prefill and decode engines in every pair of counts, that the
    chips of the fleet's pools allow."""
    parts = [_aggregated(engines, chips_P)] if space.aggregated else []
    if space.disaggregated:
        parts += _disaggregated(engines, chips_P)
    columns = [np.concatenate(column) if parts else np.empty(0, dtype=np.int64)
               for column in (zip(*parts, strict=True) if parts else [()] * 5)]
    return Candidates(serve_C=columns[0], serve_count_C=columns[1], prefill_C=columns[2], prefill_count_C=columns[3],
                      chips_C=columns[4])


def _aggregated(engines: Engines, chips_P: Sequence[int]) -> tuple[Ints, ...]:
    most_E = np.array(chips_P, dtype=np.int64)[engines.pool_E] // engines.chips_E
    serve = np.repeat(np.arange(len(engines)), most_E)
    count = np.arange(len(serve)) - np.repeat(np.cumsum(most_E) - most_E, most_E) + 1
    none = np.full(len(serve), -1)
    return serve, count, none, 0 * none, engines.chips_E[serve] * count


def _disaggregated(engines: Engines, chips_P: Sequence[int]) -> list[tuple[Ints, ...]]:
    """Prefill engines differ by layout and budget only, decode engines by layout and seats."""
    models = engines.models
    first = _first_of([(int(engines.layout_E[e]), models[e].settings.token_budget, models[e].settings.acceptance)
                       for e in range(len(engines))])
    last = _first_of([(int(engines.layout_E[e]), models[e].settings.max_sequences, models[e].settings.acceptance)
                      for e in range(len(engines))])
    parts = []
    for prefill in (e for e in first if not models[e].settings.acceptance):
        mates = last[[engines.plans[prefill].row.cache_format[0] == engines.plans[e].row.cache_format[0]
                      for e in last]]
        parts.append(_pairs(prefill, mates, engines, np.array(chips_P, dtype=np.int64)))
    return parts


def _pairs(prefill: int, mates: Ints, engines: Engines, chips_P: Ints) -> tuple[Ints, ...]:
    pool = int(engines.pool_E[prefill])
    most = int(chips_P[pool] // engines.chips_E[prefill])
    mate_most = int((chips_P[engines.pool_E[mates]] // engines.chips_E[mates]).max(initial=0))
    grid = np.meshgrid(mates, np.arange(1, mate_most + 1), np.arange(1, most + 1), indexing="ij")
    serve, count, front = (axis.ravel() for axis in grid)
    own, others = engines.chips_E[prefill] * front, engines.chips_E[serve] * count
    same = engines.pool_E[serve] == pool
    fits = (others + np.where(same, own, 0) <= chips_P[engines.pool_E[serve]]) & (own <= chips_P[pool])
    serve, count, front = serve[fits], count[fits], front[fits]
    return serve, count, np.full(len(serve), prefill), front, (own + others)[fits]


def _first_of(keys: Sequence[object]) -> Ints:
    seen: dict[object, int] = {}
    for number, key in enumerate(keys):
        seen.setdefault(key, number)
    return np.array(sorted(seen.values()), dtype=np.int64)


def plans_at(engines: Engines, rows: Candidates, index: int) -> tuple[PoolPlan, ...]:
    """The pools of one candidate, the prefill pool first."""
    chosen = [(int(rows.prefill_C[index]), int(rows.prefill_count_C[index])),
              (int(rows.serve_C[index]), int(rows.serve_count_C[index]))]
    return tuple(replace(engines.plans[engine], row=replace(engines.plans[engine].row, replicas=np.array([count])))
                 for engine, count in chosen if engine >= 0)


def cluster_at(model: Model, engines: Engines, rows: Candidates, index: int) -> Cluster:
    """One candidate as the simulator runs it."""
    plans = plans_at(engines, rows, index)
    serve = EnginePool(engine=engines.models[int(rows.serve_C[index])], count=int(rows.serve_count_C[index]),
                       router=plans[-1].router)
    if len(plans) == 1:
        return Cluster(serve=serve)
    prefill = EnginePool(engine=engines.models[int(rows.prefill_C[index])], count=int(rows.prefill_count_C[index]),
                         router=plans[0].router)
    return Cluster(serve=serve, prefill=prefill, transfer=transfer_between(model, plans[0], plans[1]))
