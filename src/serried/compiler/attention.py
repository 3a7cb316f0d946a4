"""Time of attention over many new tokens: training, prefill, chunked prefill; forward and backward.

A flash-style kernel cuts the new tokens of every head into query tiles, one work group each, and walks the key tiles
that the mask leaves. What it costs follows from counting tiles: per score two matrix products and one exponential,
per key tile a read through the cache, per work group a fixed start, per chip whole waves of work groups.

Axes: S = shape point.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from serried.compiler.gemm import ACTIVATION_BYTES, ENGINE_FORMAT
from serried.compiler.shape import AttentionShape
from serried.compiler.spec import parameter
from serried.errors import BadInput
from serried.silicon.spec import Chip
from serried.workload.spec import Floats

__all__ = ["AttentionBackwardParameters", "AttentionParameters", "TileTable", "attention_backward_time_s",
           "attention_time_s", "check_tiles", "score_tiles", "tile_rows", "work_lanes"]

#: New tokens by keys of one tile, by head dimension: (largest head dimension, query rows, key rows).
TileTable = tuple[tuple[int, int, int], ...]


def check_tiles(tiles: TileTable) -> None:
    """Raise BadInput unless `tiles` are ascending rows of three positive whole numbers."""
    legal = (len(tiles) > 0 and all(len(row) == 3 and all(isinstance(value, int) and value > 0 for value in row)
                                    for row in tiles)
             and all(before[0] < after[0] for before, after in itertools.pairwise(tiles)))
    if not legal:
        raise BadInput(field="tiles", value=tiles, expected="rows of (head dimension up to, query rows, key rows)",
                       remedy="Write for example tiles = [[64, 192, 128], [256, 128, 64]], ascending.")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionParameters:
    """What a library makes of a chip in flash-style attention.

    tiles: rows of (largest head dimension it holds for, query rows, key rows), ascending.
    """

    tiles: TileTable = ((64, 128, 128), (128, 128, 128), (256, 128, 64), (4096, 64, 64))
    rate_ratio: float = parameter(unit="1", low=0.1, high=1.0, default=0.75,
                                  description="sustained rate of the two matrix products over the peak")
    softmax_flop: float = parameter(unit="1", low=1.0, high=400.0, default=26.0,
                                    description="work of one score's softmax, in flop of the vector units at peak")
    overlap_power: float = parameter(unit="1", low=1.0, high=8.0, default=3.0,
                                     description="1: products and softmax in turn; large: one hides the other")
    feed_ratio: float = parameter(unit="1", low=0.2, high=50.0, default=3.0,
                                  description="bandwidth at which key tiles reach the cores over HBM bandwidth")
    tile_s: float = parameter(unit="s", low=0.0, high=1e-5, default=1e-7,
                              description="latency of one key tile that nothing hides")
    block_s: float = parameter(unit="s", low=0.0, high=2e-5, default=1e-6,
                               description="start and end of one work group")
    wave_share: float = parameter(unit="1", low=0.0, high=1.0, default=0.5,
                                  description="0: work groups fill the cores without gaps; 1: in whole waves")
    pass_ratio: float = parameter(unit="1", low=0.02, high=1.0, default=0.5,
                                  description="HBM bandwidth of reading queries and writing outputs, over the peak")
    append_ratio: float = parameter(unit="1", low=0.02, high=1.0, default=0.4,
                                    description="HBM bandwidth of scattering new keys and values to the cache")
    packs_heads: float = parameter(unit="1", low=0.0, high=1.0, default=1.0,
                                   description="1: query heads of one key head share a tile that tokens do not fill")
    launch_s: float = parameter(unit="s", low=0.0, high=1e-4, default=8e-6, description="captured launch floor")
    core_count: float = parameter(unit="1", low=1.0, high=1e5, default=132.0,
                                  description="cores of the chip measured; stands in where a chip's count is unknown")
    matrix_ratio: float = parameter(unit="1", low=0.5, high=200.0, default=16.0,
                                    description="16-bit matrix peak over vector peak of the chip measured; stands in")

    def __post_init__(self) -> None:
        check_tiles(self.tiles)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionBackwardParameters:
    """What backward makes of a chip beyond the forward kernel, whose tiles and overlap it shares."""

    rate_ratio: float = parameter(unit="1", low=0.1, high=1.0, default=0.6,
                                  description="sustained rate of the five matrix products over the peak")
    vector_ratio: float = parameter(unit="1", low=0.5, high=10.0, default=2.0,
                                    description="work per score on the vector units over that of forward")
    launch_s: float = parameter(unit="s", low=0.0, high=1e-3, default=2.5e-5,
                                description="captured launch floor of the three kernels together")


#: Scratchpad of the cores whose latencies the shipped profiles were fitted on.
LANE_BYTES = 256 * 1024
#: A tile of packed heads must be filled this much better before a library packs.
PACKING_GAIN = 0.9


def score_tiles(query_tokens: Floats, context_tokens: Floats, window_tokens: Floats, query_rows: Floats,
                key_rows: Floats, *, causal: bool) -> tuple[Floats, Floats, Floats]:
    """Query tiles of one head, key tiles they visit in all, key tiles of the longest one.

    Closed form of sum_i ceil(last_i / key_rows) - floor(first_i / key_rows) with query rows i*q .. (i+1)*q - 1:
    rounding to key tiles costs (key_rows - gcd) / 2 on the average, for `last` and for `first`. Window 0 = none.
    """
    tokens, context, rows, keys = (np.asarray(value, dtype=np.float64) for value in
                                   (query_tokens, context_tokens, query_rows, key_rows))
    tile_count = np.ceil(tokens / rows)
    last = np.ceil(context / keys)
    if not causal:
        return tile_count, tile_count * last, last
    divisor = np.gcd(np.maximum(np.rint(rows), 1).astype(np.int64), keys.astype(np.int64)).astype(np.float64)
    rounding = (keys - divisor) / 2
    offset = context - tokens
    inner = tile_count - 1
    visited = last + inner * np.minimum((offset + tile_count / 2 * rows + rounding) / keys, last)
    window = np.where(window_tokens > 0, window_tokens, np.inf)
    first_cut = np.clip(np.floor(np.maximum(window - 1 - offset, 0) / rows) + 1, 0, tile_count)
    first_cut = np.where(offset - window + 1 > 0, 0, first_cut)
    cut_count = tile_count - first_cut
    finite_window = np.where(np.isfinite(window), window, 0.0)
    skew = np.mod(1 - finite_window, divisor) + rounding
    mean_first = offset + (first_cut + tile_count - 1) / 2 * rows - finite_window + 1
    visited = visited - np.where(cut_count > 0, cut_count * np.maximum(mean_first - skew, 0) / keys, 0.0)
    longest = np.minimum(last, np.where(np.isfinite(window), np.ceil((rows + finite_window - 1) / keys) + 1, np.inf))
    return tile_count, np.maximum(visited, tile_count), longest


def attention_time_s(shape: AttentionShape, *, chip: Chip, parameters: AttentionParameters, causal: bool = True,
                     number_format: str = "bf16", cache_element_bytes: float = 2.0, latent_dim: float = 0.0) -> Floats:
    """Device seconds of attention forward over S, captured launch.

    number_format: recipe in which the products run. cache_element_bytes: 0 where no cache is written (training).
    latent_dim: elements a token adds to the cache where that holds one latent for all heads (MLA), else 0.
    """
    score_s = _score_s(shape.width / 2, 1.0, parameters.rate_ratio, parameters, chip, number_format)
    width = ACTIVATION_BYTES[number_format]
    busy_s = _busy_s(shape, score_s, parameters, chip, causal=causal, element_bytes=width)
    tokens = shape.sequences * shape.query_tokens
    streamed = tokens * shape.width * (shape.heads + (shape.kv_heads if latent_dim else 0.0))
    appended = tokens * (latent_dim or shape.width * shape.kv_heads)
    traffic_bytes = (width * streamed / parameters.pass_ratio
                     + (width + cache_element_bytes) * appended / parameters.append_ratio)
    return np.asarray(parameters.launch_s + busy_s + traffic_bytes / chip.need("hbm_bandwidth"))


def attention_backward_time_s(shape: AttentionShape, *, chip: Chip, parameters: AttentionParameters,
                              backward: AttentionBackwardParameters, causal: bool = True,
                              number_format: str = "bf16") -> Floats:
    """Device seconds of attention backward (gradients of queries, keys and values) over S, captured launches.

    Five products per score where forward has two: scores again, then the gradients of probabilities, values, queries
    and keys (FlashAttention-2, Dao 2023, section 3.1.2). A first kernel sums output times its gradient, a last one
    casts the query gradient, which was accumulated in 4-byte numbers across key tiles.
    """
    mean_width = (3 * shape.head_dim + 2 * shape.value_head_dim) / 2
    score_s = _score_s(mean_width, backward.vector_ratio, backward.rate_ratio, parameters, chip, number_format)
    width = ACTIVATION_BYTES[number_format]
    busy_s = _busy_s(shape, score_s, parameters, chip, causal=causal, element_bytes=width)
    rows = shape.sequences * shape.query_tokens
    query_bytes = rows * shape.heads * (2 * width * shape.head_dim + 3 * width * shape.value_head_dim
                                        + 2 * 4.0 * shape.head_dim)
    key_bytes = rows * shape.kv_heads * 2 * width * shape.width
    pass_s = (query_bytes + key_bytes) / (chip.need("hbm_bandwidth") * parameters.pass_ratio)
    return np.asarray(backward.launch_s + busy_s + pass_s)


def _score_s(mean_width: Floats, vector_ratio: float, rate_ratio: float, parameters: AttentionParameters, chip: Chip,
             number_format: str) -> Floats:
    """Seconds one core takes for one score: products of 4 x mean_width flop beside the work on vector units."""
    core_count, power = _core_count(chip, parameters), parameters.overlap_power
    matrix_flop_per_s = chip.matrix_peak_flop_per_s(ENGINE_FORMAT[number_format])
    vector_flop_per_s = chip.get("vector_peak") or _half_peak_flop_per_s(chip, number_format) / parameters.matrix_ratio
    products_s = 4.0 * mean_width * core_count / (matrix_flop_per_s * rate_ratio)
    vector_s = vector_ratio * parameters.softmax_flop * core_count / vector_flop_per_s
    return np.asarray((products_s**power + vector_s**power) ** (1 / power))


def _half_peak_flop_per_s(chip: Chip, number_format: str) -> float:
    """The matrix peak in 16 bits, or in `number_format` on a chip that has no 16-bit peak."""
    return chip.get("matrix_peak.bf16") or chip.get("matrix_peak.fp16") or chip.matrix_peak_flop_per_s(number_format)


def _busy_s(shape: AttentionShape, score_s: Floats, parameters: AttentionParameters, chip: Chip, *,
            causal: bool, element_bytes: float) -> Floats:
    """Seconds until the last core is done: work groups in waves, but no sooner than the longest work group."""
    core_count, tokens = _core_count(chip, parameters), shape.query_tokens
    query_rows, key_rows = tile_rows(shape.width / 2, parameters.tiles)
    group = shape.heads / shape.kv_heads
    filled = tokens / (np.ceil(tokens / query_rows) * query_rows)
    filled_packed = tokens * group / (np.ceil(tokens * group / query_rows) * query_rows)
    packs = (parameters.packs_heads > 0.5) & (group > 1) & (filled < PACKING_GAIN * filled_packed)
    tile_tokens = np.where(packs, np.maximum(query_rows / group, 1.0), query_rows)
    tiled_heads = np.where(packs, shape.kv_heads * np.ceil(group / query_rows), shape.heads)
    tile_count, visited, longest = score_tiles(tokens, shape.context_tokens, shape.window_tokens, tile_tokens,
                                               key_rows, causal=causal)

    lanes = work_lanes(chip)
    feed_s = element_bytes * key_rows * shape.width / (chip.need("hbm_bandwidth") / core_count * parameters.feed_ratio)
    tile_s = np.maximum(query_rows * key_rows * score_s, feed_s) + parameters.tile_s / lanes
    block_s = parameters.block_s / lanes
    waves = shape.sequences * tiled_heads * tile_count / core_count
    waves = (1 - parameters.wave_share) * waves + parameters.wave_share * np.ceil(waves)
    return np.asarray(np.maximum(waves * (visited / tile_count * tile_s + block_s), longest * tile_s + block_s))


def _core_count(chip: Chip, parameters: AttentionParameters) -> float:
    return chip.get("core_count") or parameters.core_count


def work_lanes(chip: Chip) -> float:
    """Work groups whose latencies a core can hide behind one another: as many as its scratchpad holds, at least one."""
    return max((chip.get("scratchpad_per_core") or 0.0) / LANE_BYTES, 1.0)


def tile_rows(width: Floats, tiles: TileTable) -> tuple[Floats, Floats]:
    """Query and key rows of the tile that a kernel of this head dimension uses."""
    table = np.asarray(tiles, dtype=np.float64)
    index = np.minimum(np.searchsorted(table[:, 0], width), len(table) - 1)
    return table[index, 1], table[index, 2]
