"""Reading one named table: names and aliases, provenance, and refusals that say what to do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serried.catalogue.entry import fold, locate, read_entry, read_toml
from serried.errors import BadInput

UNITS = {"hbm_bandwidth": "bytes/s", "matrix_peak": "flop/s"}
GOOD = """
schema = "serried/chip/1"
name = "my-chip"
aliases = ["Mine"]
[facts]
vendor = "us"
[figures]
hbm_bandwidth = { value = "2 TB/s", status = "assumed", source = "a guess", spread = 0.2 }
"matrix_peak.bf16" = { value = 1e14, status = "measured", source = "our bench" }
"""


def written(tmp_path, text):
    path = tmp_path / "chip.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_users_file_is_read_in_base_units(tmp_path):
    entry = read_entry("chips", written(tmp_path, GOOD), UNITS)
    assert (entry.name, entry.aliases, entry.facts["vendor"]) == ("my-chip", ("Mine",), "us")
    bandwidth = entry.figures["hbm_bandwidth"]
    assert (bandwidth.value, bandwidth.unit, bandwidth.status, bandwidth.spread) == (2e12, "bytes/s", "assumed", 0.2)
    assert entry.figures["matrix_peak.bf16"].value == 1e14


def test_case_blanks_hyphens_and_organisation_do_not_matter_but_a_decimal_point_does():
    assert fold("H100-80GB_SXM 5") == fold("h10080gbsxm5")
    assert fold("GPT3-1.3B") != fold("GPT3-13B")
    by_stem = read_entry("models", "qwen3-32b", {})
    for spelling in ("Qwen/Qwen3-32B", "QWEN3 32B", "someone-else/qwen3_32b"):
        assert read_entry("models", spelling, {}).file == by_stem.file


def test_an_unknown_name_gets_the_nearest_ones():
    with pytest.raises(BadInput, match=r"Nearest: .*h100") as caught:
        read_entry("chips", "h1000", UNITS)
    assert caught.value.field == "chip"
    assert caught.value.value == "h1000"


@pytest.mark.parametrize(("line", "field"), [
    ('schema = "serried/fabric/1"', "schema"),
    ("name = 7", "name"),
    ('name = "--"', "name"),
    ("aliases = 3", "aliases"),
    ('aliases = ["a", 3]', "aliases"),
    ("facts = 1", "facts"),
    ("figures = []", "figures"),
    ('figures = { hbm_bandwith = { value = 1, status = "assumed", source = "x" } }', "figures.hbm_bandwith"),
    ("figures = { hbm_bandwidth = 3 }", "figures.hbm_bandwidth"),
    ('figures = { hbm_bandwidth = { value = "2 TB/s", source = "x" } }', "figures.hbm_bandwidth.status"),
    ('figures = { hbm_bandwidth = { value = "2 TB/s", status = "sure", source = "x" } }',
     "figures.hbm_bandwidth.status"),
    ('figures = { hbm_bandwidth = { value = "2 TB/s", status = "assumed", source = " " } }',
     "figures.hbm_bandwidth.source"),
    ('figures = { hbm_bandwidth = { value = "2 TB", status = "assumed", source = "x" } }',
     "figures.hbm_bandwidth.value"),
    ('figures = { hbm_bandwidth = { value = "-2 TB/s", status = "assumed", source = "x" } }',
     "figures.hbm_bandwidth.value"),
    ('figures = { hbm_bandwidth = { value = nan, status = "assumed", source = "x" } }', "figures.hbm_bandwidth.value"),
    ('figures = { hbm_bandwidth = { value = true, status = "assumed", source = "x" } }', "figures.hbm_bandwidth.value"),
    ('figures = { hbm_bandwidth = { value = 1, status = "assumed", source = "x", spread = -1 } }',
     "figures.hbm_bandwidth.spread"),
    ('figures = { hbm_bandwidth = { value = 1, status = "assumed", source = "x", unit = "TB/s" } }',
     "figures.hbm_bandwidth"),
])
def test_a_wrong_line_is_named(tmp_path, line, field):
    key = line.partition(" ")[0]
    lines = ['schema = "serried/chip/1"', 'name = "my-chip"']
    path = written(tmp_path, "\n".join([row for row in lines if not row.startswith(f"{key} ")] + [line]))
    with pytest.raises(BadInput) as caught:
        read_entry("chips", path, UNITS)
    assert caught.value.field == field
    assert caught.value.file == path


@pytest.mark.parametrize("content", [
    b"\xff\xfe", b"a = ", b"a = 1\na = 2", b"x = " + b"[" * 20_000 + b"]" * 20_000, b"x = " + b"9" * 5_000])
def test_what_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / "odd.toml"
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read_toml(path)
    assert caught.value.field == "file"


def test_a_missing_file_a_folder_and_a_giant_are_refused(tmp_path):
    (tmp_path / "giant.toml").write_text("# " + "x" * 2_100_000)
    for path in (tmp_path / "none.toml", tmp_path, tmp_path / "giant.toml"):
        with pytest.raises(BadInput):
            read_toml(path)


@given(st.text(max_size=80))
def test_any_name_is_found_or_refused(name):
    refusal = ""
    try:
        path = locate("chips", name)
    except BadInput as error:
        refusal = str(error)
    assert refusal or path.name.endswith(".toml")
