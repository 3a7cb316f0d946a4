"""Chip figures against the measured world: no kernel beats a peak, and the best ones come near it."""

import polars as pl
import pytest

from serried.catalogue.measurements import read_measurements
from serried.silicon import read_chip

FORMATS = {"bfloat16": ("bf16", 2.0), "fp8": ("fp8", 1.0)}


@pytest.fixture(scope="module")
def gemm():
    """Measured products with their best time over libraries: chip, dtype, flop, weight bytes, s."""
    frame = read_measurements("gemm")
    return frame.with_columns(
        best_s=pl.min_horizontal("sglang_us", "trtllm_us", "vllm_us") * 1e-6,
        flop=2.0 * pl.col("m") * pl.col("n") * pl.col("k"),
        weights=pl.col("n").cast(pl.Float64) * pl.col("k")).filter(pl.col("best_s").is_not_null())


@pytest.mark.parametrize(("chip_name", "dtype"), [
    ("a100_sxm", "bfloat16"), ("h100_sxm", "bfloat16"), ("b200_sxm", "bfloat16"), ("h100_sxm", "fp8"),
    ("b200_sxm", "fp8")])
def test_the_best_products_come_near_peak_and_bandwidth_and_never_beat_them(gemm, chip_name, dtype):
    chip = read_chip(chip_name)
    number_format, element_bytes = FORMATS[dtype]
    rows = gemm.filter((pl.col("chip") == chip_name) & (pl.col("dtype") == dtype))
    peak_share = (rows["flop"] / rows["best_s"]).max() / chip.matrix_peak_flop_per_s(number_format)
    assert 0.7 < peak_share <= 1.0
    streamed = rows.filter(pl.col("weights") * element_bytes > 4 * chip.need("cache"))
    bandwidth_share = (streamed["weights"] * element_bytes / streamed["best_s"]).max() / chip.need("hbm_bandwidth")
    assert 0.8 < bandwidth_share <= 1.0


def test_published_serving_points_read_no_faster_than_memory_allows():
    """Batch-1 decode reads every weight once a token: the estimate of an unpublished bandwidth must allow it."""
    points = read_measurements("serving_points").filter(
        (pl.col("metric") == "output_throughput") & (pl.col("concurrency") == 1) & (pl.col("n_chips") == 1))
    assert points.height
    weight_bytes = 2 * 7.07e9   # the 7B model of these points without its input embedding, in 16 bits
    for chip_name, tokens_per_s in points.select("chip", "value").iter_rows():
        assert tokens_per_s * weight_bytes < read_chip(chip_name).need("hbm_bandwidth"), chip_name
