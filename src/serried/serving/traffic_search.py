"""The best deployments of a load in time: bounds prune, the simulator decides, on a part of the load first.

Axes: C = candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serried.economics import DEFAULT_TARIFF, Tariff
from serried.engine import simulate
from serried.errors import NoAnswer
from serried.planner.spec import Machine
from serried.serving.candidates import (
    Candidates,
    Engines,
    Space,
    candidates_of,
    cluster_at,
    engines_of,
    layouts_of,
    plans_at,
)
from serried.serving.cluster import PoolPlan, cluster_of
from serried.serving.demand import demand_of, likely_demand
from serried.serving.objectives import Objectives
from serried.serving.pareto import pareto_front
from serried.serving.profile import EngineProfile
from serried.serving.prune import Bounds, Outlook, bounds_of, outlook_of
from serried.serving.report import ServingReport, report_of
from serried.serving.workers import Workers, workers_of
from serried.traffic import Requests, cut
from serried.workload import Model

__all__ = ["FIGURES", "RANKINGS", "Question", "TrafficSearch", "Trial", "search_traffic"]

#: What a simulated candidate is known by; all plain numbers, so that workers hand them over as they are.
FIGURES = ("attainment", "goodput_tokens_per_s", "goodput_tokens_per_s_per_chip", "output_tokens_per_s",
           "output_tokens_per_s_per_chip", "ttft_p50_s", "ttft_p90_s", "ttft_p99_s", "tpot_p50_s", "tpot_p90_s",
           "tpot_p99_s", "e2e_p50_s", "e2e_p99_s", "input_usd_per_million", "output_usd_per_million",
           "cached_usd_per_million", "total_usd", "j_per_output_token", "busy_fraction", "cached_ratio", "preemptions",
           "refused", "duration_s")
#: What "best" may mean: figure and direction (+1 = more is better).
RANKINGS: Mapping[str, tuple[str, float]] = {
    "goodput": ("goodput_tokens_per_s_per_chip", 1.0), "usd_per_token": ("output_usd_per_million", -1.0)}
#: Candidates whose engines are expected to be busy for at most such a share of the time are tried first; the share
#: falls with every wave in which none keeps the objectives, faster where none is near.
_COMFORTABLE, _FALLING, _FALLING_FAST, _WAVE = 0.5, 0.75, 0.5, 8
#: Where so many chips failed, so many times as many are tried next.
_GROWTH = 1.5
_GLIMPSE_REQUESTS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked. attain: share of requests that must keep their objectives. glimpses, trials: most candidates that
    are simulated on the first part of the load, and on all of it."""

    model: Model
    machines: Sequence[Machine]
    profile: EngineProfile
    requests: Requests
    objectives: Objectives
    space: Space = field(default_factory=Space)
    attain: float = 0.9
    ranking: str = "goodput"
    router: str = "least_loaded"
    seed: int = 0
    glimpses: int = 64
    trials: int = 16
    tariff: Tariff = DEFAULT_TARIFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One candidate as simulated on the whole load. figures: by FIGURES. on_front: nothing else that was simulated has
    more tokens/s a chip and is as fast to first and later tokens."""

    plans: tuple[PoolPlan, ...]
    chips: int
    figures: Mapping[str, float]
    feasible: bool
    on_front: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSearch:
    """Trials, best first; the others that were simulated on the whole load; and what became of all candidates: of
    `candidates`, `pruned` by bounds, `glimpsed` on a part of the load, `simulated` on all of it. undecided: candidates
    whose bound is no proof that they are worse than the best, and that were not simulated."""

    best: tuple[Trial, ...]
    others: tuple[Trial, ...]
    candidates: int
    pruned: Mapping[str, int]
    glimpsed: int
    simulated: int
    undecided: int
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evaluate:
    """Simulates candidates; sent to workers once. An item: row of the candidates, and how many requests (0 = all)."""

    question: Question
    engines: Engines
    rows: Candidates

    def __call__(self, item: tuple[int, int]) -> tuple[float, ...]:
        row, count = item
        ask = self.question
        load = cut(ask.requests, count=count) if count else ask.requests
        log = simulate(load, cluster_at(ask.model, self.engines, self.rows, row), seed=ask.seed)
        return figures_of(report_of(load, log, plans_at(self.engines, self.rows, row), ask.objectives,
                                    tariff=ask.tariff))


def figures_of(report: ServingReport) -> tuple[float, ...]:
    """FIGURES of a report."""
    times, price = report.overall.times_s, report.price
    return (report.attainment, report.goodput_tokens_per_s, report.goodput_tokens_per_s_per_chip,
            report.output_tokens_per_s, report.output_tokens_per_s_per_chip,
            *(getattr(times[name], percent) for name in ("ttft", "tpot") for percent in ("p50", "p90", "p99")),
            times["e2e"].p50, times["e2e"].p99, price.input_usd_per_million, price.output_usd_per_million,
            price.cached_usd_per_million, price.total_usd, report.j_per_output_token, report.busy_fraction,
            report.cached_ratio, float(report.preemptions), float(report.refused), report.duration_s)


def search_traffic(ask: Question, *, top: int = 10, workers: int = 1, engine: str = "processes",
                   progress: Callable[[int, int], None] | None = None) -> TrafficSearch:
    """The `top` deployments that keep the objectives, best first by `ask.ranking`; the same for any workers.

    Raises NoAnswer, with what binds and how far off the best is, when none keeps them.
    """
    engines = engines_of(ask.model, ask.machines, ask.profile, ask.space, router=ask.router)
    rows = candidates_of(engines, [machine.chip_count for machine in ask.machines], ask.space)
    if not len(rows):
        raise _no_engine(ask)
    bounds = bounds_of(engines, rows, demand_of(ask.requests), ask.objectives)
    alive = np.flatnonzero(bounds.attainment >= ask.attain)
    pruned = _pruned(bounds, ask.attain)
    if not len(alive):
        raise _refused_by_bounds(ask, bounds, pruned)
    outlook = outlook_of(engines, rows, likely_demand(ask.requests), ask.objectives)
    with workers_of(_Evaluate(question=ask, engines=engines, rows=rows), count=workers, engine=engine) as staff:
        found = _Rounds(ask, engines, rows, bounds, outlook, alive, staff, progress).run(top)
    trials = _trials(ask, engines, rows, found.full)
    best = tuple(trial for trial in trials if trial.feasible)[:top]
    if not best:
        raise _nearest_miss(ask, trials, pruned)
    return TrafficSearch(
        best=best, others=tuple(trial for trial in trials if trial not in best), candidates=len(rows), pruned=pruned,
        glimpsed=len(found.glimpse), simulated=len(found.full), requests=len(ask.requests),
        undecided=found.undecided(best[0].figures["goodput_tokens_per_s_per_chip"]))


class _Rounds:
    """Waves of simulations: glimpses in order of promise, then whole loads of those that passed.

    More engines never keep fewer objectives, so of equal engines fewer than what failed, and more than what passed,
    need no trial. Put off are layouts that passed already, and those that failed on nearly as many chips.
    """

    def __init__(self, ask: Question, engines: Engines, rows: Candidates, bounds: Bounds, outlook: Outlook,
                 alive: NDArray[np.intp], staff: Workers, progress: Callable[[int, int], None] | None) -> None:
        self.ask, self.rows, self.bounds, self.staff, self.progress = ask, rows, bounds, staff, progress
        self.load_C, self.short_C = outlook.load, np.maximum(ask.attain - outlook.attainment, 0.0)
        self.open_C = np.zeros(len(rows), dtype=bool)
        self.open_C[alive] = True
        self.put_off_C = np.zeros(len(rows), dtype=bool)
        self.family_C = (rows.prefill_C + 1) * len(engines) + rows.serve_C
        layout_E = np.append(engines.layout_E, -1)   # the last for "no prefill pool"
        self.layout_C = (layout_E[rows.prefill_C] + 1) * (layout_E.max() + 1) + layout_E[rows.serve_C]
        self.glimpse: dict[int, tuple[float, ...]] = {}
        self.full: dict[int, tuple[float, ...]] = {}
        self.comfortable = _COMFORTABLE

    def run(self, top: int) -> _Rounds:
        """Until `top` layouts have passed on all of the load, or as much was tried as is allowed."""
        ask, count, passed = self.ask, min(_GLIMPSE_REQUESTS, len(self.ask.requests)), set[int]()
        while len(passed) < top and len(self.glimpse) < ask.glimpses and len(self.full) < ask.trials:
            wave = self._next_wave()
            if not wave:
                break
            glimpsed = self.staff.map([(row, count) for row in wave])
            self.glimpse.update(zip(wave, glimpsed, strict=True))
            good = [row for row, figures in zip(wave, glimpsed, strict=True) if figures[0] >= ask.attain]
            good = good[:ask.trials - len(self.full)]
            self.full.update(zip(good, self.staff.map([(row, 0) for row in good]), strict=True))
            kept = [row for row in good if self.full[row][0] >= ask.attain]
            passed |= {int(self.layout_C[row]) for row in kept}
            for row in wave:
                self._learn(row, row in kept)
            nearest = max(figures[0] for figures in glimpsed)
            self.comfortable *= 1.0 if kept else _FALLING if nearest > 0.5 * ask.attain else _FALLING_FAST
            if self.progress is not None:
                self.progress(len(self.glimpse), ask.glimpses)
        if not self.full:   # how near is the best?
            near = sorted(self.glimpse, key=lambda row: (-self.glimpse[row][0], row))[:2]
            self.full.update(zip(near, self.staff.map([(row, 0) for row in near]), strict=True))
        return self

    def _next_wave(self) -> list[int]:
        """The most promising candidates, one of a layout: comfortable ones by what they promise, then the others by how
        busy they are; last what is put off."""
        left, bounds = np.flatnonzero(self.open_C), self.bounds
        load = self.load_C[left]
        is_busy = load > self.comfortable
        order = left[np.lexsort((left, bounds.ttft_s[left] + bounds.tpot_s[left], -bounds.goodput_per_chip[left],
                                 np.where(is_busy, load, 0.0), is_busy, self.short_C[left], self.put_off_C[left]))]
        _, first = np.unique(self.layout_C[order], return_index=True)
        return [int(row) for row in order[np.sort(first)[:_WAVE]]]

    def _learn(self, row: int, passed: bool) -> None:
        rows = self.rows
        same = self.family_C == self.family_C[row]
        sides = [(column <= column[row], column >= column[row]) for column in (rows.serve_count_C,
                                                                               rows.prefill_count_C)]
        self.open_C &= ~(same & sides[0][passed] & sides[1][passed])
        alike = self.layout_C == self.layout_C[row]
        self.put_off_C |= alike if passed else alike & (rows.chips_C < _GROWTH * rows.chips_C[row])

    def undecided(self, best: float) -> int:
        """Candidates that were not simulated though their bound is above the best."""
        return int((self.open_C & (self.bounds.goodput_per_chip > best)).sum())


def layout_key(engines: Engines, rows: Candidates, row: int) -> tuple[int, ...]:
    """Candidates of equal layouts and counts share it, whatever their settings."""
    front = int(rows.prefill_C[row])
    return (int(engines.layout_E[front]) if front >= 0 else -1, int(rows.prefill_count_C[row]),
            int(engines.layout_E[rows.serve_C[row]]), int(rows.serve_count_C[row]))


def _trials(ask: Question, engines: Engines, rows: Candidates, full: Mapping[int, tuple[float, ...]]) -> list[Trial]:
    """Everything that was simulated on the whole load: those that keep the objectives first, best first, each layout
    under its best settings."""
    figure, sign = RANKINGS[ask.ranking]
    table = {row: dict(zip(FIGURES, values, strict=True)) for row, values in full.items()}

    def rank(row: int) -> tuple[object, ...]:
        figures = table[row]
        value = sign * figures[figure]
        return (figures["attainment"] < ask.attain, -value if value == value else np.inf, int(rows.chips_C[row]),
                figures["ttft_p50_s"] + figures["tpot_p50_s"], row)

    order = sorted(table, key=rank)
    value_PK = np.array([[table[row]["output_tokens_per_s_per_chip"], -table[row]["ttft_p50_s"],
                          -table[row]["tpot_p50_s"]] for row in order])
    front = pareto_front(np.nan_to_num(value_PK, nan=-np.inf))
    seen: set[tuple[int, ...]] = set()
    found = []
    for place, row in enumerate(order):
        key = layout_key(engines, rows, row)
        if key not in seen:
            found.append(Trial(plans=plans_at(engines, rows, row), chips=int(rows.chips_C[row]), figures=table[row],
                               feasible=table[row]["attainment"] >= ask.attain, on_front=bool(front[place])))
        seen.add(key)
    return found


def _pruned(bounds: Bounds, attain: float) -> dict[str, int]:
    """Candidates that the bounds rule out, by what binds first."""
    out = bounds.attainment < attain
    ttft, tpot = out & (bounds.single_ttft < attain), out & (bounds.single_tpot < attain)
    return {"ttft": int(ttft.sum()), "tpot": int((tpot & ~ttft).sum()), "capacity": int((out & ~ttft & ~tpot).sum())}


def _no_engine(ask: Question) -> NoAnswer:
    """Nothing fits: by how many bytes, and what would."""
    widest = None
    for machine in ask.machines:
        rows = layouts_of(ask.model, machine, ask.space)
        if len(rows):   # the widest layout holds least on each chip
            widest = PoolPlan(machine=machine, row=rows.take(np.array([int(np.argmax(rows.chips_per_replica))])),
                              profile=ask.profile)
    if widest is None:
        return NoAnswer(f"No layout of {ask.model.name} is legal on this fleet.", binding="legality",
                        remedy="Choose a chip count that shares divisors with the model's attention heads.")
    try:
        cluster_of(ask.model, widest)
    except NoAnswer as error:
        return error
    return NoAnswer(f"No engine of {ask.model.name} fits this fleet.", binding="memory")


def _refused_by_bounds(ask: Question, bounds: Bounds, pruned: Mapping[str, int]) -> NoAnswer:
    best = int(np.argmax(bounds.attainment))
    binding = max(pruned, key=lambda name: pruned[name])
    fastest = {"ttft": float(bounds.ttft_s.min()), "tpot": float(bounds.tpot_s.min())}
    told = f"the fastest layout needs {fastest[binding] * 1e3:,.4g} ms for a median request alone" \
        if binding in fastest else f"the least engine time of the load is {bounds.load[best]:.2f} of what there is"
    return NoAnswer(
        f"No deployment can keep the objectives for {ask.attain:.0%} of the requests: at most "
        f"{bounds.attainment[best]:.0%}, before any queueing; {told}.", binding=binding,
        remedy="Relax the objective, take more or faster chips, or narrower formats.")


def _nearest_miss(ask: Question, trials: Sequence[Trial], pruned: Mapping[str, int]) -> NoAnswer:
    best = max(trials, key=lambda trial: trial.figures["attainment"])
    over = {name: best.figures[f"{name}_p90_s"] / most_s for name, most_s in ask.objectives.of("").items()
            if f"{name}_p90_s" in best.figures}
    binding = max(over, key=lambda name: over[name]) if over else "capacity"
    told = ", ".join(f"{name} p90 {best.figures[f'{name}_p90_s'] * 1e3:,.4g} ms against "
                     f"{ask.objectives.of('')[name] * 1e3:,.4g} ms" for name in over)
    return NoAnswer(
        f"No deployment found keeps the objectives for {ask.attain:.0%} of the requests; the best, on {best.chips} "
        f"chips, keeps them for {best.figures['attainment']:.0%}{f' ({told})' if told else ''}.", binding=binding,
        remedy="Relax the objectives or --attain, add chips, or search narrower formats (--pin weight_formats=fp8).")
