"""The files that docs/catalogue.md shows are read as it says."""

import re
from pathlib import Path

import pytest

from serried.economics import read_tariff
from serried.fabric import read_fabric, read_fleet
from serried.silicon import read_chip
from serried.workload import parameters, read_model

PAGE = Path(__file__).resolve().parents[2] / "docs" / "catalogue.md"


@pytest.fixture
def shown(tmp_path):
    """Path of each shown file by the kind that its schema names."""
    paths = {}
    for text in re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        kind = re.search(r'schema = "serried/(\w+)/1"', text).group(1)
        paths[kind] = tmp_path / f"{kind}.toml"
        paths[kind].write_text(text, encoding="utf-8")
    return {kind: str(path) for kind, path in paths.items()}


def test_every_shown_file_reads(shown):
    assert set(shown) == {"chip", "fabric", "fleet", "model", "price"}
    assert read_chip(shown["chip"]).need("hbm_bandwidth") == 1.8e12
    assert [tier.group_size for tier in read_fabric(shown["fabric"]).tiers] == [8, 0]
    assert [pool.chip_count for pool in read_fleet(shown["fleet"]).pools] == [1024, 64]
    assert parameters(read_model(shown["model"])).total == 1_235_814_400
    assert read_tariff(shown["price"]).pue == 1.15


def test_a_chip_file_makes_a_fleet_by_its_path(shown):
    fleet = read_fleet(f"{shown['chip']}:8")
    assert fleet.pools[0].chip.name == "my-chip"
    assert fleet.pools[0].fabric.name == "pcie5-node"
