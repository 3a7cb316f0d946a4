"""Fabric and fleet files: what they say, and what they may not say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serried.catalogue import names_of
from serried.errors import BadInput, MissingFigure, SerriedError
from serried.fabric import read_collectives, read_fabric, read_fleet

FABRIC = '''schema = "serried/fabric/1"
name = "mine"
[facts]
profile = "generic"
[[tier]]
name = "node"
kind = "switch"
group_size = 8
bandwidth = { value = "400 GB/s", status = "assumed", source = "me" }
latency = { value = "1 us", status = "assumed", source = "me" }
'''
FLEET = '''schema = "serried/fleet/1"
name = "mixed"
[[pool]]
chip = "h100"
count = 16
[[pool]]
chip = "h20"
count = 8
fabric = "mine.toml"
'''


def _write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", names_of("collectives"))
def test_every_shipped_profile_reads(name):
    profile = read_collectives(name)
    assert profile.parameters["launch"] > 0
    assert any(parameter.startswith("ratio.") for parameter in profile.parameters)


def test_a_fabric_file_reads_in_base_units(tmp_path):
    fabric = read_fabric(_write(tmp_path, "mine.toml", FABRIC))
    assert fabric.tiers[0].bandwidth_bytes_per_s == 400e9
    assert fabric.tiers[0].latency_s == pytest.approx(1e-6)
    assert fabric.node_size == 8
    assert fabric.profile.name == "generic"


@pytest.mark.parametrize(("old", "new", "field"), [
    ('kind = "switch"', 'kind = "string"', "tier.node.kind"),
    ("group_size = 8", "group_size = -8", "tier.node.group_size"),
    ("group_size = 8", "group_size = true", "tier.node.group_size"),
    ('name = "node"', 'name = "node"\ncolour = "blue"', "tier.node.colour"),
    ('"400 GB/s"', '"400 s"', "figures.bandwidth.value"),
    ('"400 GB/s"', '"-1 GB/s"', "figures.bandwidth.value"),
    ('"1 us", status = "assumed"', '"1 us", status = "sworn"', "figures.latency.status"),
    ('profile = "generic"', 'profile = "genric"', "collective"),
    ("[[tier]]", "[tier]", "tier"),
    ("group_size = 8", "group_size = 8\ndimensions = [2, 3]", "tier.node.dimensions"),
])
def test_a_wrong_fabric_file_says_where(tmp_path, old, new, field):
    with pytest.raises(BadInput) as caught:
        read_fabric(_write(tmp_path, "bad.toml", FABRIC.replace(old, new)))
    assert caught.value.field == field


def test_a_missing_bandwidth_is_a_missing_figure(tmp_path):
    lines = [line for line in FABRIC.splitlines() if not line.startswith("bandwidth")]
    with pytest.raises(MissingFigure, match="bandwidth"):
        read_fabric(_write(tmp_path, "bad.toml", "\n".join(lines)))


def test_tiers_nest(tmp_path):
    outer = FABRIC.partition("[[tier]]")[2].replace("group_size = 8", "group_size = 4").replace('"node"', '"outer"')
    with pytest.raises(BadInput, match="inside out"):
        read_fabric(_write(tmp_path, "bad.toml", FABRIC + "[[tier]]" + outer))


def test_chip_and_count_stand_on_the_chips_own_fabric():
    fleet = read_fleet("h20:8")
    assert (fleet.chip_count, fleet.pools[0].chip.name, fleet.pools[0].fabric.name) == (8, "h20", "hgx-h20")
    assert read_fleet("H100 SXM:1_024").chip_count == 1024
    assert read_fleet("h100:4").chip_count == 4, "part of a node is a fleet"


@pytest.mark.parametrize("text", ["h100:0", "h100:-8", "h100:eight", "h100:", "h100:1.5", "h1oo:8", ":8", "h100", "",
                                  "no-such-fleet", "h100:12"])
def test_bad_fleets_are_refused_with_a_remedy(text):
    with pytest.raises(BadInput) as caught:
        read_fleet(text)
    assert caught.value.remedy


def test_an_unknown_chip_names_the_nearest():
    with pytest.raises(BadInput, match="h100"):
        read_fleet("h10:8")


def test_a_fleet_file_may_mix_chips_and_bring_its_own_fabric(tmp_path):
    _write(tmp_path, "mine.toml", FABRIC)
    fleet = read_fleet(_write(tmp_path, "fleet.toml", FLEET))
    assert [pool.chip.name for pool in fleet.pools] == ["h100", "h20"]
    assert fleet.pools[1].fabric.name == "mine"
    assert fleet.chip_count == 24


@pytest.mark.parametrize("name", names_of("fleets"))
def test_every_shipped_fleet_reads(name):
    assert read_fleet(name).chip_count > 0


@given(st.text(max_size=30))
def test_any_text_is_a_fleet_or_a_clear_refusal(text):
    try:
        count = read_fleet(text).chip_count
    except SerriedError:
        return
    assert count > 0
