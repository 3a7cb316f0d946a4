"""Requests per second that the request simulator plays: a Poisson load on one engine, a trace with prefixes on 16."""

from __future__ import annotations

import time

import numpy as np

from benchmarks import Row
from serried.engine import Cluster, EnginePool, SimulationLog, simulate
from serried.fabric import read_fleet
from serried.serving import serving_machine
from serried.serving.cluster import engine_models
from serried.serving.profile import read_engine
from serried.serving.spec import deployment
from serried.software import stack_for
from serried.traffic import Requests, open_loop, poisson, read_trace, stream
from serried.workload import read_model

__all__ = ["run"]

MODEL = "Qwen/Qwen3-32B"
#: One engine of two chips serves 11.4 requests/s of this shape when all come at once: 80 % of that.
REQUESTS, INPUT_TOKENS, OUTPUT_TOKENS, RATE_PER_S = 10_000, 1024, 256, 9.1
POISSON_BAR_PER_S, TRACE_BAR_PER_S = 20_000, 2_000


def run() -> list[Row]:
    """Wall time of `simulate` alone, the best of three."""
    load = open_loop(poisson(RATE_PER_S, REQUESTS, stream(7, 0)), np.full(REQUESTS, INPUT_TOKENS),
                     np.full(REQUESTS, OUTPUT_TOKENS))
    return [*_rows("10,000 Poisson requests 1024/256 on one engine", load, _cluster(1, "least_loaded"),
                   POISSON_BAR_PER_S),
            *_rows("Mooncake synthetic trace on 16 engines", read_trace("mooncake-synthetic"), _cluster(16, "prefix"),
                   TRACE_BAR_PER_S)]


def _cluster(count: int, router: str) -> Cluster:
    profile, pool = read_engine("vllm"), read_fleet("h200:2").pools[0]
    machine = serving_machine(pool, stack_for(pool.chip.family, "serving", profile.stack))
    engine = engine_models(read_model(MODEL), machine, deployment(tp=2), profile)[0]
    assert engine is not None, "the model fits two chips"
    return Cluster(serve=EnginePool(engine=engine, count=count, router=router))


def _rows(name: str, load: Requests, cluster: Cluster, bar_per_s: int) -> list[Row]:
    walls_s = []
    for _ in range(3):
        began_s = time.perf_counter()
        found = simulate(load, cluster, seed=7)
        walls_s.append(time.perf_counter() - began_s)
    rate = len(load) / min(walls_s)
    return [Row(name=f"{name}: requests simulated", value=rate, unit="1/s", bar=f">= {bar_per_s:,} 1/s",
                met=rate >= bar_per_s), *_load(name, load, found)]


def _load(name: str, load: Requests, found: SimulationLog) -> list[Row]:
    """What the engines had to do, so that a fast run is not an idle one."""
    served_R = found.last_token_ns_R >= 0
    decoding_s = (found.last_token_ns_R - found.first_token_ns_R)[served_R].sum() * 1e-9
    end_s = found.end_ns * 1e-9
    return [Row(name=f"{name}: decoding at once, mean an engine", value=decoding_s / end_s / len(found.busy_ns_E),
                unit="requests"),
            Row(name=f"{name}: engines busy", value=float(found.busy_ns_E.mean()) / found.end_ns, unit="of the time"),
            Row(name=f"{name}: prompt tokens found in a cache",
                value=float(found.cached_tokens_R.sum() / load.input_tokens_R[served_R].sum()), unit="of them"),
            Row(name=f"{name}: mean time to first token",
                value=float((found.first_token_ns_R - found.arrival_ns_R)[served_R].mean()) * 1e-9, unit="s")]
