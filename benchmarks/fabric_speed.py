"""An all-reduce of 1 GiB with contention: 4,096 endpoints, and 470,000 on three tiers with a failed spine."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from benchmarks import Row

#: Words of `build_topology` for each case, its bar in seconds, and in bytes of resident memory.
CASES = (("4,096 endpoints", {"chips": 4096}, (), 0.5, 4e9),
         ("471,040 endpoints, failed spine", {"chips": 471_040, "leaf": 64, "pod": 4096}, ("spine:0",), 20.0, 4e9))

_SIMULATE = """
import json, resource, sys, time
import numpy as np
from serried.topology import build_topology, wire
from serried.topology.simulation import simulate
parameters, failed = json.loads(sys.argv[1])
started = time.perf_counter()
wired = wire(build_topology("bench", "clos", parameters, failed=tuple(failed)))
found = simulate("all_reduce", np.array([2.0**30]), wired, routing="ecmp", draws=4, seed=1)
print(json.dumps({"wall_s": time.perf_counter() - started, "endpoints": found.endpoints,
                  "resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0,
                  "time_s": float(found.time_s[0])}))
"""


def run() -> list[Row]:
    """One process a case, so that the peak memory is that of the simulation alone; one thread."""
    rows = []
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    for name, parameters, failed, wall_s, resident_bytes in CASES:
        done = subprocess.run([sys.executable, "-c", _SIMULATE, json.dumps([parameters, failed])], capture_output=True,
                              text=True, check=True, env=environment)
        found = json.loads(done.stdout)
        rows += [Row(name=f"all-reduce 1 GiB under ECMP, {name}", value=found["wall_s"], unit="s",
                     bar=f"<= {wall_s}", met=found["wall_s"] <= wall_s),
                 Row(name="  resident", value=found["resident_bytes"] / 1e9, unit="GB",
                     bar=f"<= {resident_bytes / 1e9:g}", met=found["resident_bytes"] <= resident_bytes),
                 Row(name="  predicted time of the collective", value=found["time_s"], unit="s")]
    return rows
