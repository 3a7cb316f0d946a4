import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serried.errors import BadInput
from serried.units import format_quantity, parse_quantity, significant


@pytest.mark.parametrize(("text", "unit", "value"), [
    ("3.35 TB/s", "bytes/s", 3.35e12), ("80 GiB", "bytes", 80 * 2**30), ("400 Gbit/s", "bytes/s", 50e9),
    ("400 Gb/s", "bytes/s", 50e9), ("989.4 TFLOP/s", "flop/s", 989.4e12), ("1.83 GHz", "Hz", 1.83e9),
    ("2.5 us", "s", 2.5e-6), ("2.5 µs", "s", 2.5e-6), ("700 W", "W", 700.0), ("3.6 usd/h", "usd/s", 0.001),
    ("25,000 usd", "usd", 25000.0), (132, "1", 132.0), ("132", "1", 132.0), ("1e3 GB", "bytes", 1e12),
])
def test_words_of_measure(text, unit, value):
    assert parse_quantity(text, unit) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(("text", "unit"), [
    ("3.35 TB", "bytes/s"), ("fast", "bytes/s"), ("", "s"), ("3 parsec", "s"), ("nan", "s"), (float("inf"), "s"),
    (True, "1"), (None, "1"), ("1 GB/s/s", "bytes/s"), ([], "s"),
])
def test_what_is_no_such_quantity_is_refused_by_name(text, unit):
    with pytest.raises(BadInput) as error:
        parse_quantity(text, unit, field="hbm_bandwidth", file="chip.toml")
    assert "chip.toml: hbm_bandwidth" in str(error.value)


@given(st.floats(min_value=1e-9, max_value=1e20), st.sampled_from(["bytes/s", "flop/s", "s", "W", "bytes", "Hz"]))
def test_what_is_printed_reads_back(value, unit):
    assert parse_quantity(format_quantity(value, unit, digits=12), unit) == pytest.approx(value, rel=1e-9)


def test_unknown_is_said():
    assert format_quantity(math.nan, "bytes") == "unknown"


def test_money_and_counts_are_shown_as_people_say_them():
    assert format_quantity(2.95 / 3600, "usd/s") == "2.95 usd/h"
    assert format_quantity(0.08 / 3.6e6, "usd/J") == "0.08 usd/kWh"
    assert format_quantity(30_000, "usd") == "30,000 usd"
    assert format_quantity(8960, "1") == "8,960"
    assert parse_quantity("4 year", "s") == 4 * 365.25 * 86400


@pytest.mark.parametrize(("value", "digits", "text"), [
    (1013.2, 3, "1,010"), (1308.4, 4, "1,308"), (0.012345, 3, "0.0123"), (0.0, 3, "0"), (-2.954, 3, "-2.95"),
    (99.96, 3, "100.0"), (1e-15, 3, "1e-15"), (math.inf, 3, "unknown"),
])
def test_significant_digits_without_an_exponent(value, digits, text):
    assert significant(value, digits) == text
