"""Any mangled chip file is read or refused with the file's name; never a traceback."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.catalogue import names_of
from serried.catalogue.entry import DATA
from serried.errors import BadInput
from serried.silicon import Chip, read_chip
from serried.silicon.spec import CHIP_FIGURES

NAMES = names_of("chips")
SCRAPS = st.one_of(st.text(max_size=6), st.sampled_from(
    ["=", '"', "[", "]", "{", "}", "\n", "nan", "inf", "-1", "0", "1e400", "true", "[[figures]]", "\x00", "é", "TB/s"]))
SCALARS = st.one_of(st.integers(), st.floats(), st.booleans(), st.text(max_size=12), st.none())


def read_or_refuse(path):
    refusal = None
    try:
        chip = read_chip(str(path))
    except BadInput as error:
        refusal = error
    if refusal is not None:
        assert refusal.file == str(path)
        assert refusal.field
        assert refusal.remedy
        return None
    assert isinstance(chip, Chip)
    assert all(figure.value > 0 for figure in chip.figures.values())
    return chip


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(NAMES), cuts=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), SCRAPS), max_size=4))
def test_mangled_text(tmp_path_factory, name, cuts):
    text = (DATA / "chips" / f"{name}.toml").read_text(encoding="utf-8")
    for place, length, scrap in cuts:
        start = int(place * len(text))
        text = text[:start] + scrap + text[start + length:]
    path = tmp_path_factory.mktemp("fuzz") / "chip.toml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    read_or_refuse(path)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "chip.toml"
    path.write_bytes(content)
    assert read_or_refuse(path) is None


def toml_of(value):
    if value is None:
        return "{}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(letter):08X}" for letter in value if not 0xD800 <= ord(letter) <= 0xDFFF) + '"'
    return repr(value)


@settings(max_examples=150, deadline=None)
@given(figure=st.sampled_from([*CHIP_FIGURES, "matrix_peak.bf16"]), value=SCALARS, status=SCALARS, source=SCALARS,
       spread=SCALARS, year=SCALARS, vendor=SCALARS)
def test_wrong_types_in_a_right_form(tmp_path_factory, figure, value, status, source, spread, year, vendor):
    path = tmp_path_factory.mktemp("fuzz") / "chip.toml"
    path.write_text(
        'schema = "serried/chip/1"\nname = "fuzzed"\n[facts]\n'
        f"year = {toml_of(year)}\nvendor = {toml_of(vendor)}\n[figures]\n"
        f'"{figure}" = {{ value = {toml_of(value)}, status = {toml_of(status)}, source = {toml_of(source)}, '
        f"spread = {toml_of(spread)} }}\n", encoding="utf-8")
    read_or_refuse(path)


@pytest.mark.parametrize("name", ["\x00", "a" * 5_000, "", "/", "..", "\x00.toml", "a" * 5_000 + ".toml", "~", "*"])
def test_odd_names(name):
    with pytest.raises(BadInput):
        read_chip(name)
