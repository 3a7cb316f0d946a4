"""Which deployment serves this traffic best: a bound prunes, the simulator decides.

Every layout of a replica is timed at once. From its tables follow bounds that no simulation can beat: the engine time
that a mean request needs at the least (so the replicas that the load needs at the least), and the first and later
tokens of a request that is alone. Layouts are tried in the order of the best goodput per chip that their bound allows,
in waves of a fixed width, so that the answer does not depend on how many workers there are; a wave whose bounds cannot
reach what is already found ends the search.

Axes: D = layout of one replica, R = request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from serried.engine import Cluster, EngineModel, EnginePool, simulate
from serried.engine.timing import StepClock
from serried.errors import NoAnswer
from serried.fabric import Pool
from serried.planner.spec import Machine
from serried.serving.cluster import PoolPlan, engine_models, transfer_between
from serried.serving.legality import deployment_space
from serried.serving.machine import serving_machine
from serried.serving.objectives import Objectives
from serried.serving.profile import EngineProfile
from serried.serving.report import ServingReport, report_of
from serried.serving.spec import Deployments
from serried.software import Stack, stack_for
from serried.traffic import Requests, cut
from serried.workload import Model
from serried.workload.spec import Serving

__all__ = ["Mapper", "TrafficPlan", "TrafficSearch", "Unit", "bounds_of", "search_traffic", "serial"]

#: Candidates simulated side by side; fixed, so that the answer is the same for any number of workers.
_WAVE = 8
#: Layouts of prefill and of decode pools that are paired with each other, best bounds first.
_PAIRED = 6
#: At most so many candidates are simulated; half of them when none of these keeps the objectives.
_MOST = 32
#: Loads of so many requests are probed by their first quarter; attainment that falls short by more is not tried on.
_PROBED, _CLEARLY = 400, 0.2
#: A replica of more stages serves no load that people have on chips that hold the model without.
_MOST_STAGES = 8

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]


def serial(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    """One after the other, here."""
    return [function(task) for task in tasks]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A layout of one replica on one pool, with its engine and its bounds: engine seconds that a mean request needs at
    the least for its prompt and for its answer; seconds of the median prompt, and of a later token, when alone."""

    plan: PoolPlan
    engine: EngineModel
    prompt_s: float
    answer_s: float
    ttft_s: float
    tpot_s: float

    @property
    def chips(self) -> int:
        """Chips of one replica."""
        return int(self.plan.row.chips_per_replica[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficPlan:
    """A deployment that was simulated: its pools (prefill first) and its report. bound: goodput in output tokens/s per
    chip that it could not have exceeded. on_front: no other has both a higher goodput per chip and lower latencies."""

    pools: tuple[PoolPlan, ...]
    report: ServingReport
    bound: float
    keeps: bool
    on_front: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSearch:
    """The best first. candidates: deployments that the bounds were asked about; simulated: of these; pruned: reason to
    count of layouts."""

    plans: tuple[TrafficPlan, ...]
    candidates: int
    simulated: int
    pruned: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """Pools with their counts at the least, and the most that the chips allow. bound: as in TrafficPlan."""

    units: tuple[Unit, ...]
    counts: tuple[int, ...]
    most: int
    bound: float

    @property
    def chips(self) -> int:
        return self.chips_at(1)

    def counts_at(self, step: int) -> tuple[int, ...]:
        """Replicas: one pool grows by one a step, two grow by all that they have at the least."""
        if len(self.units) == 1:
            return (min(self.counts[0] + step - 1, self.most),)
        return tuple(count * step for count in self.counts)

    def chips_at(self, step: int) -> int:
        return sum(unit.chips * count for unit, count in zip(self.units, self.counts_at(step), strict=True))


def search_traffic(model: Model, pools: Sequence[Pool], requests: Requests, objectives: Objectives,
                   profile: EngineProfile, *, top: int = 10, stack: Stack | None = None, attainment: float = 0.9,
                   weight_formats: Sequence[str] = ("bf16",), cache_formats: Sequence[str] = ("bf16",),
                   disaggregated: bool = True, seed: int = 0, mapper: Mapper = serial,
                   progress: Callable[[int, int], None] | None = None) -> TrafficSearch:
    """The deployments with the highest goodput per chip among those that keep the objectives for at least `attainment`
    of the requests, on as few chips as each needs; those that keep them come first.

    Raises NoAnswer, with what binds, when nothing holds the model or no layout can keep the objectives even alone.
    """
    units, pruned = _units(model, pools, requests, profile, stack, weight_formats, cache_formats)
    if not units:
        raise _nothing_fits(model, pools, profile)
    able = [unit for unit in units if _able(unit, objectives, pruned)]
    rate = _rate(requests)
    candidates = _candidates(able, pools, requests, rate, disaggregated)
    if not candidates:
        raise _nothing_keeps(units, able, objectives, rate)
    found: list[TrafficPlan] = []
    tried = 0
    for begin in range(0, min(len(candidates), _MOST), _WAVE):
        wave = candidates[begin:begin + _WAVE]
        kept = sorted((plan.report.goodput_tokens_per_s_per_chip for plan in found if plan.keeps), reverse=True)
        if (len(kept) >= top and wave[0].bound <= kept[top - 1]) or (not kept and 2 * tried >= _MOST):
            break
        floor = kept[top - 1] if len(kept) >= top else 0.0
        tasks = [(model, candidate, requests, objectives, attainment, seed, floor) for candidate in wave]
        found += [plan for plan in mapper(_simulated, tasks) if plan is not None]
        tried += len(wave)
        if progress is not None:
            progress(tried, min(len(candidates), _MOST))
    if not any(plan.keeps for plan in found):
        raise _nobody_keeps(min(found, key=_rank), objectives, tried)
    ranked = sorted(found, key=_rank)[:top]
    return TrafficSearch(plans=tuple(_with_front(ranked, found)), candidates=len(candidates), simulated=tried,
                         pruned=pruned)


def _rank(plan: TrafficPlan) -> tuple[Any, ...]:
    report = plan.report
    if plan.keeps:
        return 0, -report.goodput_tokens_per_s_per_chip, report.overall.times_s["ttft"].p99, report.chip_count
    return 1, -report.attainment, report.chip_count, 0.0


# --- layouts, and what they could do at the best -------------------------------------------------

def _units(model: Model, pools: Sequence[Pool], requests: Requests, profile: EngineProfile, stack: Stack | None,
           weight_formats: Sequence[str], cache_formats: Sequence[str]) -> tuple[list[Unit], dict[str, int]]:
    """Every layout of a replica that holds the model, on every pool."""
    found, pruned = [], {"memory": 0}
    for pool in pools:
        machine = serving_machine(pool, stack or stack_for(pool.chip.family, "serving", profile.stack))
        rows = _replicas(model, machine, weight_formats, cache_formats)
        engines = engine_models(model, machine, rows, profile)
        for row, engine in enumerate(engines):
            if engine is None or engine.kv_blocks * engine.settings.block_tokens < _longest(requests):
                pruned["memory"] += 1
                continue
            plan = PoolPlan(machine=machine, row=rows.take(np.array([row])), profile=profile)
            prompt_s, answer_s, ttft_s, tpot_s = bounds_of(engine, requests)
            found.append(Unit(plan=plan, engine=engine, prompt_s=prompt_s, answer_s=answer_s, tpot_s=tpot_s,
                              ttft_s=ttft_s + profile.request_s))
    return found, pruned


def _replicas(model: Model, machine: Machine, weight_formats: Sequence[str],
              cache_formats: Sequence[str]) -> Deployments:
    """Layouts of one replica whose chips divide a power of two or the pool."""
    found = None
    sizes = sorted({2**power for power in range(machine.chip_count.bit_length()) if 2**power <= machine.chip_count}
                   | {machine.chip_count})
    for chips in sizes:
        rows = deployment_space(Serving(model=model, input_tokens=1, output_tokens=1, concurrency=2**20),
                                replace(machine, chip_count=chips), weight_formats=weight_formats,
                                cache_formats=cache_formats)
        rows = rows.take(np.flatnonzero((rows.replicas == 1) & (rows.pp <= _MOST_STAGES)))
        found = rows if found is None else _joined(found, rows)
    assert found is not None, "one chip is a size"
    return found


def _joined(first: Deployments, second: Deployments) -> Deployments:
    return Deployments(**{name: np.concatenate([getattr(first, name), getattr(second, name)])
                          for name in first.__slots__})


def _longest(requests: Requests) -> int:
    return int((requests.input_tokens_R + requests.output_tokens_R).max())


def bounds_of(engine: EngineModel, requests: Requests) -> tuple[float, float, float, float]:
    """Engine seconds that a mean request needs at the least for its prompt (nothing of it found in a cache more than
    hashes allow) and for its answer; least seconds to the first token of the median prompt, and between later ones.

    A pass is never faster per token than at its best width, nor a decode step per sequence than at its best batch with
    contexts as short as the shortest prompt.
    """
    clock, settings = StepClock(engine), engine.settings
    widths = np.unique(np.geomspace(1, settings.token_budget, 24).astype(int))
    per_token_s = min(clock.pass_s(tokens=int(width), mean_tokens=float(width), sampled=0, decoding=0, context=0.0,
                                   prefill_attention_s=0.0) / (width * engine.groups) for width in widths)
    shortest = float(requests.input_tokens_R.min())
    batches = np.unique(np.geomspace(1, settings.max_sequences, 24).astype(int))
    steps = [_decode_s(clock, int(batch), shortest) for batch in batches]
    per_answer_s = min(step_s / (batch * engine.groups) for step_s, batch in zip(steps, batches, strict=True))
    tokens = requests.output_tokens_R - 1
    width = 1.0 + sum(np.cumprod(settings.acceptance)) if settings.acceptance else 1.0
    fresh = _least_fresh_tokens(requests)
    median = int(np.median(requests.input_tokens_R))
    alone_s = clock.stages * clock.pass_s(tokens=min(median, settings.token_budget), mean_tokens=0.0, sampled=1,
                                          decoding=0, context=0.0, prefill_attention_s=0.0)
    hashed = bool(requests.hash_block_tokens or len(requests.previous_R)) and settings.prefix_caching
    least_ttft_s = clock.stages * clock.pass_s(tokens=1, mean_tokens=1.0, sampled=1, decoding=0, context=0.0,
                                               prefill_attention_s=0.0) if hashed else alone_s
    return (float(fresh.mean()) * per_token_s, float(tokens.mean()) / width * per_answer_s, least_ttft_s,
            steps[0] / width)


def _decode_s(clock: StepClock, batch: int, context: float) -> float:
    flat_s, floor_s, serial_s, one = clock.decode_parts(batch, batch)
    return clock.stages * (max(flat_s + clock.decode_attention(one, context)[0], floor_s) + serial_s)


def _least_fresh_tokens(requests: Requests) -> np.ndarray:
    """Prompt tokens that must be computed even if every prefix seen before is found, over R."""
    if len(requests.previous_R) and not requests.hash_block_tokens:
        return np.ones(len(requests))
    if not requests.hash_block_tokens:
        return requests.input_tokens_R.astype(np.float64)
    _, first = np.unique(requests.block_hash_H, return_index=True)
    is_new = np.zeros(len(requests.block_hash_H) + 1)
    is_new[first] = 1.0
    counts = np.add.reduceat(is_new, np.minimum(requests.block_start_R[:-1], len(is_new) - 1))
    counts[np.diff(requests.block_start_R) == 0] = 0.0
    return np.asarray(np.maximum(np.minimum(counts * requests.hash_block_tokens, requests.input_tokens_R), 1.0))


def _able(unit: Unit, objectives: Objectives, pruned: dict[str, int]) -> bool:
    """Whether any class could be kept by a request that is alone."""
    for name, alone_s in (("ttft", unit.ttft_s), ("tpot", unit.tpot_s)):
        limits = [limit[name] for limit in objectives.most_s.values() if name in limit]
        if limits and alone_s > max(limits):
            pruned[name] = pruned.get(name, 0) + 1
            return False
    return True


def _rate(requests: Requests) -> float:
    """Requests/s of the load; of a closed loop it is not known beforehand (0)."""
    span_s = (int(requests.arrival_ns_R[-1]) - int(requests.arrival_ns_R[0])) * 1e-9
    return (len(requests) - 1) / span_s if span_s > 0 and not requests.in_flight else 0.0


def _candidates(units: Sequence[Unit], pools: Sequence[Pool], requests: Requests, rate: float,
                disaggregated: bool) -> list[_Candidate]:
    """Deployments that could carry the load, the best bound first."""
    offered = rate * float(requests.output_tokens_R.mean())
    chips = {pool.chip.name: pool.chip_count for pool in pools}
    found = []
    for unit in units:
        least = max(1, int(np.ceil(rate * (unit.prompt_s + unit.answer_s) - 1e-9)))
        most = chips[unit.plan.machine.chip.name] // unit.chips
        if least <= most:
            found.append(_Candidate(units=(unit,), counts=(least,), most=most, bound=_bound(
                offered, unit.chips * least, unit)))
    if disaggregated and not requests.in_flight:
        found += _split(units, chips, rate, offered)
    return sorted(found, key=lambda one: (-one.bound, one.chips, str([unit.plan.row.row(0) for unit in one.units])))


def _bound(offered: float, chips: int, unit: Unit) -> float:
    return offered / chips if offered else 1.0 / (unit.chips * (unit.prompt_s + unit.answer_s))


def _split(units: Sequence[Unit], chips: Mapping[str, int], rate: float, offered: float) -> list[_Candidate]:
    """Prefill and decode apart: the layouts that need the fewest chips for each, paired."""
    fronts = sorted(units, key=lambda unit: (rate * unit.prompt_s * unit.chips, unit.chips))[:_PAIRED]
    backs = sorted(units, key=lambda unit: (rate * unit.answer_s * unit.chips, unit.chips))[:_PAIRED]
    found = []
    for front in fronts:
        for back in backs:
            counts = tuple(max(1, int(np.ceil(rate * need_s - 1e-9)))
                           for need_s in (front.prompt_s, back.answer_s))
            used: dict[str, int] = {}
            for unit, count in zip((front, back), counts, strict=True):
                name = unit.plan.machine.chip.name
                used[name] = used.get(name, 0) + unit.chips * count
            if all(used[name] <= chips[name] for name in used):
                total = sum(used.values())
                found.append(_Candidate(units=(front, back), counts=counts, bound=offered / total,
                                        most=min(chips[name] // used[name] for name in used)))
    return found


# --- the simulator decides -----------------------------------------------------------------------

def _simulated(task: tuple[Model, _Candidate, Requests, Objectives, float, int, float]) -> TrafficPlan | None:
    """A candidate on as few replicas as keep the objectives: doubled until it does, then halved in between. The most
    when none do; None when even keeping them it could not have more goodput per chip than `floor`."""
    model, candidate, requests, objectives, attainment, seed, floor = task
    most = max(candidate.most - (candidate.counts[0] - 1 if len(candidate.units) == 1 else 0), 1)
    low, step = 0, 1
    while True:
        if candidate.bound * candidate.chips / candidate.chips_at(step) < floor:
            return None
        best = _at(model, candidate, step, requests, objectives, attainment, seed)
        if best.keeps or step == most:
            break
        low, step = step, min(2 * step, most)
    while best.keeps and step - low > 1:
        middle = (low + step) // 2
        plan = _at(model, candidate, middle, requests, objectives, attainment, seed)
        low, step, best = (low, middle, plan) if plan.keeps else (middle, step, best)
    return best


def _at(model: Model, candidate: _Candidate, step: int, requests: Requests, objectives: Objectives, attainment: float,
        seed: int) -> TrafficPlan:
    """The candidate on the replicas of that step; on the beginning of the load alone where that is clearly too much."""
    if len(requests) >= _PROBED:
        plan = _played(model, candidate, step, cut(requests, count=len(requests) // 4), objectives, attainment, seed)
        if plan.report.attainment < attainment - _CLEARLY:
            return plan
    return _played(model, candidate, step, requests, objectives, attainment, seed)


def _played(model: Model, candidate: _Candidate, step: int, requests: Requests, objectives: Objectives,
            attainment: float, seed: int) -> TrafficPlan:
    counts = candidate.counts_at(step)
    plans = tuple(replace(unit.plan, row=replace(unit.plan.row, replicas=np.array([count])))
                  for unit, count in zip(candidate.units, counts, strict=True))
    pools = [EnginePool(engine=unit.engine, count=count, router="prefix" if requests.hash_block_tokens
                        else "least_loaded") for unit, count in zip(candidate.units, counts, strict=True)]
    cluster = Cluster(serve=pools[-1]) if len(pools) == 1 else Cluster(
        serve=pools[1], prefill=pools[0], transfer=transfer_between(model, plans[0], plans[1]))
    report = report_of(requests, simulate(requests, cluster, seed=seed), plans, objectives)
    return TrafficPlan(pools=plans, report=report, bound=candidate.bound, keeps=report.attainment >= attainment)


def _with_front(ranked: Sequence[TrafficPlan], found: Sequence[TrafficPlan]) -> list[TrafficPlan]:
    """Mark those that nobody beats in goodput per chip and in both latencies at once."""
    def figures(plan: TrafficPlan) -> np.ndarray:
        times_s = plan.report.overall.times_s
        return np.array([-plan.report.goodput_tokens_per_s_per_chip, times_s["ttft"].p99, times_s["tpot"].p50])
    everyone = np.array([figures(plan) for plan in found])
    return [replace(plan, on_front=not ((everyone <= figures(plan)).all(axis=1)
                                        & (everyone < figures(plan)).any(axis=1)).any()) for plan in ranked]


def _nothing_fits(model: Model, pools: Sequence[Pool], profile: EngineProfile) -> NoAnswer:
    chips = " or ".join(f"{pool.chip_count} {pool.chip.name}" for pool in pools)
    return NoAnswer(f"No replica of {model.name} with room for its longest request fits {chips} under {profile.name}.",
                    binding="memory", remedy="Use more chips, or narrower formats: --pin weight_formats=fp8.")


def _nobody_keeps(best: TrafficPlan, objectives: Objectives, tried: int) -> NoAnswer:
    """Which objective is missed by most, and by how much at the 90th percentile."""
    times_s = best.report.overall.times_s
    limits = {name: max(limit[name] for limit in objectives.most_s.values() if name in limit)
              for name in {name for limit in objectives.most_s.values() for name in limit}}
    binding = max(sorted(limits), key=lambda name: times_s[name].p90 / limits[name])
    layout = " + ".join(f"{int(pool.row.replicas[0])} x {int(pool.row.chips_per_replica[0])} {pool.machine.chip.name}"
                        for pool in best.pools)
    return NoAnswer(f"None of {tried} deployments keeps the objectives; the best ({layout}) keeps them for "
                    f"{best.report.attainment:.0%} of the requests, with a 90th percentile of {binding} of "
                    f"{times_s[binding].p90:,.3g} s against {limits[binding]:,.3g} s.",
                    binding="capacity" if binding in ("ttft", "queue", "e2e") else binding,
                    remedy="Use more chips, relax that objective, or scale the load down with --scale-rate.")


def _nothing_keeps(units: Sequence[Unit], able: Sequence[Unit], objectives: Objectives, rate: float) -> NoAnswer:
    if not able:
        best = {"ttft": min(unit.ttft_s for unit in units), "tpot": min(unit.tpot_s for unit in units)}
        limits = {name: max((limit[name] for limit in objectives.most_s.values() if name in limit), default=np.inf)
                  for name in best}
        binding = max(best, key=lambda name: best[name] / limits[name])
        return NoAnswer(f"No layout keeps {binding} = {limits[binding] * 1e3:g} ms: the best takes "
                        f"{best[binding] * 1e3:.3g} ms for a request that is alone.", binding=binding,
                        remedy="Relax the objective, or take faster chips or narrower formats.")
    need = min(rate * (unit.prompt_s + unit.answer_s) * unit.chips for unit in able)
    return NoAnswer(f"The load of {rate:.3g} requests/s needs at the least {need:,.0f} chips.", binding="capacity",
                    remedy="Use more chips, or scale the load down with --scale-rate.")
