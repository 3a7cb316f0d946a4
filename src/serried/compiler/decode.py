"""Time of attention of one (or a few) new tokens per sequence against a cache: decode.

The cache is read once for every key head. Long contexts are cut over idle cores (split keys) and reduced afterwards;
query heads of one key head share the read, as many as fit the rows of one matrix tile.

Axes: S = shape point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serried.compiler.attention import TileTable, check_tiles, tile_rows, work_lanes
from serried.compiler.gemm import ENGINE_FORMAT
from serried.compiler.shape import AttentionShape
from serried.compiler.spec import parameter
from serried.silicon.spec import Chip
from serried.workload.spec import Floats

__all__ = ["DecodeParameters", "decode_time_s"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeParameters:
    """What a library makes of a chip in decode attention.

    tiles: rows of (largest head dimension it holds for, query rows, key rows), ascending. Query rows are filled by the
    query heads of one key head, which share a read of the cache; a work group computes whole tiles.
    """

    tiles: TileTable = ((64, 64, 128), (128, 64, 128), (256, 64, 128), (4096, 64, 64))
    hbm_ratio: float = parameter(unit="1", low=0.05, high=1.0, default=0.85,
                                 description="sustained HBM bandwidth over the specified one, all cores reading")
    core_ratio: float = parameter(unit="1", low=0.1, high=50.0, default=2.0,
                                  description="bandwidth one core can draw over its share of HBM bandwidth")
    groups_per_core: float = parameter(unit="1", low=0.1, high=16.0, default=1.0,
                                       description="work groups that run at once, over the core count")
    split_tokens: float = parameter(unit="1", low=8.0, high=8192.0, default=128.0,
                                    description="fewest keys a library gives to one work group")
    rate_ratio: float = parameter(unit="1", low=1e-4, high=1.0, default=0.2,
                                  description="sustained rate of the products over the peak")
    overlap_power: float = parameter(unit="1", low=1.0, high=8.0, default=3.0,
                                     description="1: chip-wide and per-core limits add; large: the larger one holds")
    wave_share: float = parameter(unit="1", low=0.0, high=1.0, default=0.5,
                                  description="0: work groups fill the slots without gaps; 1: in whole waves")
    block_s: float = parameter(unit="s", low=0.0, high=2e-5, default=2e-6,
                               description="start and end of one work group")
    reduce_s: float = parameter(unit="s", low=0.0, high=2e-5, default=1e-6,
                                description="reduction over split keys, per doubling of the splits")
    pass_ratio: float = parameter(unit="1", low=0.01, high=1.0, default=0.5,
                                  description="HBM bandwidth of reading queries and writing outputs, over the peak")
    launch_s: float = parameter(unit="s", low=0.0, high=1e-4, default=8e-6, description="captured launch floor")
    core_count: float = parameter(unit="1", low=1.0, high=1e5, default=132.0,
                                  description="cores of the chip measured; stands in where a chip's count is unknown")

    def __post_init__(self) -> None:
        check_tiles(self.tiles)


def decode_time_s(shape: AttentionShape, *, chip: Chip, parameters: DecodeParameters, cache_element_bytes: float = 2.0,
                  latent: bool = False, number_format: str = "bf16") -> Floats:
    """Device seconds of decode attention over S, captured launch.

    latent: keys and values are one array of `head_dim`, of which the first `value_head_dim` are the values
    (weight-absorbed MLA), so the cache is read once for both.
    Never below the time of one read of the cache at HBM bandwidth; never falls as the context grows.
    """
    core_count = chip.get("core_count") or parameters.core_count
    core_flop_per_s = chip.matrix_peak_flop_per_s(ENGINE_FORMAT[number_format]) / core_count
    hbm_bytes_per_s = chip.need("hbm_bandwidth")
    queries, window = shape.query_tokens, shape.window_tokens
    keys = np.where(window > 0, np.minimum(shape.context_tokens, window + queries - 1), shape.context_tokens)
    key_bytes = cache_element_bytes * (shape.head_dim if latent else shape.width)

    rows = shape.heads / shape.kv_heads * queries
    query_rows, key_rows = tile_rows(shape.width / 2, parameters.tiles)
    tiles = np.ceil(rows / query_rows)
    work_groups = shape.sequences * shape.kv_heads * tiles
    slots = core_count * parameters.groups_per_core
    spanned = np.minimum(keys + key_rows, np.maximum(shape.context_tokens, keys))   # windows start within a tile
    splits = np.clip(slots / work_groups, 1.0, np.maximum(spanned / parameters.split_tokens, 1.0))
    waves = np.maximum(np.where(splits > 1, 1.0, work_groups / slots), 1.0)
    waves = (1 - parameters.wave_share) * waves + parameters.wave_share * np.ceil(waves)

    core_bytes_per_s = hbm_bytes_per_s / slots * parameters.core_ratio
    tile_flop = 2.0 * shape.width * query_rows * key_rows
    tile_s = tile_flop / (core_flop_per_s * parameters.rate_ratio / parameters.groups_per_core)
    group_s = waves * (parameters.block_s / work_lanes(chip) + np.ceil(spanned / splits / key_rows - 1e-9) * tile_s
                       + spanned / splits * key_bytes / core_bytes_per_s)
    pass_bytes = 2.0 * shape.sequences * queries * shape.heads * shape.width
    stream_s = (shape.sequences * shape.kv_heads * keys * key_bytes / parameters.hbm_ratio
                + pass_bytes / parameters.pass_ratio) / hbm_bytes_per_s
    power = parameters.overlap_power
    busy_s = (group_s**power + stream_s**power) ** (1 / power)
    return np.asarray(parameters.launch_s + busy_s + parameters.reduce_s * np.log2(splits))
