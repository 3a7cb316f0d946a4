"""Capital, rent and electricity as usd per token, and the price at which two fleets cost the same."""

from __future__ import annotations

import numpy as np

from serried.economics.energy import power_w
from serried.economics.spec import DEFAULT_TARIFF, Cost, Tariff, unknown_figures
from serried.silicon import Chip
from serried.workload.spec import Floats

__all__ = ["break_even_price_usd", "break_even_rent_usd_per_s", "chip_usd_per_s", "cost_of", "usd_per_token"]

_STATUS_ORDER = ("measured", "specified", "estimated", "assumed")


def electricity_usd_per_s(busy_fraction: Floats | float, *, chip: Chip, tariff: Tariff = DEFAULT_TARIFF) -> Floats:
    """What one chip's electricity costs while it works, usd/s; NaN when its power is unknown."""
    watts = power_w(busy_fraction, chip=chip, tariff=tariff)
    return np.asarray(watts * (tariff.pue * tariff.electricity_usd_per_j))


def chip_usd_per_s(busy_fraction: Floats | float, *, chip: Chip, price_usd: float | None = None,
                   tariff: Tariff = DEFAULT_TARIFF) -> Floats:
    """What one working chip costs, usd per second of work; NaN when unknown.

    Owned when a price is known (`price_usd`, else the chip's own figure): price with what is bought around it, written
    off over the working time, plus electricity. Else rented, electricity included in the rent.
    """
    busy = np.asarray(busy_fraction, dtype=np.float64)
    price = chip.get("price") if price_usd is None else price_usd
    if price is not None:
        capital_usd_per_s = price * tariff.capital_ratio / (tariff.lifetime_s * tariff.in_use_fraction)
        return np.asarray(capital_usd_per_s + electricity_usd_per_s(busy, chip=chip, tariff=tariff))
    rent = chip.get("rent")
    return np.full(busy.shape, np.nan if rent is None else rent)


def usd_per_token(tokens_per_s_per_chip: Floats | float, busy_fraction: Floats | float, *, chip: Chip,
                  price_usd: float | None = None, tariff: Tariff = DEFAULT_TARIFF) -> Floats:
    """usd for one token at that rate per chip; NaN when neither price nor rent is known."""
    rate = np.asarray(tokens_per_s_per_chip, dtype=np.float64)
    return np.asarray(chip_usd_per_s(busy_fraction, chip=chip, price_usd=price_usd, tariff=tariff) / rate)


def break_even_price_usd(rival_usd_per_token: Floats | float, tokens_per_s_per_chip: Floats | float,
                         busy_fraction: Floats | float, *, chip: Chip, tariff: Tariff = DEFAULT_TARIFF) -> Floats:
    """Chip price at which a token costs what the rival's costs, usd; negative when electricity alone costs more."""
    allowed_usd_per_s = np.asarray(rival_usd_per_token) * np.asarray(tokens_per_s_per_chip)
    for_capital_usd_per_s = allowed_usd_per_s - electricity_usd_per_s(busy_fraction, chip=chip, tariff=tariff)
    return np.asarray(for_capital_usd_per_s * tariff.lifetime_s * tariff.in_use_fraction / tariff.capital_ratio)


def break_even_rent_usd_per_s(rival_usd_per_token: Floats | float, tokens_per_s_per_chip: Floats | float) -> Floats:
    """Rent of one chip at which a token costs what the rival's costs, usd/s."""
    return np.asarray(np.asarray(rival_usd_per_token) * np.asarray(tokens_per_s_per_chip), dtype=np.float64)


def cost_of(tokens_per_s_per_chip: float, busy_fraction: float, *, chip: Chip,
            tariff: Tariff = DEFAULT_TARIFF) -> Cost:
    """Money and energy of a token on one chip, with what is unknown said so."""
    has_price = chip.get("price") is not None
    basis = "owned" if has_price else "rented" if chip.get("rent") is not None else "unknown"
    needed = ("price", "board_power") if basis == "owned" else ("board_power",) if basis == "rented" \
        else ("price", "rent", "board_power")
    behind = {"owned": ("price", "board_power", "idle_power"), "rented": ("rent",)}.get(basis, ())
    statuses = [chip.figures[name].status for name in behind if name in chip.figures]
    statuses += [tariff.status] if basis == "owned" else []
    watts = float(power_w(busy_fraction, chip=chip, tariff=tariff))
    return Cost(usd_per_million_tokens=1e6 * float(usd_per_token(tokens_per_s_per_chip, busy_fraction, chip=chip,
                                                                 tariff=tariff)),
                basis=basis, status=max(statuses, key=_STATUS_ORDER.index) if statuses else "unknown",
                tokens_per_j=tokens_per_s_per_chip / (watts * tariff.pue), power_w=watts,
                unknown=unknown_figures(chip, needed))
