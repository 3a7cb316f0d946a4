"""From a simulated log to what people ask: latencies, goodput, money and watts.

Axes: R = request, E = engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serried.economics import DEFAULT_TARIFF, Tariff, chip_usd_per_s, energy_j
from serried.engine import SimulationLog
from serried.serving.cluster import PoolPlan
from serried.serving.objectives import Objectives
from serried.traffic import Requests
from serried.workload.spec import Floats

__all__ = ["PERCENTILES", "ClassReport", "Price", "ServingReport", "Spread", "report_of", "request_times_s",
           "spread_of"]

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A time over requests, s: mean and percentiles."""

    mean: float
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassReport:
    """One class of requests. times_s: by ttft, tpot, e2e and queue. attainment: share that keeps its objectives."""

    name: str
    requests: int
    served: int
    attainment: float
    times_s: Mapping[str, Spread]


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """usd per million tokens of each kind, NaN when there are none, or a chip has neither price nor rent.

    The bill is that of all chips from the first arrival to the last token, idle or not. Every engine's part is split by
    what its busy time went to, so that the kinds add up to the whole: what prompts add to steps; what it takes to bring
    cached blocks up from the host (nothing where they lie in the chip's memory); and all the rest, which decodes.
    """

    input_usd_per_million: float
    output_usd_per_million: float
    cached_usd_per_million: float
    total_usd: float
    output_tokens_per_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingReport:
    """Everything about one simulated deployment.

    Of the requests that count (all that ended, or those of them that arrive after the warm-up): classes, rates over
    measured_s (from the end of the warm-up to their last token), goodput and attainment; goodput is of those that keep
    their objectives (all that were served, when there are none). Of the whole run: requests, duration_s (first arrival
    to last token), busy_fraction of engine time, cached_ratio (prompt tokens found in a cache), preemptions,
    peak_blocks of any engine that decodes, price, and joules per output token at the meter (NaN when a power is
    unknown).
    inter_token_s: between two tokens of a request, over all such gaps; NaN when the log has no spans.
    """

    requests: int
    served: int
    refused: int
    duration_s: float
    measured_s: float
    chip_count: int
    classes: tuple[ClassReport, ...]
    inter_token_s: Spread
    output_tokens_per_s: float
    output_tokens_per_s_per_chip: float
    input_tokens_per_s: float
    goodput_requests_per_s: float
    goodput_tokens_per_s: float
    goodput_tokens_per_s_per_chip: float
    attainment: float
    busy_fraction: float
    cached_ratio: float
    preemptions: int
    peak_blocks: int
    price: Price
    j_per_output_token: float

    @property
    def overall(self) -> ClassReport:
        """All classes together."""
        return self.classes[0]


def request_times_s(requests: Requests, log: SimulationLog, *, outside_s: float = 0.0) -> dict[str, Floats]:
    """ttft, tpot, e2e and queue of every request, s over R; NaN where it did not come to that.

    An answer of one token has no tpot. outside_s: what a request spends outside the engines before its first token.
    """
    def since(end_ns_R: NDArray[np.int64], begin_ns_R: NDArray[np.int64]) -> Floats:
        return np.where((end_ns_R >= 0) & (begin_ns_R >= 0), (end_ns_R - begin_ns_R) * 1e-9, np.nan)

    later_R = requests.output_tokens_R - 1
    tpot_s = since(log.last_token_ns_R, log.first_token_ns_R) / np.maximum(later_R, 1)
    return {"ttft": since(log.first_token_ns_R, log.arrival_ns_R) + outside_s,
            "tpot": np.where(later_R > 0, tpot_s, np.nan),
            "e2e": since(log.last_token_ns_R, log.arrival_ns_R) + outside_s,
            "queue": since(log.scheduled_ns_R, log.arrival_ns_R)}


def report_of(requests: Requests, log: SimulationLog, pools: Sequence[PoolPlan], objectives: Objectives, *,
              warm_up_s: float = 0.0, tariff: Tariff = DEFAULT_TARIFF) -> ServingReport:
    """The report of a run. pools: as the cluster has them, the prefill pool first.

    warm_up_s: requests that arrive earlier load the engines and are paid for, but are not counted in latencies,
    objectives and rates. The first of the classes is all of them; one more for every name where there are several.
    """
    times_s = request_times_s(requests, log, outside_s=pools[-1].profile.request_s)
    finished_R = (log.last_token_ns_R >= 0) & (log.reason_R == 0)
    ended_R = finished_R | (log.reason_R != 0)   # all, unless the simulation was interrupted
    counted_R = ended_R & (log.arrival_ns_R >= warm_up_s * 1e9)
    served_R = finished_R & counted_R
    met_R = served_R & objectives.met(times_s, requests.class_R, requests.class_names)
    names = ("all", *requests.class_names) if len(requests.class_names) > 1 else ("all",)
    groups = [counted_R] + [counted_R & (requests.class_R == code) for code in range(len(names) - 1)]
    first_ns = int(log.arrival_ns_R.min()) if len(requests) else 0
    duration_s = max((log.end_ns - first_ns) * 1e-9, 1e-9)
    begun_ns = max(first_ns, round(warm_up_s * 1e9))
    measured_s = max((int(log.last_token_ns_R[served_R].max(initial=begun_ns)) - begun_ns) * 1e-9, 1e-9)
    chips = sum(int(pool.row.chip_count[0]) for pool in pools)
    inputs, outputs, good = (float(column[rows].sum()) / measured_s for column, rows in (
        (requests.input_tokens_R, served_R), (requests.output_tokens_R, served_R), (requests.output_tokens_R, met_R)))
    answered = float(requests.output_tokens_R[finished_R].sum())
    return ServingReport(
        requests=len(requests), served=int(finished_R.sum()), refused=int((log.reason_R != 0).sum()),
        duration_s=duration_s, measured_s=measured_s, chip_count=chips,
        classes=tuple(_class(name, rows, served_R, met_R, times_s) for name, rows in zip(names, groups, strict=True)),
        inter_token_s=_inter_token(log, pools[-1]),
        output_tokens_per_s=outputs, output_tokens_per_s_per_chip=outputs / chips, input_tokens_per_s=inputs,
        goodput_requests_per_s=float(met_R.sum()) / measured_s, goodput_tokens_per_s=good,
        goodput_tokens_per_s_per_chip=good / chips,
        attainment=float(met_R[counted_R].mean()) if counted_R.any() else float("nan"),
        busy_fraction=float((log.busy_ns_E * 1e-9 / duration_s).mean()) if len(log.busy_ns_E) else 0.0,
        cached_ratio=float(log.cached_tokens_R.sum() / max(requests.input_tokens_R.sum(), 1)),
        preemptions=int(log.preemptions_R.sum()),
        peak_blocks=int(log.peak_blocks_E[-int(pools[-1].row.replicas[0]):].max(initial=0)),
        price=_price(requests, log, pools, finished_R, duration_s, tariff),
        j_per_output_token=_energy_j(log, pools, duration_s, tariff) / max(answered, 1.0))


def _class(name: str, counted_R: NDArray[np.bool_], served_R: NDArray[np.bool_], met_R: NDArray[np.bool_],
           times_s: Mapping[str, Floats]) -> ClassReport:
    return ClassReport(name=name, requests=int(counted_R.sum()), served=int((counted_R & served_R).sum()),
                       attainment=float(met_R[counted_R].mean()) if counted_R.any() else float("nan"),
                       times_s={key: spread_of(column[counted_R & served_R]) for key, column in times_s.items()})


def spread_of(time_s: Floats, weight: NDArray[np.int64] | None = None) -> Spread:
    """Mean and percentiles of times, NaN left out. Percentiles lie between two times as numpy's do; with weights (each
    time stands for so many) they are the least time that so large a share does not exceed."""
    known = np.isfinite(time_s)
    time_s = time_s[known]
    if not len(time_s):
        return Spread(mean=float("nan"), p50=float("nan"), p90=float("nan"), p99=float("nan"))
    if weight is None:
        p50, p90, p99 = np.percentile(time_s, PERCENTILES)
        return Spread(mean=float(time_s.mean()), p50=float(p50), p90=float(p90), p99=float(p99))
    order = np.argsort(time_s, kind="stable")
    time_s, cumulated = time_s[order], np.cumsum(weight[known][order])
    rows = np.searchsorted(cumulated, np.array(PERCENTILES) / 100.0 * cumulated[-1])
    p50, p90, p99 = time_s[rows]
    mean_s = float((time_s * np.diff(cumulated, prepend=0)).sum() / cumulated[-1])
    return Spread(mean=mean_s, p50=float(p50), p90=float(p90), p99=float(p99))


def _inter_token(log: SimulationLog, pool: PoolPlan) -> Spread:
    """Between two tokens of a request: every decoding sequence sees each step of a run as one gap.

    An engine that does not mix prompts into decode steps makes decodes wait for them: the first gap after that is
    longer by so much.
    """
    first = len(log.busy_ns_E) - int(pool.row.replicas[0])
    spans = np.array(log.spans, dtype=np.int64).reshape(-1, 6)
    spans = spans[(spans[:, 0] >= first) & (spans[:, 4] > 0)]
    spans = spans[np.lexsort((spans[:, 1], spans[:, 0]))]
    engine, begin_ns, end_ns, prefill, sequences, steps = spans.T
    decodes = (prefill == 0) | pool.profile.settings.mixed_steps
    waited_ns = np.cumsum(np.where(decodes, 0, end_ns - begin_ns))[decodes]
    wait_ns = np.diff(waited_ns, prepend=0)
    wait_ns[np.diff(engine[decodes], prepend=-1) != 0] = 0   # another engine
    step_s = (end_ns - begin_ns)[decodes] / steps[decodes] * 1e-9
    sequences, steps = sequences[decodes], steps[decodes]
    return spread_of(np.concatenate([step_s + wait_ns * 1e-9, step_s]),
                     np.concatenate([sequences, sequences * (steps - 1)]))


def _engines(pools: Sequence[PoolPlan]) -> list[PoolPlan]:
    """The pool of each engine, in the order of the log."""
    return [pool for pool in pools for _ in range(int(pool.row.replicas[0]))]


def _energy_j(log: SimulationLog, pools: Sequence[PoolPlan], duration_s: float, tariff: Tariff) -> float:
    return sum(float(energy_j(duration_s, busy_ns * 1e-9 / duration_s, chip=pool.machine.chip,
                              chip_count=float(pool.row.chips_per_replica[0]), tariff=tariff))
               for pool, busy_ns in zip(_engines(pools), log.busy_ns_E.tolist(), strict=True))


def _price(requests: Requests, log: SimulationLog, pools: Sequence[PoolPlan], served_R: NDArray[np.bool_],
           duration_s: float, tariff: Tariff) -> Price:
    bill_E = np.array([float(chip_usd_per_s(busy_ns * 1e-9 / duration_s, chip=pool.machine.chip, tariff=tariff))
                       * float(pool.row.chips_per_replica[0]) * duration_s
                       for pool, busy_ns in zip(_engines(pools), log.busy_ns_E.tolist(), strict=True)])
    busy_E = np.maximum(log.busy_ns_E, 1)
    bill = float(bill_E.sum())
    prompts, brought = (float((bill_E * column / busy_E).sum()) for column in (log.prefill_ns_E, log.brought_ns_E))
    kinds = ((prompts, requests.input_tokens_R - log.cached_tokens_R), (brought, log.cached_tokens_R),
             (bill - prompts - brought, requests.output_tokens_R))
    tokens = [float(column[served_R].sum()) for _, column in kinds]
    inputs, cached, outputs = (1e6 * usd / count if count else float("nan")
                               for (usd, _), count in zip(kinds, tokens, strict=True))
    return Price(input_usd_per_million=inputs, cached_usd_per_million=cached, output_usd_per_million=outputs,
                 total_usd=bill, output_tokens_per_usd=tokens[2] / bill if bill > 0 else float("nan"))
