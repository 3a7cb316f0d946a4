"""Exhaustive layout search of a 175B model on 4,096 chips, every legal layout, memory included, one core."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from benchmarks import Row

LAYOUTS_PER_S_BAR = 150_000
RESIDENT_BYTES_BAR = 2e9
#: Fleet, model, sequence, global batch.
CASES = (("h100:4096", "gpt3-175b", 2048, 1536), ("a100:4096", "gpt3-175b", 2048, 2048))

_SEARCH = """
import json, resource, sys
from serried.fabric import read_fleet
from serried.planner import machine_of, search_training
from serried.workload import Training, read_model
fleet, model, sequence, batch = sys.argv[1:]
job = Training(model=read_model(model), sequence_tokens=int(sequence), global_batch_sequences=int(batch))
found = search_training(job, machine_of(read_fleet(fleet).pools[0]), top=10)
print(json.dumps({"evaluated": found.evaluated, "fitting": found.fitting, "wall_s": found.wall_s,
                  "resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0,
                  "step_time_s": float(found.estimate.time_s[0])}))
"""


def run() -> list[Row]:
    """One process a case, so that the peak memory is that of the search alone; BLAS is held to one thread."""
    rows = []
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    for case in CASES:
        words = [str(word) for word in case]
        done = subprocess.run([sys.executable, "-c", _SEARCH, *words], capture_output=True, text=True, check=True,
                              env=environment)
        found = json.loads(done.stdout)
        name = f"search {case[1]} on {case[0]}"
        rate = found["evaluated"] / found["wall_s"]
        rows += [
            Row(name=f"{name}: legal layouts evaluated", value=found["evaluated"], unit="layouts"),
            Row(name=f"{name}: of these fit", value=found["fitting"], unit="layouts"),
            Row(name=f"{name}: rate", value=rate, unit="layouts/s", bar=f">= {LAYOUTS_PER_S_BAR:,} layouts/s",
                met=rate >= LAYOUTS_PER_S_BAR),
            Row(name=f"{name}: peak resident memory", value=found["resident_bytes"], unit="bytes", bar="< 2 GB",
                met=found["resident_bytes"] < RESIDENT_BYTES_BAR),
            Row(name=f"{name}: best step", value=found["step_time_s"], unit="s")]
    return rows
