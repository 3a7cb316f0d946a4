"""Which candidates cannot be what is looked for: bounds of every candidate from those of its engines.

Axes: C = candidate, E = engine, R = request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serried.serving.bound import LeastTimes, least_times
from serried.serving.candidates import Candidates, Engines
from serried.serving.demand import Demand
from serried.serving.objectives import Objectives
from serried.workload.spec import Floats

__all__ = ["Bounds", "Outlook", "bounds_of", "outlook_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Of every candidate, over C. attainment: most of the requests that can keep the objectives; of these alone, by
    how long one request takes by itself, single_ttft and single_tpot say what share keeps either. goodput: most
    tokens/s a chip of requests that do. load: least engine time over what there is, of the fuller pool. ttft_s,
    tpot_s: least p50.
    """

    attainment: Floats
    single_ttft: Floats
    single_tpot: Floats
    goodput_per_chip: Floats
    load: Floats
    ttft_s: Floats
    tpot_s: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class _Role:
    """Bounds of every engine in one role, E x R."""

    work_s: Floats
    shared_s_E: Floats
    ttft_s: Floats
    tpot_s: Floats
    refused: NDArray[np.bool_]


def bounds_of(engines: Engines, rows: Candidates, demand: Demand, objectives: Objectives) -> Bounds:
    """True bounds of every candidate: nothing simulated is better."""
    fields = {name: np.zeros(len(rows)) for name in Bounds.__slots__}
    alone = rows.prefill_C < 0
    whole = _role(engines, demand, np.unique(rows.serve_C[alone]), prefills=True, decodes=True)
    split = [_role(engines, demand, np.unique(column[~alone]), prefills=first, decodes=not first)
             for column, first in ((rows.prefill_C, True), (rows.serve_C, False))]
    for chosen, pools in ((np.flatnonzero(alone), [whole]), (np.flatnonzero(~alone), split)):
        ends = [rows.serve_C] if len(pools) == 1 else [rows.prefill_C, rows.serve_C]
        counts = [rows.serve_count_C] if len(pools) == 1 else [rows.prefill_count_C, rows.serve_count_C]
        pairs, which = np.unique(np.stack([end[chosen] for end in ends]), axis=1, return_inverse=True)
        for number, pair in enumerate(pairs.T):
            here = chosen[which.ravel() == number]
            found = _bound([(pool, int(engine)) for pool, engine in zip(pools, pair, strict=True)],
                           [count[here] for count in counts], rows.chips_C[here], engines, demand, objectives)
            for name, column in found.items():
                fields[name][here] = column
    return Bounds(**fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What to expect of every candidate, over C, in which order to try them; no bound. attainment: share of requests
    that keep the objectives when nobody waits; load: engine time needed over what there is, of the fuller pool."""

    attainment: Floats
    load: Floats


def outlook_of(engines: Engines, rows: Candidates, likely: Demand, objectives: Objectives) -> Outlook:
    """Each pool by itself, with caches as they are likely to be."""
    alone, requests = rows.prefill_C < 0, likely.requests
    span_s = max(float(np.ptp(requests.arrival_ns_R)) * 1e-9, 1e-9) if likely.is_open else np.inf
    share_C, load_C = np.ones(len(rows)), np.zeros(len(rows))
    for chosen, engine_C, count_C, first, last in (
            (alone, rows.serve_C, rows.serve_count_C, True, True),
            (~alone, rows.prefill_C, rows.prefill_count_C, True, False),
            (~alone, rows.serve_C, rows.serve_count_C, False, True)):
        role = _role(engines, likely, np.unique(engine_C[chosen]), prefills=first, decodes=last)
        times_s = {"ttft": role.ttft_s, "tpot": role.tpot_s, "queue": 0.0 * role.ttft_s,
                   "e2e": role.ttft_s + role.tpot_s * likely.later_R}
        share_E = np.array([_share(objectives.met({name: column[engine] for name, column in times_s.items()},
                                                  requests.class_R, requests.class_names))
                            for engine in range(len(engines))])
        share_C[chosen] = np.minimum(share_C, share_E[engine_C])[chosen]
        load_C[chosen] = np.maximum(load_C, role.work_s.sum(axis=1)[engine_C] / np.maximum(count_C, 1)
                                    / span_s)[chosen]
    return Outlook(attainment=share_C, load=load_C)


def _role(engines: Engines, demand: Demand, needed: NDArray[np.int64], *, prefills: bool, decodes: bool) -> _Role:
    shape = (len(engines), len(demand.requests))
    role = _Role(work_s=np.zeros(shape), shared_s_E=np.zeros(len(engines)), ttft_s=np.zeros(shape),
                 tpot_s=np.zeros(shape), refused=np.zeros(shape, dtype=bool))
    for engine in needed.tolist():
        least: LeastTimes = least_times(engines.models[engine], demand, prefills=prefills, decodes=decodes)
        role.work_s[engine] = least.prefill_s_R + least.decode_s_R
        role.shared_s_E[engine], role.refused[engine] = least.shared_s, least.refused_R
        role.ttft_s[engine], role.tpot_s[engine] = least.ttft_s_R, least.tpot_s_R
    return role


def _bound(pools: Sequence[tuple[_Role, int]], counts: Sequence[NDArray[np.int64]], chips_C: NDArray[np.int64],
           engines: Engines, demand: Demand, objectives: Objectives) -> dict[str, Floats | float]:
    """Candidates of equal engines in different counts."""
    requests = demand.requests
    served_R = ~np.logical_or.reduce([pool.refused[engine] for pool, engine in pools])
    ttft_s_R = sum(pool.ttft_s[engine] for pool, engine in pools) + engines.plans[pools[-1][1]].profile.request_s
    tpot_s_R = sum(pool.tpot_s[engine] for pool, engine in pools)
    times_s = {"ttft": ttft_s_R, "tpot": tpot_s_R, "queue": np.zeros(len(requests)),
               "e2e": ttft_s_R + demand.later_R * tpot_s_R}
    met_R = served_R & objectives.met(times_s, requests.class_R, requests.class_names)
    singles = [_share(served_R & objectives.met(
        {key: column if key in kept else 0.0 * column for key, column in times_s.items()}, requests.class_R,
        requests.class_names)) for kept in (("ttft", "queue"), ("tpot", "e2e"))]
    first_s, last_s = float(requests.arrival_ns_R.min()) * 1e-9, float(requests.arrival_ns_R.max()) * 1e-9
    open_s = last_s - first_s if demand.is_open else 0.0
    horizon_s = _horizon_s(demand, objectives) - first_s
    most_C, busy_C = np.full(len(chips_C), float(met_R.sum())), np.full(len(chips_C), open_s)
    load_C = np.zeros(len(chips_C))
    for (pool, engine), count in zip(pools, counts, strict=True):
        total_s = float(pool.work_s[engine][served_R].sum()) + float(pool.shared_s_E[engine])
        busy_C = np.maximum(busy_C, total_s / count)
        load_C = np.maximum(load_C, total_s / count / max(open_s, 1e-9)) if open_s else load_C
        work_s_R = pool.work_s[engine][met_R]
        if float(work_s_R.sum()) > horizon_s * int(count.min()):   # else there is time for all of them
            most_C = np.minimum(most_C, np.searchsorted(np.cumsum(np.sort(work_s_R)), horizon_s * count, side="right"))
    good = float(requests.output_tokens_R[met_R].sum())
    median = [float(np.median(column[served_R])) if served_R.any() else np.inf for column in (ttft_s_R, tpot_s_R)]
    return {"attainment": most_C / max(len(requests), 1), "single_ttft": singles[0], "single_tpot": singles[1],
            "goodput_per_chip": good / np.maximum(busy_C, 1e-9) / chips_C, "load": load_C, "ttft_s": median[0],
            "tpot_s": median[1]}


def _share(chosen_R: NDArray[np.bool_]) -> float:
    return float(chosen_R.mean()) if len(chosen_R) else 1.0


def _horizon_s(demand: Demand, objectives: Objectives) -> float:
    """When the last request that keeps its objectives has ended, whatever it is; infinite where nothing says so."""
    requests, latest_s = demand.requests, 0.0
    if not demand.is_open:
        return np.inf
    for code, name in enumerate(requests.class_names):
        most_s, chosen = objectives.of(name), requests.class_R == code
        if not chosen.any():
            continue
        later_R = demand.later_R[chosen]
        after_s = [np.full(len(later_R), most_s["e2e"])] if "e2e" in most_s else []
        if "ttft" in most_s and ("tpot" in most_s or not later_R.any()):
            after_s.append(most_s["ttft"] + later_R * most_s.get("tpot", 0.0))
        if not after_s:
            return np.inf
        latest_s = max(latest_s, float((requests.arrival_ns_R[chosen] * 1e-9 + np.minimum.reduce(after_s)).max()))
    return latest_s
