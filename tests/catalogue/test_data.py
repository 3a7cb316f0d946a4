"""The shipped catalogue: every entry reads, every name resolves, every figure has its provenance."""

import csv
import gzip
import io

import pytest

from serried.catalogue import meant_by, names_of, read_entry
from serried.catalogue.entry import DATA, fold, locate, read_toml
from serried.errors import BadInput
from serried.fabric import read_fabric, read_fleet
from serried.silicon import read_chip

KINDS = ("chips", "fabrics", "fleets", "models", "prices", "profiles", "stacks", "collectives")
CHIP_COLUMNS = {
    "kernels/gemm.csv.gz": "chip", "kernels/attention_context.csv.gz": "chip",
    "kernels/attention_generation.csv.gz": "chip", "kernels/mla.csv.gz": "chip", "kernels/moe.csv.gz": "chip",
    "training/published.csv": "chip", "serving/published.csv": "chip", "serving/zhenwu_810e_measured.csv": "chip",
    "serving/inference_measured.csv": "system"}
FABRIC_COLUMNS = {"network/collectives.csv": "system", "network/collectives_intra_node.csv.gz": "system"}
NEEDED = ("hbm_capacity", "hbm_bandwidth", "scaleup_bandwidth", "board_power")


def names_in(file, column):
    path = DATA / "measurements" / file
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return sorted({row[column] for row in csv.DictReader(io.StringIO(content.decode()))} - {""})


def test_the_catalogue_is_as_large_as_promised():
    assert len(names_of("chips")) >= 47
    assert len(names_of("fabrics")) + len(names_of("fleets")) >= 12
    assert len(names_of("models")) >= 34


@pytest.mark.parametrize("kind", KINDS)
def test_stem_name_and_aliases_lead_to_the_file(kind):
    for stem in names_of(kind):
        path = DATA / kind / f"{stem}.toml"
        raw = read_toml(path)
        for name in (stem, stem.upper(), raw["name"], *raw.get("aliases", [])):
            assert locate(kind, name) == path, name


def test_every_chip_reads_names_a_family_and_stands_on_a_fabric_that_reads():
    for stem in names_of("chips"):
        chip = read_chip(stem)
        assert chip.name == stem
        assert chip.title
        assert chip.vendor
        assert chip.family
        assert read_fabric(chip.fabric).name == chip.fabric


def test_estimated_and_assumed_figures_carry_a_spread_unless_they_count():
    for stem in names_of("chips"):
        for name, figure in read_chip(stem).figures.items():
            if figure.status in ("estimated", "assumed") and name not in ("core_count", "scaleup_domain"):
                assert figure.spread > 0, (stem, name)


def test_every_fabric_is_complete_with_provenance():
    for stem in names_of("fabrics"):
        fabric = read_fabric(stem)
        assert fabric.tiers[-1].group_size == 0, stem
        for tier in fabric.tiers:
            for name in ("bandwidth", "latency", "oversubscription"):
                assert tier.figures[name].source, (stem, tier.name, name)


def test_a_chip_and_its_fabric_agree_on_bandwidth():
    """The innermost tier of a chip's own fabric carries what the chip's scale-up link gives (a hand-copied pair)."""
    checked = 0
    for stem in names_of("chips"):
        chip = read_chip(stem)
        link, domain = chip.get("scaleup_bandwidth"), chip.get("scaleup_domain")
        if link is None or domain is None or chip.fabric.startswith("pcie"):
            continue
        tier = read_fabric(chip.fabric).tiers[0]
        assert tier.bandwidth_bytes_per_s == pytest.approx(link, rel=0.02), stem
        assert tier.group_size == domain or tier.group_size < domain <= 16, stem
        checked += 1
    assert checked >= 25


def test_every_fleet_reads():
    for stem in names_of("fleets"):
        fleet = read_fleet(stem)
        assert all(pool.chip_count > 0 for pool in fleet.pools)


@pytest.mark.parametrize(("file", "column"), CHIP_COLUMNS.items())
def test_every_chip_of_the_measurements_is_in_the_catalogue(file, column):
    for name in names_in(file, column):
        chip = read_chip(name)
        for figure in NEEDED:
            if chip.get(figure) is None:
                assert (chip.name, figure) in KNOWN_BLANKS, (name, figure)


#: What nobody publishes, of chips that were measured.
KNOWN_BLANKS = {("trainium1", "board_power")}


@pytest.mark.parametrize(("file", "column"), FABRIC_COLUMNS.items())
def test_every_system_of_the_collectives_has_a_fabric(file, column):
    for name in names_in(file, column):
        assert read_fabric(name).tiers


@pytest.mark.parametrize("name", [
    "A100", "A100-80GB-SXM", "A100-40GB", "H100", "H100-80GB-SXM", "H100-96GB HBM2e 2.4TB/s 500W", "TPU v6e (Trillium)",
    "gb300", "b300_sxm", "Zhenwu 810E", "910B3", "MI355X", "Trainium1"])
def test_spellings_people_use(name):
    assert read_chip(name).figures


def test_variants_differ_from_their_siblings_only_where_they_do():
    plain, small = read_chip("a100"), read_chip("a100-40gb")
    assert small.need("hbm_bandwidth") == 1555e9
    assert small.matrix_peak_flop_per_s("bf16") == plain.matrix_peak_flop_per_s("bf16")
    assert read_chip("h100-96gb").need("board_power") == 500
    assert {read_chip(name).family for name in ("h100", "h200", "h800", "h20")} == {"hopper"}


#: Architectures that are not modelled; their rows are skipped with that reason.
UNMODELLED = {"DeepSeek-V4-Flash", "HSTU"}


@pytest.mark.parametrize(("file", "column"), [
    ("serving/inference_measured.csv", "model_path"), ("serving/published.csv", "model"),
    ("serving/zhenwu_810e_measured.csv", "model")])
def test_every_served_model_is_in_the_catalogue_or_known_to_be_beyond_it(file, column):
    for name in names_in(file, column):
        if name in UNMODELLED:
            with pytest.raises(BadInput):
                locate("models", name)
        else:
            assert locate("models", name).is_file()


def test_unknown_stays_unknown():
    for name in ("mlu690", "kunlun-p800", "ascend-910b1"):
        assert "hbm_bandwidth" not in read_chip(name).figures


def test_models_carry_config_and_published_count():
    for stem in names_of("models"):
        entry = read_entry("models", stem, {})
        assert entry.facts["published_parameters"] > 1e8, stem
        assert entry.facts["published_source"], stem
        assert "model_type" in entry.tables["config"], stem
        assert "/" in entry.name, stem
        assert fold(entry.name.rpartition("/")[2]).startswith(fold(stem)[:6]), stem


@pytest.mark.parametrize(("said", "meant"), [
    ("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA H100 PCIe", "h100-pcie"), ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
    ("NVIDIA GeForce RTX 4090", "rtx-4090"), ("AMD Instinct MI300X", "mi300x"), ("Some Chip", ""), ("", "")])
def test_what_a_driver_calls_a_device_is_found(said, meant):
    assert meant_by("chips", said) == meant
