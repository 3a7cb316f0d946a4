"""Read rates of failure with their provenance: a table of the catalogue, or a user's file of the same form.

A table names, per fault, a rate and, where known, detection, repair and its spread; `facts` name the component.
"""

from __future__ import annotations

from typing import Any

from serried.catalogue import read_entry
from serried.clock import nanoseconds
from serried.errors import BadInput
from serried.simulation.spec import Fault

__all__ = ["RELIABILITY_FIGURES", "read_faults"]

RELIABILITY_FIGURES = {"rate": "1/s", "detection": "s", "repair": "s", "repair_spread": "1", "pace": "1"}


def read_faults(name_or_path: str, *, scale: float = 1.0) -> tuple[Fault, ...]:
    """Every fault of a table, its rates times `scale`. Raises BadInput naming file and figure."""
    entry = read_entry("reliability", name_or_path, RELIABILITY_FIGURES)
    components: Any = entry.facts.get("components", {})
    if not isinstance(components, dict) or not components:
        raise BadInput(file=entry.file, field="facts.components", value=components,
                       expected='fault to component, e.g. { board = "node" }', remedy="Name what each fault is of.")
    found = []
    for fault, component in components.items():
        rate = entry.figures.get(f"rate.{fault}")
        if rate is None:
            raise BadInput(file=entry.file, field=f'figures."rate.{fault}"', value=None,
                           expected="failures of one component per time", remedy="Give it, with its source.")
        figures = {name: entry.figures[key].value for name in RELIABILITY_FIGURES
                   if (key := f"{name}.{fault}") in entry.figures}
        found.append(Fault(
            name=fault, component=str(component), rate_per_s=rate.value * scale,
            detection_ns=nanoseconds(figures.get("detection", 0.0)),
            repair_median_ns=nanoseconds(figures.get("repair", 0.0)),
            repair_spread=figures.get("repair_spread", 0.0), effect="slow" if "pace" in figures else "down",
            pace=figures.get("pace", 1.0), status=rate.status, source=rate.source))
    return tuple(found)
