import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serried.catalogue import Figure
from serried.economics import (
    Tariff,
    break_even_price_usd,
    break_even_rent_usd_per_s,
    chip_usd_per_s,
    cost_of,
    energy_j,
    power_w,
    usd_per_token,
)
from serried.silicon import Chip

UNITS = {"price": "usd", "rent": "usd/s", "board_power": "W", "idle_power": "W"}
TARIFF = Tariff(electricity_usd_per_j=1e-7, pue=1.2, lifetime_s=1e8, in_use_fraction=0.5, capital_ratio=2.0,
                idle_power_ratio=0.25)


def chip(**figures: float) -> Chip:
    return Chip(name="toy", vendor="", family="toy", fabric="", year=0, file="", figures={
        name: Figure(value=value, unit=UNITS[name], status="specified", source="test")
        for name, value in figures.items()})


def test_power_and_energy_by_hand():
    toy = chip(board_power=400.0, idle_power=100.0)
    assert power_w(0.5, chip=toy) == pytest.approx(250.0)
    assert energy_j(10.0, 0.5, chip=toy, chip_count=4, tariff=TARIFF) == pytest.approx(10 * 4 * 250 * 1.2)


def test_idle_power_falls_back_to_a_ratio_of_the_board():
    assert power_w(0.0, chip=chip(board_power=400.0), tariff=TARIFF) == pytest.approx(100.0)


def test_owned_chip_by_hand():
    """20,000 usd x 2 over 5e7 working seconds, and 400 W x 1.2 x 1e-7 usd/J."""
    toy = chip(price=20_000.0, board_power=400.0)
    assert chip_usd_per_s(1.0, chip=toy, tariff=TARIFF) == pytest.approx(8e-4 + 4.8e-5)
    assert usd_per_token(100.0, 1.0, chip=toy, tariff=TARIFF) == pytest.approx(8.48e-6)


def test_rent_stands_in_when_there_is_no_price():
    assert chip_usd_per_s(1.0, chip=chip(rent=5e-4)) == pytest.approx(5e-4)
    assert cost_of(100.0, 1.0, chip=chip(rent=5e-4)).basis == "rented"


def test_unknown_stays_unknown_and_is_named():
    cost = cost_of(100.0, 1.0, chip=chip())
    assert math.isnan(cost.usd_per_million_tokens)
    assert math.isnan(cost.tokens_per_j)
    assert cost.unknown == ("price", "rent", "board_power")
    assert cost.status == "unknown"


@given(st.floats(1e3, 1e5), st.floats(1.0, 1e4), st.floats(0.0, 1.0))
def test_at_the_break_even_price_a_token_costs_what_the_rivals_costs(price, rate, busy):
    toy = chip(board_power=500.0)
    rival = usd_per_token(rate * 2, busy, chip=chip(price=price, board_power=700.0), tariff=TARIFF)
    even = float(break_even_price_usd(rival, rate, busy, chip=toy, tariff=TARIFF))
    ours = usd_per_token(rate, busy, chip=toy, price_usd=even, tariff=TARIFF)
    assert float(ours) == pytest.approx(float(rival), rel=1e-9)
    assert float(break_even_rent_usd_per_s(rival, rate)) / rate == pytest.approx(float(rival))


@given(st.floats(0.01, 100.0), st.floats(0.01, 100.0))
def test_units_dollars_and_seconds_rescale(usd, second):
    """Measured in other dollars and seconds, usd/s scales as usd over second."""
    tariff = Tariff(electricity_usd_per_j=1e-7 * usd, pue=1.2, lifetime_s=1e8 * second)
    toy = chip(price=2e4 * usd, board_power=400.0 / second)
    base = chip_usd_per_s(0.7, chip=chip(price=2e4, board_power=400.0),
                          tariff=Tariff(electricity_usd_per_j=1e-7, pue=1.2, lifetime_s=1e8))
    assert float(chip_usd_per_s(0.7, chip=toy, tariff=tariff)) == pytest.approx(float(base) * usd / second)
