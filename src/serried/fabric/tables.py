"""Read a fabric, and the collective library that drives it, from their tables."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from serried.catalogue import Entry, read_entry
from serried.catalogue.entry import figure_of
from serried.errors import BadInput, MissingFigure
from serried.fabric.spec import FABRIC_FIGURES, PARAMETER_UNITS, TIER_KINDS, CollectiveProfile, Fabric, Tier, TierKind

__all__ = ["read_collectives", "read_fabric"]

_TIER_KEYS = {"name", "kind", "group_size", "in_network_reduction", "dimensions", *FABRIC_FIGURES}
_PROFILE_FACTS = {"library", "inherits", "without", "evidence_class", "network_evidence_class", "spread", "source",
                  "notes"}
_CLASSES = ("kernel-calibrated chip", "same family", "data sheet only")


@functools.cache
def read_fabric(name_or_path: str, library: str | None = None) -> Fabric:
    """The fabric called so in the catalogue (any case, any alias), or the fabric file at that path.

    library: the collective library that drives it, by the name of its table; default: the one the fabric names.
    Raises BadInput naming file, tier and field when the table is not a fabric.
    """
    entry = read_entry("fabrics", name_or_path, FABRIC_FIGURES)
    rows = entry.tables.get("tier", [])
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise BadInput(file=entry.file, field="tier", value=rows, expected="at least one [[tier]] table",
                       remedy="List the levels of wires from the inside out, one [[tier]] each.")
    unknown = set(entry.tables) - {"tier"}
    if unknown:
        raise BadInput(file=entry.file, field=min(unknown), value=entry.tables[min(unknown)],
                       expected="[[tier]] tables", remedy="Remove it or correct its name.")
    tiers = tuple(_tier(row, position, Path(entry.file)) for position, row in enumerate(rows))
    _check_nesting(tiers, entry.file)
    profile = library or str(entry.facts.get("profile", "generic"))
    return Fabric(name=entry.name, tiers=tiers, profile=read_collectives(profile), file=entry.file,
                  notes=str(entry.facts.get("notes", "")), title=str(entry.facts.get("title", entry.name)),
                  aliases=entry.aliases)


def _tier(row: Mapping[str, Any], position: int, path: Path) -> Tier:
    name = str(row.get("name", position))
    where = f"tier.{name}"
    unknown = set(row) - _TIER_KEYS
    if unknown:
        raise BadInput(file=str(path), field=f"{where}.{min(unknown)}", value=row[min(unknown)],
                       expected=f"one of {', '.join(sorted(_TIER_KEYS))}", remedy="Remove it or correct its name.")
    if row.get("kind") not in TIER_KINDS:
        raise BadInput(file=str(path), field=f"{where}.kind", value=row.get("kind"),
                       expected=f"one of {', '.join(get_args(TierKind))}", remedy="Say what kind of wires these are.")
    group = row.get("group_size")
    if not isinstance(group, int) or isinstance(group, bool) or group < 0:
        raise BadInput(file=str(path), field=f"{where}.group_size", value=group,
                       expected="a whole number of chips, 0 = unbounded",
                       remedy="Count the chips that reach each other at this tier or below.")
    figures = {key: figure_of(key, row[key], FABRIC_FIGURES, path) for key in FABRIC_FIGURES if key in row}
    for key in ("bandwidth", "latency"):
        if key not in figures:
            raise MissingFigure(owner=name, file=str(path), field=f"{where}.{key}",
                                remedy=f"Give {key} = {{ value, status, source }} per chip and direction.")
    oversubscription = figures["oversubscription"].value if "oversubscription" in figures else 1.0
    if oversubscription < 1.0:
        raise BadInput(file=str(path), field=f"{where}.oversubscription", value=oversubscription,
                       expected="1 (full bisection) or more", remedy="Give chip-side over fabric-side bandwidth.")
    return Tier(name=name, kind=row["kind"], group_size=group, bandwidth_bytes_per_s=figures["bandwidth"].value,
                latency_s=figures["latency"].value, oversubscription=oversubscription,
                in_network_reduction=bool(row.get("in_network_reduction", False)),
                dimensions=_dimensions(row.get("dimensions", []), group, where, path), figures=figures)


def _dimensions(raw: Any, group: int, where: str, path: Path) -> tuple[int, ...]:
    product = 1
    for degree in raw if isinstance(raw, list) else [0]:
        product *= degree if isinstance(degree, int) and not isinstance(degree, bool) else 0
    if raw and product != group:
        raise BadInput(file=str(path), field=f"{where}.dimensions", value=raw,
                       expected=f"degrees of a torus whose product is group_size = {group}",
                       remedy="Write for example dimensions = [4, 4, 4] with group_size = 64.")
    return tuple(raw)


def _check_nesting(tiers: tuple[Tier, ...], file: str) -> None:
    for inner, outer in itertools.pairwise(tiers):
        if inner.group_size == 0 or (outer.group_size and outer.group_size < inner.group_size):
            raise BadInput(file=file, field=f"tier.{outer.name}.group_size", value=outer.group_size,
                           expected=f"at least the {inner.group_size} of the tier inside it",
                           remedy="List tiers from the inside out; only the outermost may be unbounded (0).")


@functools.cache
def read_collectives(name_or_path: str) -> CollectiveProfile:
    """The collective profile called so in the catalogue, or the file at that path, with what it inherits."""
    entry = read_entry("collectives", name_or_path, PARAMETER_UNITS)
    unknown = set(entry.facts) - _PROFILE_FACTS
    if unknown:
        raise BadInput(file=entry.file, field=f"facts.{min(unknown)}", value=entry.facts[min(unknown)],
                       expected=f"one of {', '.join(sorted(_PROFILE_FACTS))}", remedy="Remove it or correct its name.")
    parameters = _inherited(entry) | {name: figure.value for name, figure in entry.figures.items()}
    if "launch" not in parameters:
        raise MissingFigure(owner=entry.name, file=entry.file, field="figures.launch",
                            remedy="Give the time before the first byte moves, or say which profile it inherits.")
    evidence_class = _evidence_class(entry, "evidence_class", _CLASSES[-1])
    spread = entry.facts.get("spread", 0.4)
    if not isinstance(spread, (int, float)) or isinstance(spread, bool) or not 0 <= spread < 10:
        raise BadInput(file=entry.file, field="facts.spread", value=spread, expected="a fraction, e.g. 0.2",
                       remedy="Give the half-width of the 80 % interval as a fraction of the time.")
    return CollectiveProfile(name=entry.name, library=str(entry.facts.get("library", entry.name)),
                             parameters=parameters, spread=float(spread), evidence_class=evidence_class,
                             network_evidence_class=_evidence_class(entry, "network_evidence_class", evidence_class),
                             source=str(entry.facts.get("source", "")), file=entry.file)


def _evidence_class(entry: Entry, fact: str, otherwise: str) -> str:
    found = str(entry.facts.get(fact, otherwise))
    if found not in _CLASSES:
        raise BadInput(file=entry.file, field=f"facts.{fact}", value=found, expected=f"one of {', '.join(_CLASSES)}",
                       remedy="Say how surely the parameters are known.")
    return found


def _inherited(entry: Entry) -> dict[str, float]:
    """Parameters of the profile this one stands on, less the protocols it does without."""
    if "inherits" not in entry.facts:
        return {}
    without = {str(word) for word in entry.facts.get("without", [])}
    if entry.facts["inherits"] == entry.name:
        raise BadInput(file=entry.file, field="facts.inherits", value=entry.name, expected="another profile",
                       remedy="A profile cannot inherit from itself.")
    parent = read_collectives(str(entry.facts["inherits"]))
    return {name: value for name, value in parent.parameters.items() if not without & {name, *name.split(".")}}
