"""A chip of round figures, and the same chip in other units, for tests of the attention and memory-bound kernels."""

from __future__ import annotations

from serried.catalogue import Figure
from serried.silicon import Chip


def round_chip(*, second: float = 1.0, byte: float = 1.0, flop: float = 1.0, cores: float = 100.0,
               **more: float) -> Chip:
    """100 cores, 100 TFLOP/s in 16 bits, 200 in 8, 1 TB/s, 40 MB of cache; `second`, `byte`, `flop` rescale units."""
    rate = flop / second
    values = {"matrix_peak.bf16": (100e12 * rate, "flop/s"), "matrix_peak.fp8": (200e12 * rate, "flop/s"),
              "core_count": (cores, "1"), "hbm_bandwidth": (1e12 * byte / second, "bytes/s"),
              "cache": (40e6 * byte, "bytes")} | {name: (value, "1") for name, value in more.items()}
    figures = {name: Figure(value=value, unit=unit, status="assumed", source="test")
               for name, (value, unit) in values.items()}
    return Chip(name="round", vendor="none", family="none", fabric="", year=0, file="", figures=figures)
