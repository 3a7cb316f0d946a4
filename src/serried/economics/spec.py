"""Nouns of the money: what a fleet pays for besides its chips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serried.catalogue import Status
from serried.silicon import Chip

__all__ = ["DEFAULT_TARIFF", "Cost", "Tariff", "unknown_figures"]

_YEAR_S = 365.25 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """Terms on which chips are owned and fed.

    electricity_usd_per_j: price of energy at the meter. pue: energy at the meter over energy of the machines.
    lifetime_s: over which the capital is written off, without interest. in_use_fraction: share of that time the fleet
    works. capital_ratio: everything bought with a chip (host, network, building) over the chip's own price, plus one.
    idle_power_ratio: idle over board power, for chips that do not publish an idle power.
    """

    electricity_usd_per_j: float = 0.08 / 3.6e6
    pue: float = 1.3
    lifetime_s: float = 4.0 * _YEAR_S
    in_use_fraction: float = 0.8
    capital_ratio: float = 1.5
    idle_power_ratio: float = 0.2
    status: Status = "assumed"
    source: str = "0.08 usd/kWh, PUE 1.3, four years straight line at 80 % use, hosts and network half the chips again"


DEFAULT_TARIFF = Tariff()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a million tokens cost on one side, and how surely it is known; NaN where a figure is unknown.

    basis: "owned" (price written off plus electricity), "rented", or "unknown". status: the weakest status behind it.
    tokens_per_j: tokens for one joule at the meter. unknown: figures that nobody gave.
    """

    usd_per_million_tokens: float
    basis: str
    status: str
    tokens_per_j: float
    power_w: float
    unknown: tuple[str, ...] = ()


def unknown_figures(chip: Chip, figures: Sequence[str]) -> tuple[str, ...]:
    """Which of `figures` the chip does not give."""
    return tuple(figure for figure in figures if chip.get(figure) is None)
