"""Kernel profiles as files: which one speaks for a chip, and what a bad one gets told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from serried.calibration.profile_file import profile_text
from serried.catalogue.entry import DATA, read_toml
from serried.compiler import FAMILIES, profile_for, profile_names, read_profile
from serried.errors import BadInput
from serried.silicon import read_chip

HEAD = 'schema = "serried/profile/1"\nname = "mine"\n[facts]\nchips = ["h100"]\nchip_families = ["hopper"]\n'


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(HEAD + text)
    return str(path)


@pytest.mark.parametrize("name", ["a100", "h100", "b200"])
def test_a_measured_chip_has_its_own_profile(name):
    profile = profile_for(read_chip(name))
    assert profile.name == name
    assert profile.evidence_class == "kernel-calibrated chip"
    assert profile.fit("gemm", "bf16").rows > 500
    assert profile.fit("gemm", "bf16").median_error < 0.065


def test_a_relative_inherits_with_a_wider_interval():
    own, kin = profile_for(read_chip("h100")), profile_for(read_chip("h20"))
    assert kin.name == "h100"
    assert kin.evidence_class == "same family"
    assert kin.spread > own.spread
    assert kin.parameters("gemm", "bf16") == own.parameters("gemm", "bf16")


def test_a_stranger_gets_the_population_and_the_widest_interval():
    stranger = dataclasses.replace(read_chip("h100"), name="nobody", aliases=(), family="unheard of")
    profile = profile_for(stranger)
    assert profile.name == "generic"
    assert profile.evidence_class == "data sheet only"
    assert profile.spread > profile_for(read_chip("h20")).spread


def test_another_library_can_be_named(tmp_path):
    path = written(tmp_path, "[gemm.bf16]\nlaunch_s = 9e-6\n")
    assert profile_for(read_chip("h100"), path).parameters("gemm", "bf16").launch_s == 9e-6
    assert profile_for(read_chip("b200"), path).evidence_class == "data sheet only"


def test_a_recipe_without_its_own_kernels_takes_the_nearest():
    profile = read_profile("h100")
    assert profile.parameters("gemm", "fp16") is profile.parameters("gemm", "bf16")
    assert profile.parameters("gemm", "mxfp8") is profile.parameters("gemm", "fp8")
    assert profile.fit("gemm", "mxfp8") == profile.fit("gemm", "fp8")
    with pytest.raises(BadInput, match="gemm"):
        profile.parameters("gemm", "int3")


@pytest.mark.parametrize("name", profile_names())
def test_every_shipped_profile_reads_and_is_written_as_it_stands(name):
    path = DATA / "profiles" / f"{name}.toml"
    profile = read_profile(name)
    assert set(profile.families) <= set(FAMILIES)
    assert profile.chip_families
    again = profile_text(read_toml(path))
    for family, variants in profile.families.items():
        for parameters in variants.values():
            assert isinstance(parameters, FAMILIES[family])
    if path.read_text().startswith("# Made by"):
        assert again == path.read_text()


@pytest.mark.parametrize(("text", "field", "told"), [
    ("[gemm.bf16]\nspeed = 1.0\n", "gemm.bf16.speed", "rate_ratio"),
    ("[gemm.bf16]\nhbm_ratio = 1.7\n", "gemm.bf16.hbm_ratio", "from 0.2 to 1"),
    ("[gemm.bf16]\nhbm_ratio = 'much'\n", "gemm.bf16.hbm_ratio", "a number"),
    ("[gemm.bf16]\ntiles = [[64]]\n", "gemm.bf16.tiles", "64"),
    ("[gemm.bf16]\ntiles = [[64, 'wide']]\n", "gemm.bf16.tiles", "64"),
    ("[gemm.bf16]\ntiles = 64\n", "gemm.bf16.tiles", "64"),
    ("[gemm.bf16.fit]\nrows = 'many'\n", "gemm.bf16.fit.rows", "0"),
    ("[gems.bf16]\n", "gems", "gemm"),
    ("[gemm]\nbf16 = 3\nfp8 = 4\n", "gemm", "table"),
], ids=lambda value: value if len(value) < 30 else "text")
def test_a_bad_file_is_told_what_is_wrong(tmp_path, text, field, told):
    with pytest.raises(BadInput) as raised:
        read_profile(written(tmp_path, text))
    assert raised.value.field.startswith(field)
    assert told in str(raised.value)
    assert raised.value.file.endswith("mine.toml")


def test_a_spread_is_a_fraction(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(HEAD + 'spread = "wide"\n')
    with pytest.raises(BadInput, match=r"facts\.spread"):
        read_profile(str(path))


def test_a_stranger_brings_its_own_sustained_rates():
    """Public measurements of a chip say more of it than the population; figures that nobody measured stay."""
    stranger = read_chip("rtx-4090")
    without = dataclasses.replace(stranger, figures={
        name: figure for name, figure in stranger.figures.items() if not name.startswith("sustained_")})
    own, plain = profile_for(stranger), profile_for(without)
    share = stranger.need("sustained_bandwidth") / stranger.need("hbm_bandwidth")
    for family in ("gemm", "decode", "memory_bound"):
        assert own.parameters(family, "bf16").hbm_ratio == pytest.approx(share)
    rate = own.parameters("gemm", "bf16").sustained_rate_ratio
    assert rate == pytest.approx(stranger.need("sustained_matrix.bf16") / stranger.need("matrix_peak.bf16"))
    assert own.parameters("gemm", "fp8").sustained_rate_ratio == plain.parameters("gemm", "fp8").sustained_rate_ratio
    assert own.evidence_class == plain.evidence_class == "data sheet only"
    assert profile_for(read_chip("h100")).parameters("gemm", "bf16") == read_profile("h100").parameters("gemm", "bf16")
