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

__all__ = ["PERCENTILES", "ClassReport", "Price", "ServingReport", "Spread", "report_of", "request_times_s"]

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

    Money is split by the engine time that each kind causes, so that the kinds add up to the whole bill: what prompts
    add to steps; what it takes to bring cached blocks up from the host (nothing where they lie in the chip's memory);
    and all the rest, which decodes.
    """

    input_usd_per_million: float
    output_usd_per_million: float
    cached_usd_per_million: float
    total_usd: float
    output_tokens_per_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingReport:
    """Everything about one simulated deployment. Rates are over the time from the first arrival to the last token.

    goodput_requests_per_s, goodput_tokens_per_s: of requests that keep their objectives (all, when there are none).
    busy_fraction: of engine time. cached_ratio: prompt tokens found in a cache. joules per output token at the meter,
    NaN when a power is unknown.
    """

    requests: int
    served: int
    refused: int
    duration_s: float
    chip_count: int
    classes: tuple[ClassReport, ...]
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
    peak_block_ratio: float
    price: Price
    j_per_output_token: float

    @property
    def overall(self) -> ClassReport:
        """All classes together."""
        return self.classes[0]


def request_times_s(requests: Requests, log: SimulationLog) -> dict[str, Floats]:
    """ttft, tpot, e2e and queue of every request, s over R; NaN where it did not come to that."""
    def since(end_ns_R: NDArray[np.int64], begin_ns_R: NDArray[np.int64]) -> Floats:
        return np.where((end_ns_R >= 0) & (begin_ns_R >= 0), (end_ns_R - begin_ns_R) * 1e-9, np.nan)
    later_R = np.maximum(requests.output_tokens_R - 1, 1)
    done_R = log.last_token_ns_R
    return {"ttft": np.where(log.reason_R == 0, since(log.first_token_ns_R, log.arrival_ns_R), np.nan),
            "tpot": since(done_R, log.first_token_ns_R) / later_R,
            "e2e": since(done_R, log.arrival_ns_R), "queue": since(log.scheduled_ns_R, log.arrival_ns_R)}


def report_of(requests: Requests, log: SimulationLog, pools: Sequence[PoolPlan], objectives: Objectives, *,
              warm_up_s: float = 0.0, tariff: Tariff = DEFAULT_TARIFF) -> ServingReport:
    """The report of a run. pools: as the cluster has them, the prefill pool first.

    warm_up_s: requests that arrive earlier are left out of latencies and objectives (they load the engines all the
    same). A class of its own is reported for every name; the first entry is all of them.
    """
    times_s = request_times_s(requests, log)
    for pool in pools[-1:]:   # what happens outside the engines before a first token
        times_s["ttft"] = times_s["ttft"] + pool.profile.request_s
        times_s["e2e"] = times_s["e2e"] + pool.profile.request_s
    served_R = log.last_token_ns_R >= 0
    served_R &= log.reason_R == 0
    counted_R = log.arrival_ns_R >= warm_up_s * 1e9
    met_R = served_R & objectives.met(times_s, requests.class_R, requests.class_names)
    names = ("all", *requests.class_names) if len(requests.class_names) > 1 else ("all",)
    groups = [counted_R] + [counted_R & (requests.class_R == code) for code in range(len(names) - 1)]
    first_ns = int(log.arrival_ns_R.min(initial=0)) if len(requests) else 0
    duration_s = max((log.end_ns - first_ns) * 1e-9, 1e-9)
    chips = sum(int(pool.row.chip_count[0]) for pool in pools)
    outputs, good = (float(requests.output_tokens_R[chosen].sum()) for chosen in (served_R, met_R))
    busy_E = log.busy_ns_E * 1e-9 / duration_s
    return ServingReport(
        requests=len(requests), served=int(served_R.sum()), refused=int((log.reason_R != 0).sum()),
        duration_s=duration_s, chip_count=chips,
        classes=tuple(_class(name, chosen, served_R, met_R, times_s) for name, chosen in zip(names, groups,
                                                                                           strict=True)),
        output_tokens_per_s=outputs / duration_s, output_tokens_per_s_per_chip=outputs / duration_s / chips,
        input_tokens_per_s=float(requests.input_tokens_R[served_R].sum()) / duration_s,
        goodput_requests_per_s=float(met_R.sum()) / duration_s, goodput_tokens_per_s=good / duration_s,
        goodput_tokens_per_s_per_chip=good / duration_s / chips,
        attainment=float(met_R[counted_R].mean()) if counted_R.any() else float("nan"),
        busy_fraction=float(busy_E.mean()) if len(busy_E) else 0.0,
        cached_ratio=float(log.cached_tokens_R.sum() / max(requests.input_tokens_R.sum(), 1)),
        preemptions=int(log.preemptions_R.sum()), peak_block_ratio=_peak(log, pools),
        price=_price(requests, log, pools, served_R, duration_s, tariff),
        j_per_output_token=_energy_j(log, pools, duration_s, tariff) / max(outputs, 1.0))


def _class(name: str, chosen_R: NDArray[np.bool_], served_R: NDArray[np.bool_], met_R: NDArray[np.bool_],
           times_s: Mapping[str, Floats]) -> ClassReport:
    return ClassReport(name=name, requests=int(chosen_R.sum()), served=int((chosen_R & served_R).sum()),
                       attainment=float(met_R[chosen_R].mean()) if chosen_R.any() else float("nan"),
                       times_s={key: _spread(column[chosen_R & served_R]) for key, column in times_s.items()})


def _spread(time_s: Floats) -> Spread:
    if not len(time_s):
        return Spread(mean=float("nan"), p50=float("nan"), p90=float("nan"), p99=float("nan"))
    p50, p90, p99 = np.percentile(time_s, PERCENTILES)
    return Spread(mean=float(time_s.mean()), p50=float(p50), p90=float(p90), p99=float(p99))


def _peak(log: SimulationLog, pools: Sequence[PoolPlan]) -> float:
    """Most blocks that any engine of the last pool held at once; the caller knows how many it has."""
    count = int(pools[-1].row.replicas[0])
    return float(log.peak_blocks_E[-count:].max(initial=0))


def _engines(pools: Sequence[PoolPlan]) -> list[PoolPlan]:
    """The pool of each engine, in the order of the log."""
    return [pool for pool in pools for _ in range(int(pool.row.replicas[0]))]


def _energy_j(log: SimulationLog, pools: Sequence[PoolPlan], duration_s: float, tariff: Tariff) -> float:
    return sum(float(energy_j(duration_s, busy_ns * 1e-9 / duration_s, chip=pool.machine.chip,
                              chip_count=float(pool.row.chips_per_replica[0]), tariff=tariff))
               for pool, busy_ns in zip(_engines(pools), log.busy_ns_E.tolist(), strict=True))


def _price(requests: Requests, log: SimulationLog, pools: Sequence[PoolPlan], served_R: NDArray[np.bool_],
           duration_s: float, tariff: Tariff) -> Price:
    """Split by the engine time that prompts, blocks brought up from the host, and all the rest (outputs) took."""
    bill = sum(float(chip_usd_per_s(busy_ns * 1e-9 / duration_s, chip=pool.machine.chip, tariff=tariff))
               * float(pool.row.chips_per_replica[0]) * duration_s
               for pool, busy_ns in zip(_engines(pools), log.busy_ns_E.tolist(), strict=True))
    chips_E = np.array([float(pool.row.chips_per_replica[0]) for pool in _engines(pools)])
    busy, prompts, brought = (max(float((column * chips_E).sum()), 0.0)
                              for column in (log.busy_ns_E, log.prefill_ns_E, log.brought_ns_E))
    shares = [part / max(busy, 1.0) for part in (prompts, brought, busy - prompts - brought)]
    tokens = [float(column[served_R].sum()) for column in (requests.input_tokens_R - log.cached_tokens_R,
                                                           log.cached_tokens_R, requests.output_tokens_R)]
    inputs, cached, outputs = (1e6 * bill * share / count if count else float("nan")
                               for share, count in zip(shares, tokens, strict=True))
    return Price(input_usd_per_million=inputs, cached_usd_per_million=cached, output_usd_per_million=outputs,
                 total_usd=bill, output_tokens_per_usd=tokens[2] / bill if bill > 0 else float("nan"))
