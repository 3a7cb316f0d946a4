"""Benchmarks of serving, played through the request simulator.

A benchmark holds a concurrency with random prompts: lengths are uniform between a share of the longest and the longest,
all start at once, and as many requests are sent as the source says. Axes: R = request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from serried.engine import Cluster, simulate
from serried.serving.cluster import PoolPlan
from serried.serving.profile import EngineProfile
from serried.traffic import Requests
from serried.workload.spec import Serving

__all__ = ["Benchmark", "play", "requests_of"]

#: Requests beyond which more waves of a closed loop change nothing that is reported.
_ENOUGH_REQUESTS = 1500
_FEWEST_WAVES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """How a source measures: lengths from `shortest` of the longest to the longest; `waves` times as many requests as
    are in flight."""

    shortest: float = 1.0
    waves: int = 10


def requests_of(job: Serving, benchmark: Benchmark, profile: EngineProfile, *, seed: int = 0) -> Requests:
    """The requests of a closed loop, or of an offline queue (all at once), as they reach the engine.

    The first wave is turned into tokens one prompt after another; a later prompt finds that thread idle, as a rule.
    """
    waves = min(benchmark.waves, max(_FEWEST_WAVES, -(-_ENOUGH_REQUESTS // job.concurrency)))
    count = job.concurrency if job.queued else job.concurrency * waves
    random = np.random.default_rng(np.random.SeedSequence([seed, job.input_tokens, job.output_tokens, count]))
    lengths = [random.integers(max(1, round(longest * benchmark.shortest)), longest + 1, count)
               for longest in (max(job.input_tokens - job.cached_tokens, 1), job.output_tokens)]
    zeros = np.zeros(count, dtype=np.int64)
    if job.queued:
        return Requests(arrival_ns_R=zeros, input_tokens_R=lengths[0], output_tokens_R=lengths[1], class_R=zeros)
    reading_ns = np.round(lengths[0] * profile.token_s * 1e9).astype(np.int64)
    first_ns = np.where(np.arange(count) < job.concurrency, np.cumsum(reading_ns), 0)
    return Requests(arrival_ns_R=first_ns, think_ns_R=reading_ns, input_tokens_R=lengths[0], output_tokens_R=lengths[1],
                    class_R=zeros, in_flight=job.concurrency)


def play(job: Serving, benchmark: Benchmark, cluster: Cluster, serve: PoolPlan,
         prefill: PoolPlan | None = None) -> Mapping[str, float]:
    """What the benchmark would report: seconds to the first token and between later ones (means over requests), output
    tokens per second per chip.

    The first wave, whose requests come together, has the weight that it has in the whole benchmark, however many waves
    were simulated. cluster: what `serve` and `prefill` make.
    """
    requests = requests_of(job, benchmark, (prefill or serve).profile)
    log = simulate(requests, cluster)
    served_R = (log.reason_R == 0) & (log.last_token_ns_R >= 0)
    first_R = np.arange(len(requests)) < job.concurrency
    weight_R = np.where(first_R, 1.0, (benchmark.waves - 1.0) * job.concurrency / max(int((~first_R).sum()), 1))
    weight_R = np.where(served_R, 1.0 if job.queued else weight_R, 0.0)
    more_R = requests.output_tokens_R - 1
    sent_ns_R = np.where(first_R, 0, log.arrival_ns_R - (0 if job.queued else requests.think_ns_R))
    ttft_R = (log.first_token_ns_R - sent_ns_R) * 1e-9 + serve.profile.request_s
    tpot_R = (log.last_token_ns_R - log.first_token_ns_R) * 1e-9 / np.maximum(more_R, 1)
    chips = sum(int(plan.row.chip_count[0]) for plan in (serve, prefill) if plan is not None)
    total = max(float(weight_R.sum()), 1e-9)
    return {"ttft": float((weight_R * ttft_R).sum() / total), "tpot": float((weight_R * tpot_R).sum() / total),
            "output_throughput_per_chip": float(requests.output_tokens_R[served_R].sum() / max(log.end_ns, 1) * 1e9
                                                / chips)}
