"""What stands in for blanks of serving sources: offline runs read as the source describes them."""

from pathlib import Path

import pytest

from serried.errors import BadInput
from serried.evidence.harness import MEASUREMENTS, read_cases
from serried.evidence.serving_points import points_of
from serried.evidence.serving_sources import read_serving_sources, serving_source


def test_offline_rows_are_a_queue_of_the_printed_requests():
    """128 tokens in and out: 30,000 requests at once, at most 2,048 running, an 8-bit cache."""
    points = {point.id: point for point in points_of(read_cases(MEASUREMENTS / "serving" / "published.csv"))}
    point = points["TRT020-001:output_throughput_per_chip"]
    assert point.job is not None
    assert point.layout is not None
    assert (point.job.queued, point.job.concurrency) == (True, 30000)
    assert point.layout.row(0)["max_batch"] == 2048
    assert point.layout.row(0)["cache_format"] == "fp8"


def test_every_published_row_is_read_or_says_why():
    points = points_of(read_cases(MEASUREMENTS / "serving" / "published.csv"))
    assert sum(point.job is not None for point in points) > 0.95 * len(points)
    assert all(point.skipped for point in points if point.job is None)


def test_unknown_source_takes_nothing_for_granted():
    source = serving_source("somebody's blog")
    assert (source.requests_of(128, 128), source.max_batch, source.cache_format) == (0, 0, "bf16")


def test_unknown_key_is_named(tmp_path: Path):
    path = tmp_path / "serving.toml"
    path.write_text('[[source]]\nname = "x"\nmatch = ""\nreason = "y"\nbatches = 3\n')
    with pytest.raises(BadInput, match="batches"):
        read_serving_sources(path)
