"""How fast is a fleet-month? 470,000 chips for 30 days, failures every few minutes, over 200,000 jobs, one core."""

from __future__ import annotations

import resource
import time
from pathlib import Path

from benchmarks import Row
from serried.simulation import simulate
from serried.simulation.scenario_file import read_scenario

WALL_BAR_S, MEMORY_BAR_BYTES, JOBS_BAR = 60.0, 4e9, 200_000
DAYS = 30.0


def run() -> list[Row]:
    """Wall time from the file to the outcome, and the most memory that the process ever held."""
    began = time.perf_counter()
    outcome = simulate(read_scenario(Path(__file__).parent.parent / "examples" / "fleet-470k.toml"), days=DAYS, seed=1)
    wall_s = time.perf_counter() - began
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    jobs = sum(one.submitted for one in outcome.classes) - sum(
        one.submitted for one in outcome.classes if one.name in {service.name for service in outcome.services})
    minutes = DAYS * 1440 / max(sum(outcome.failures.values()), 1)
    name = f"fleet of {outcome.chip_count:,} chips, 30 days"
    return [Row(name=f"{name}: wall", value=wall_s, unit="s", bar=f"<= {WALL_BAR_S:g} s", met=wall_s <= WALL_BAR_S),
            Row(name=f"{name}: peak memory", value=peak_bytes, unit="B", bar=f"< {MEMORY_BAR_BYTES:g} B",
                met=peak_bytes < MEMORY_BAR_BYTES),
            Row(name=f"{name}: jobs", value=jobs, unit="", bar=f">= {JOBS_BAR:,}", met=jobs >= JOBS_BAR),
            Row(name=f"{name}: minutes between failures", value=minutes, unit="min"),
            Row(name=f"{name}: events", value=outcome.events / wall_s, unit="1/s")]
