"""How many requests a second the request simulator plays, on one core."""

from __future__ import annotations

import time

import numpy as np

from benchmarks import Row
from serried.engine import Cluster, EnginePool, simulate
from serried.fabric import read_fleet
from serried.serving import serving_machine
from serried.serving.cluster import engine_models
from serried.serving.profile import read_engine
from serried.serving.spec import deployment
from serried.software import stack_for
from serried.traffic import open_loop, poisson, read_trace, stream
from serried.workload import read_model

__all__ = ["run"]


def _engine(model: str, fleet: str, tp: int):
    profile, pool = read_engine("vllm"), read_fleet(fleet).pools[0]
    machine = serving_machine(pool, stack_for(pool.chip.family, "serving", profile.stack))
    return engine_models(read_model(model), machine, deployment(tp=tp), profile)[0]


def run(*, repeats: int = 3) -> list[Row]:
    count = 10_000
    load = open_loop(poisson(12.0, count, stream(7, 0)), np.full(count, 1024), np.full(count, 256))
    one = Cluster(serve=EnginePool(engine=_engine("Qwen/Qwen3-32B", "h100:4", 4), count=1))
    many = Cluster(serve=EnginePool(engine=_engine("Qwen/Qwen3-30B-A3B", "h200:1", 1), count=16, router="prefix"))
    rows = []
    for name, requests, cluster, bar in (
            ("requests 1024/256, Poisson, one deployment", load, one, 20_000.0),
            ("Mooncake trace with prefix blocks, 16 engines", read_trace("mooncake-synthetic"), many, 2_000.0)):
        walls_s = []
        for _ in range(repeats):
            began = time.perf_counter()
            simulate(requests, cluster)
            walls_s.append(time.perf_counter() - began)
        rate = len(requests) / min(walls_s)
        rows.append(Row(name=name, value=rate, unit="requests/s", bar=f">= {bar:,.0f}", met=rate >= bar))
    return rows
