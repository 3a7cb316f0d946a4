"""What does it cost: joules, dollars, dollars per token, and the price at which two fleets are equal?

In: a chip with its power and prices, a tariff, and how fast it works. Out: arrays of joules and dollars. A figure that
nobody has published stays unknown: results are NaN and `unknown_figures` names what is missing.
"""

from serried.economics.cost import (
    break_even_price_usd,
    break_even_rent_usd_per_s,
    chip_usd_per_s,
    cost_of,
    usd_per_token,
)
from serried.economics.energy import energy_j, power_w
from serried.economics.spec import DEFAULT_TARIFF, Cost, Tariff, unknown_figures
from serried.economics.tariff import read_tariff

__all__ = [
    "DEFAULT_TARIFF", "Cost", "Tariff", "break_even_price_usd", "break_even_rent_usd_per_s", "chip_usd_per_s",
    "cost_of", "energy_j", "power_w", "read_tariff", "unknown_figures", "usd_per_token",
]
