"""The tariff as data: the shipped file says what the defaults of the code say; a wrong figure is named."""

from dataclasses import fields

import pytest

from serried.economics import DEFAULT_TARIFF, read_tariff
from serried.errors import BadInput

HEAD = 'schema = "serried/price/1"\nname = "ours"\n[figures]\n'


def written(tmp_path, text):
    path = tmp_path / "ours.toml"
    path.write_text(HEAD + text)
    return str(path)


def test_the_shipped_file_and_the_defaults_agree():
    shipped = read_tariff()
    for column in fields(shipped):
        if column.name != "source":
            assert getattr(shipped, column.name) == pytest.approx(getattr(DEFAULT_TARIFF, column.name)), column.name


def test_a_users_file_changes_what_it_gives_and_nothing_else(tmp_path):
    line = 'electricity_price = { value = "0.04 usd/kWh", status = "specified", source = "our contract" }\n'
    ours = read_tariff(written(tmp_path, line))
    assert ours.electricity_usd_per_j == pytest.approx(0.04 / 3.6e6)
    assert ours.pue == DEFAULT_TARIFF.pue
    assert ours.status == "specified"


@pytest.mark.parametrize(("line", "field"), [
    ('pue = { value = 0.9, status = "measured", source = "x" }', "figures.pue.value"),
    ('electricity_price = { value = "8 usd/kWh", status = "measured", source = "x" }',
     "figures.electricity_price.value"),
    ('electricity_price = { value = "8 usd", status = "measured", source = "x" }', "figures.electricity_price.value"),
    ('electricty_price = { value = 1, status = "measured", source = "x" }', "figures.electricty_price")])
def test_a_wrong_figure_is_named(tmp_path, line, field):
    with pytest.raises(BadInput) as caught:
        read_tariff(written(tmp_path, line))
    assert caught.value.field == field
