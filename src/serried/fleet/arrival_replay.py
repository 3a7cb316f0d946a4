"""Replay of a list of jobs that arrive one by one and stay: how much of the fleet a placement rule can hand out.

Axes: D = decision, L = percent of load arrived.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serried.fleet.ledger import Ledger
from serried.fleet.openb import milli_of
from serried.fleet.policies import MEASURES, policy_named
from serried.fleet.rules import Rules
from serried.fleet.spec import WHOLE_MILLI, Event, EventKind, Fleet, Job
from serried.fleet.state import State

__all__ = ["MEASURES", "Replayed", "replay_arrivals"]

_REPORT_EVERY = 500


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replayed:
    """What came of it. allocation_ratio_L: shares handed out over all shares of the fleet, while so many percent of the
    fleet's chips had been asked for (mean over the arrivals that round to it)."""

    allocation_ratio_L: NDArray[np.float64]
    decisions: int
    placed: int
    invariant_checks: int
    wall_s: float
    state: State


def replay_arrivals(fleet: Fleet, known: Sequence[Job], arriving: Sequence[Job], policy: str, *, seed: int,
                    progress: Callable[[int, int], None] | None = None) -> Replayed:
    """Let jobs arrive one by one; what does not fit at once goes away. Every step is checked against a ledger.

    known: the jobs by which a policy knows the workload.
    """
    state, ledger = State(fleet), Ledger(fleet)
    scheduler = policy_named(policy, fleet, known, seed=seed, rules=Rules(order="arrival", reservations=0))
    scheduler.learn(state.snapshot(), [job.shape for job in known])
    used_milli_D, placed = np.zeros(len(arriving), dtype=np.int64), 0
    began = time.perf_counter()
    for turn, job in enumerate(arriving):
        number = state.apply(Event(time_ns=turn, kind=EventKind.SUBMIT, request=job))
        plan = scheduler.plan(state.snapshot())
        for event in plan.events:
            state.apply(event)
            ledger.follow(state, event)
            placed += 1
        if not plan.events:
            state.apply(Event(time_ns=turn, kind=EventKind.CANCEL, job=number))
        ledger.check(state, plan.events)
        used_milli_D[turn] = ledger.used_milli
        if progress is not None and turn % _REPORT_EVERY == 0:
            progress(turn, len(arriving))
    wall_s = time.perf_counter() - began
    ledger.check_everything(state)
    arrived_milli_D = np.cumsum([milli_of(job.shape) for job in arriving])
    whole_milli = int(fleet.chip_count_N.sum()) * WHOLE_MILLI
    return Replayed(allocation_ratio_L=_by_percent(arrived_milli_D / whole_milli, used_milli_D / whole_milli),
                    decisions=len(arriving), placed=placed, invariant_checks=ledger.checks, wall_s=wall_s, state=state)


def _by_percent(load_D: NDArray[np.float64], ratio_D: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean ratio over the decisions whose load rounds to each percent; of the neighbours where none does."""
    percent_D = np.rint(load_D * 100).astype(np.int64)
    count_L = np.bincount(percent_D).astype(np.float64)
    sum_L = np.bincount(percent_D, weights=ratio_D)
    empty_L = count_L == 0
    around = np.ones(3)
    wide_count_L, wide_sum_L = np.convolve(count_L, around, "same"), np.convolve(sum_L, around, "same")
    count_L, sum_L = np.where(empty_L, wide_count_L, count_L), np.where(empty_L, wide_sum_L, sum_L)
    with np.errstate(invalid="ignore"):
        return sum_L / count_L
