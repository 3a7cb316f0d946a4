"""How long from a cold start to the best deployments of a trace on 32 chips, disaggregated ones included: a process of
its own, then the same with two workers."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

from benchmarks import Row

__all__ = ["run"]

BAR_S = 10.0
QUESTIONS = {
    "objectives that bind": ["--slo", "ttft=2s,tpot=50ms"],
    "objectives that many keep": ["--slo", "ttft=5s,tpot=100ms"],
}
PLAN = ["plan", "Qwen/Qwen3-32B", "--fleet", "h200:32", "--serve", "trace:mooncake-synthetic", "--drop-longer", "--top",
        "10", "--json"]


def run(*, repeats: int = 3) -> list[Row]:
    rows = []
    for name, objectives in QUESTIONS.items():
        for workers in (1, 2):
            walls_s, answer = [], {}
            for _ in range(repeats):
                began = time.perf_counter()
                done = subprocess.run([sys.executable, "-c", "from serried.cli import main; main()", *PLAN, *objectives,
                                       "--workers", str(workers)], check=True, capture_output=True)
                walls_s.append(time.perf_counter() - began)
                answer = json.loads(done.stdout)
            wall_s = statistics.median(walls_s)
            rows.append(Row(name=f"plan 32 chips, {name}, {workers} workers: cold start to answer", value=wall_s,
                            unit="s", bar=f"<= {BAR_S:g} s", met=wall_s <= BAR_S))
        rows += [Row(name=f"plan 32 chips, {name}: candidates", value=answer["candidates"], unit="deployments"),
                 Row(name=f"plan 32 chips, {name}: simulated in part or whole",
                     value=answer["glimpsed"] + answer["simulated"], unit="deployments")]
    return rows
