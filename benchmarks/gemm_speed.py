"""How many shapes of matrix products are timed in a second, one core, best over every legal tile."""

from __future__ import annotations

import time

import numpy as np

from benchmarks import Row
from serried.compiler import gemm_time_s, read_profile
from serried.silicon import read_chip

SHAPES_PER_S_BAR = 200_000
SHAPE_COUNT = 200_000


def run() -> list[Row]:
    """Random shapes from 1 to 16,384 on each measured chip; the best of three."""
    chance = np.random.default_rng(0)
    m, n, k = np.ceil(2 ** chance.uniform(0, 14, (3, SHAPE_COUNT)))
    rows = []
    for name in ("a100", "h100", "b200"):
        chip, parameters = read_chip(name), read_profile(name).parameters("gemm", "bf16")
        walls_s = []
        for _ in range(3):
            began = time.perf_counter()
            gemm_time_s(m, n, k, chip=chip, parameters=parameters, number_format="bf16")
            walls_s.append(time.perf_counter() - began)
        rate = SHAPE_COUNT / min(walls_s)
        rows.append(Row(name=f"gemm shapes on {name}, {len(parameters.tiles)} tiles", value=rate, unit="shapes/s",
                        bar=f">= {SHAPES_PER_S_BAR:,} shapes/s", met=rate >= SHAPES_PER_S_BAR))
    return rows
