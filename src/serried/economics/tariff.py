"""Read the terms on which chips are owned and fed: the shipped defaults, or a user's file of the same form."""

from __future__ import annotations

from collections.abc import Mapping

from serried.catalogue import STATUSES, Status, read_entry
from serried.economics.spec import Tariff
from serried.errors import BadInput

__all__ = ["TARIFF_FIGURES", "read_tariff"]

#: Figure of the file: base unit, the tariff's field, and the range that is believed.
TARIFF_FIGURES: Mapping[str, tuple[str, str, float, float]] = {
    "electricity_price": ("usd/J", "electricity_usd_per_j", 1e-10, 1e-6),
    "pue": ("1", "pue", 1.0, 5.0),
    "lifetime": ("s", "lifetime_s", 2.6e6, 1.6e9),
    "in_use_fraction": ("1", "in_use_fraction", 0.01, 1.0),
    "capital_ratio": ("1", "capital_ratio", 1.0, 20.0),
    "idle_power_ratio": ("1", "idle_power_ratio", 0.0, 1.0),
}


def read_tariff(name_or_path: str = "defaults") -> Tariff:
    """The tariff called so in the catalogue, or in the file at that path; figures it lacks keep the default.

    The status is the weakest of its figures. Raises BadInput naming file and figure.
    """
    entry = read_entry("prices", name_or_path, {name: unit for name, (unit, *_) in TARIFF_FIGURES.items()})
    values: dict[str, float] = {}
    for name, figure in entry.figures.items():
        _, column, low, high = TARIFF_FIGURES[name]
        if not low <= figure.value <= high:
            raise BadInput(file=entry.file, field=f"figures.{name}.value", value=figure.value,
                           expected=f"{low:g} to {high:g} in {figure.unit}",
                           remedy="Check the unit of the figure.")
        values[column] = figure.value
    statuses: list[Status] = [figure.status for figure in entry.figures.values()] or ["assumed"]
    status = max(statuses, key=STATUSES.index)
    source = "; ".join(f"{name}: {figure.source}" for name, figure in entry.figures.items())
    return Tariff(status=status, source=source or entry.name, **values)
