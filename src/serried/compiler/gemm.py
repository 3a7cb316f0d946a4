"""Time of one matrix product on one chip: tiles, waves, slices of k, and the memories that feed them.

A library cuts C[m, n] = A[m, k] B[k, n] into tiles, one tile a core at a time, in waves over the cores; when there are
fewer tiles than cores it may cut k into slices and add the parts up. A tile walks along k in steps, each bound by the
matrix engine, by the bandwidth from the cache into the core, or by the latency of memory over the steps in flight;
then the core drains the tile to memory, and no other tile on that core hides it. All of it runs beside the traffic of
HBM, and no sustained kernel beats the rate that the power limit allows. The library takes the best of its tiles.

Axes: S = shape, T = legal tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from serried.compiler.spec import parameter
from serried.silicon.spec import Chip
from serried.workload.spec import Floats

__all__ = ["ACTIVATION_BYTES", "ELEMENT_BYTES", "ENGINE_FORMAT", "MEASURED_FORMATS", "WEIGHT_BYTES", "GemmParameters",
           "gemm_time_s"]

#: Recipe to the format of the matrix engine that runs it.
ENGINE_FORMAT = {"bf16": "bf16", "fp16": "fp16", "fp8": "fp8", "fp8-block": "fp8", "mxfp8": "fp8", "nvfp4": "fp4",
                 "int8": "int8", "tf32": "tf32", "fp32": "fp32", "int8-weight": "bf16", "int4-weight": "bf16"}
#: Recipe to bytes of one element of an operand, its scales included.
ELEMENT_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "fp8-block": 1.0 + 4 / 128, "mxfp8": 1.0 + 1 / 32,
                 "nvfp4": 0.5 + 1 / 16, "int8": 1.0, "tf32": 4.0, "fp32": 4.0,
                 "int8-weight": 2.0, "int4-weight": 2.0}
#: Recipe to bytes of one element of a weight, where it is stored narrower than it is multiplied.
WEIGHT_BYTES = {"int8-weight": 1.0, "int4-weight": 0.5 + 2 / 128}
ENGINE_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "fp4": 0.5, "int8": 1.0, "tf32": 4.0, "fp32": 4.0}
#: Recipe to bytes of what an operator leaves for the next one: 16 bits, but for recipes whose operands are wider.
ACTIVATION_BYTES = {name: 4.0 if ELEMENT_BYTES[name] == 4.0 else 2.0 for name in ELEMENT_BYTES}
#: How measurement files name the recipes.
MEASURED_FORMATS = {"bfloat16": "bf16", "bf16": "bf16", "float16": "fp16", "fp16": "fp16", "fp8": "fp8",
                    "fp8_block": "fp8-block", "fp8-block": "fp8-block", "mxfp8": "mxfp8", "nvfp4": "nvfp4",
                    "sq": "int8", "int8_wo": "int8-weight",
                    "int4_wo": "int4-weight", "int8": "int8", "tf32": "tf32", "fp32": "fp32"}
_PARTIAL_BYTES = 4.0   # a slice of k leaves its sum in fp32
_LEAST_STEPS = 4.0     # a slice shorter than this is all ramp and no walk
_CHUNK = 65536         # shapes x tiles evaluated at a time: stays in the processor's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmParameters:
    """What a library makes of the matrix engines and the memories, for one recipe.

    tiles: legal (m, n) tiles. k_step_bytes: length of a step along k. core_count, scratchpad_bytes, cache_s (bytes of
    cache over HBM bandwidth): of the chip the kernels were measured on; they stand in for a chip that does not say.
    """

    rate_ratio: float = parameter(
        unit="1", low=0.1, high=2.0, default=1.0, description="engine rate within a step over the peak")
    sustained_rate_ratio: float = parameter(
        unit="1", low=0.05, high=1.0, default=0.8,
        description="rate that power and clock let a long kernel hold, over the peak")
    core_feed_ratio: float = parameter(
        unit="1", low=0.3, high=40.0, default=10.0,
        description="bandwidth from the cache into all cores together, over that of HBM")
    hbm_ratio: float = parameter(
        unit="1", low=0.2, high=1.0, default=0.85, description="sustained HBM bandwidth over the specified one")
    drain_ratio: float = parameter(
        unit="1", low=0.05, high=60.0, default=1.2,
        description="bandwidth at which all cores together drain finished tiles, over that of HBM")
    resident_ratio: float = parameter(
        unit="1", low=0.005, high=2.0, default=0.3,
        description="share of the cache that keeps operand A from the kernel before and C for the kernel after")
    ramp_cache_ratio: float = parameter(
        unit="1", low=1e-3, high=8.0, default=2.0,
        description="HBM traffic at which half of ramp_s is paid, over the cache")
    ramp_s: float = parameter(
        unit="s", low=1e-9, high=4e-5, default=8e-6, description="time HBM needs to come up to its sustained bandwidth")
    launch_s: float = parameter(unit="s", low=1e-8, high=1e-4, default=2e-6, description="captured launch floor")
    tile_s: float = parameter(
        unit="s", low=1e-10, high=2e-5, default=5e-7, description="prologue of a tile that nothing hides")
    latency_s: float = parameter(
        unit="s", low=1e-9, high=1e-5, default=4e-7, description="latency of memory as one step in k sees it")
    slice_s: float = parameter(
        unit="s", low=1e-9, high=4e-5, default=2.5e-6, description="cost of adding up the slices of k, besides traffic")
    sharpness: float = parameter(
        unit="1", low=1.0, high=16.0, default=2.0,
        description="how sharply the slower of two bounds wins: exponent of the norm that joins them")
    stage_limit: float = parameter(
        unit="1", low=2.0, high=16.0, default=4.0, description="most steps in flight per tile")
    slice_limit: float = parameter(unit="1", low=1.0, high=256.0, default=32.0, description="most slices of k")
    resident_tile_elements: float = parameter(
        unit="1", low=1024.0, high=2.0**20, default=32768.0,
        description="accumulator elements of one core: tiles that share them hide each other's latency")
    k_step_bytes: float = parameter(
        unit="bytes", low=16.0, high=1024.0, default=128.0, description="length of one step along k")
    core_count: float = parameter(
        unit="1", low=1.0, high=1e6, default=132.0, description="cores of the chip measured")
    scratchpad_bytes: float = parameter(
        unit="bytes", low=1e3, high=1e9, default=228e3, description="scratchpad of a core of the chip measured")
    cache_s: float = parameter(
        unit="s", low=1e-9, high=1.0, default=15e-6, description="cache over HBM bandwidth of the chip measured")
    reference_j_per_flop: float = parameter(
        unit="J/flop", low=0.0, high=1.0, default=0.0,
        description="board power over peak of the chip measured; 0 = the sustained rate is taken over as it is")
    tiles: tuple[tuple[int, int], ...] = ((64, 64), (64, 128), (128, 64), (128, 128), (128, 256), (256, 128))


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """The chip as the equations want it, in base units."""

    peak_flop_per_s: float
    hbm_bytes_per_s: float
    core_count: float
    scratchpad_bytes: float
    cache_bytes: float
    sustained_flop_per_s: float


def gemm_time_s(m: Floats, n: Floats, k: Floats, *, chip: Chip, parameters: GemmParameters, number_format: str,
                batch: Floats | float = 1.0, weight_bytes_per_element: float | None = None) -> Floats:
    """Device seconds of `batch` products C[m, n] = A[m, k] B[k, n], captured launch; arrays broadcast.

    A and B in `number_format`, C in two bytes an element, or as wide as wider operands.
    weight_bytes_per_element: of B where it is stored narrower than it is multiplied. Casts of the operands are not in
    here unless the profile says so (its `fit.library`).
    Raises MissingFigure or BadInput when the chip lacks the format's peak or the HBM bandwidth.
    """
    m, n, k, batch = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in (m, n, k, batch)))
    engine = engine_of(chip, parameters, ENGINE_FORMAT[number_format])
    element_bytes = ELEMENT_BYTES[number_format]
    weight_bytes = weight_bytes_per_element or WEIGHT_BYTES.get(number_format, element_bytes)
    flat = [value.reshape(-1) for value in (m, n, k, batch)]
    rows = max(1, _CHUNK // len(parameters.tiles))
    time_s_S = np.empty(flat[0].shape)
    for start in range(0, len(time_s_S), rows):
        part = slice(start, start + rows)
        shape = Products(m=flat[0][part], n=flat[1][part], k=flat[2][part], batch=flat[3][part],
                       engine_bytes=ENGINE_BYTES[ENGINE_FORMAT[number_format]], element_bytes=element_bytes,
                       weight_bytes=weight_bytes, output_bytes=ACTIVATION_BYTES[number_format])
        time_s_S[part] = best_tile_s(shape, engine, parameters)
    return time_s_S.reshape(m.shape)


def engine_of(chip: Chip, parameters: GemmParameters, engine_format: str) -> Engine:
    """What the equations need of the chip; what it does not say is taken from the chip that was measured."""
    hbm_bytes_per_s = chip.need("hbm_bandwidth")
    peak_flop_per_s = chip.matrix_peak_flop_per_s(engine_format)
    return Engine(
        peak_flop_per_s=peak_flop_per_s, hbm_bytes_per_s=hbm_bytes_per_s,
        sustained_flop_per_s=_sustained_flop_per_s(peak_flop_per_s, chip.get("board_power"), parameters),
        core_count=chip.get("core_count") or parameters.core_count,
        scratchpad_bytes=chip.get("scratchpad_per_core") or parameters.scratchpad_bytes,
        cache_bytes=chip.get("cache") or parameters.cache_s * hbm_bytes_per_s)


def _sustained_flop_per_s(peak_flop_per_s: float, board_power_w: float | None, p: GemmParameters) -> float:
    """Rate that the power limit allows, never above the peak.

    On the same silicon power grows faster than the clock, about as its square where voltage follows it: a chip with
    another limit or other engines than the one measured holds the square root of its power per flop as much.
    """
    ratio = p.sustained_rate_ratio
    if board_power_w is not None and p.reference_j_per_flop > 0.0:
        ratio *= float(np.sqrt(board_power_w / peak_flop_per_s / p.reference_j_per_flop))
    return peak_flop_per_s * min(1.0, ratio)


class Products(NamedTuple):
    """Products as columns over S; how wide an operand is in the engine, A with its scales, B as it is stored, and C.

    rows_SQ: of a grouped product, the rows of its members by quantile of load, equally many members each; a member is
    there with the probability that it has a row.
    """

    m: Floats
    n: Floats
    k: Floats
    batch: Floats
    engine_bytes: float
    element_bytes: float
    weight_bytes: float
    rows_SQ: Floats | None = None
    output_bytes: float = 2.0

    def row_tiles(self, tile_m: Floats) -> Floats:
        """Tiles along m of the whole batch, over S x T."""
        batch = self.batch[:, None]
        if self.rows_SQ is None:
            return np.asarray(batch * np.ceil(self.m[:, None] / tile_m))
        there, rows_SQ = np.minimum(1.0, self.rows_SQ), np.maximum(1.0, self.rows_SQ)
        tiles = np.stack([(there * np.ceil(rows_SQ / side)).mean(axis=1) for side in tile_m], axis=1)
        return np.asarray(batch * tiles)

    @property
    def weights(self) -> Floats:
        """How many matrices B are read, over S."""
        return self.batch if self.rows_SQ is None else self.batch * np.minimum(1.0, self.rows_SQ).mean(axis=1)


def best_tile_s(shape: Products, engine: Engine, p: GemmParameters) -> Floats:
    """The best tile, without slices of k or with as many as fill the cores; seconds over S."""
    m, n, k, batch = (column[:, None] for column in shape[:4])
    tile_m, tile_n = (np.array(side, dtype=np.float64) for side in zip(*p.tiles, strict=True))
    k_step = p.k_step_bytes / shape.engine_bytes
    steps = np.ceil(k / k_step)
    grid_ST = shape.row_tiles(tile_m) * np.ceil(n / tile_n)
    resident_T = np.clip(np.floor(p.resident_tile_elements / (tile_m * tile_n)), 1.0, 4.0)
    step_bytes_T = (tile_m + tile_n) * p.k_step_bytes
    stages_T = np.clip(np.floor(engine.scratchpad_bytes / (resident_T * step_bytes_T)), 2.0, p.stage_limit)
    latency_T = p.latency_s / stages_T
    step_T = soft_maximum(2.0 * tile_m * tile_n * k_step * engine.core_count / (engine.peak_flop_per_s * p.rate_ratio),
                          step_bytes_T * engine.core_count / (engine.hbm_bytes_per_s * p.core_feed_ratio), p.sharpness)
    full_step_T = soft_maximum(latency_T, resident_T * step_T, p.sharpness)
    drain_ST = (shape.output_bytes * engine.core_count / (engine.hbm_bytes_per_s * p.drain_ratio)
                * np.minimum(tile_m, m) * np.minimum(tile_n, n))
    hbm_s = _hbm_s(shape, engine, p)[:, None]

    def walked_s(slices_ST: Floats | float) -> Floats:
        """Every tile's steps, wave after wave: resident tiles share the engine and hide each other's latency."""
        walk = np.ceil(steps / slices_ST)
        per_core = np.ceil(grid_ST * (slices_ST / engine.core_count))
        full_waves = np.floor(per_core / resident_T)
        rest = per_core - full_waves * resident_T
        rest_step = soft_maximum(latency_T, rest * step_T, p.sharpness)
        cores_s = (full_waves * (p.tile_s + walk * full_step_T) + (rest > 0) * (p.tile_s + walk * rest_step)
                   + per_core * drain_ST)
        return soft_maximum(cores_s, hbm_s, p.sharpness)

    most = np.clip(np.floor(steps / _LEAST_STEPS), 1.0, p.slice_limit)
    slices_ST = np.minimum(most, np.maximum(1.0, np.floor(engine.core_count / np.maximum(1.0, grid_ST))))
    adding_s = p.slice_s + (slices_ST + 1.0) * (_PARTIAL_BYTES / engine.hbm_bytes_per_s * batch * m * n)
    best_s: Floats = p.launch_s + np.minimum(walked_s(1.0), walked_s(slices_ST) + adding_s).min(axis=1)
    flop = 2.0 * shape.batch * shape.m * shape.n * shape.k
    return soft_maximum(best_s, flop / engine.sustained_flop_per_s, 16.0)


def _hbm_s(shape: Products, engine: Engine, p: GemmParameters) -> Floats:
    """Time of the traffic with HBM over S: weights come cold; what the cache keeps of A and C is free."""
    weight_bytes = shape.weights * shape.weight_bytes * shape.n * shape.k
    activation_bytes = shape.batch * shape.m * (shape.element_bytes * shape.k + shape.output_bytes * shape.n)
    traffic_bytes = weight_bytes + np.maximum(0.0, activation_bytes - p.resident_ratio * engine.cache_bytes)
    ramp = traffic_bytes / (traffic_bytes + p.ramp_cache_ratio * engine.cache_bytes)
    return np.asarray(traffic_bytes / (engine.hbm_bytes_per_s * p.hbm_ratio) + p.ramp_s * ramp)


def soft_maximum(one: Floats, other: Floats, sharpness: float) -> Floats:
    """The norm of two positive times with exponent `sharpness`; powers of two take square roots only."""
    if sharpness in (2.0, 4.0, 8.0, 16.0):
        turns = int(np.log2(sharpness))
        for _ in range(turns):
            one, other = one * one, other * other
        joined = one + other
        for _ in range(turns):
            joined = np.sqrt(joined)
        return joined
    return np.asarray((one**sharpness + other**sharpness) ** (1.0 / sharpness))
