"""`serried catalogue KIND [NAME]`: what is known, from whom, and how surely."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from serried.catalogue import Entry, Figure, names_of, read_entry
from serried.catalogue.entry import figure_of
from serried.display.catalogue import print_entry, print_list
from serried.display.plain import plain
from serried.display.terminal import console
from serried.errors import BadInput, nearest

__all__ = ["command"]


def command(
    kind: Annotated[str, typer.Argument(
        help="chips, fabrics, fleets, models, stacks, profiles, collectives or prices")],
    name: Annotated[str | None, typer.Argument(help="one entry, by name, alias or path")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="an answer for programs")] = False,
) -> None:
    """List a kind of entry, or show one with the provenance of every figure."""
    if kind not in _SHOW:
        raise BadInput(field="KIND", value=kind, expected=f"one of {', '.join(_SHOW)}",
                       remedy=f"Nearest: {', '.join(nearest(kind, _SHOW)) or 'chips'}.")
    started_s = time.perf_counter()
    names = [name] if name else names_of(kind)
    answer = {each: _SHOW[kind](each) for each in names}
    if as_json:
        timing = {"items": len(answer), "unit": "cases", "wall_s": time.perf_counter() - started_s}
        print(json.dumps(plain({"schema": "serried/catalogue/1", "kind": kind, "entries": answer, "timing": timing})))
    elif name:
        print_entry(next(iter(answer.values())), console())
    else:
        print_list(kind, answer, console())


def _chip(name: str) -> dict[str, Any]:
    from serried.silicon import CHIP_FIGURES, read_chip

    read_chip(name)   # refuses what is no chip
    return _entry(read_entry("chips", name, CHIP_FIGURES))


def _fabric(name: str) -> dict[str, Any]:
    from serried.fabric import read_fabric
    from serried.fabric.spec import FABRIC_FIGURES

    read_fabric(name)
    entry = read_entry("fabrics", name, FABRIC_FIGURES)
    tiers = [tier | _parsed(tier, FABRIC_FIGURES, entry) for tier in entry.tables.get("tier", [])]
    return _entry(entry) | {"tables": {"tier": tiers}}


def _fleet(name: str) -> dict[str, Any]:
    return _entry(read_entry("fleets", name, {}))


def _collective(name: str) -> dict[str, Any]:
    from serried.fabric.spec import PARAMETER_UNITS

    return _entry(read_entry("collectives", name, PARAMETER_UNITS))


def _price(name: str) -> dict[str, Any]:
    from serried.economics.tariff import TARIFF_FIGURES

    return _entry(read_entry("prices", name, {key: unit for key, (unit, *_) in TARIFF_FIGURES.items()}))


def _reliability(name: str) -> dict[str, Any]:
    from serried.simulation.reliability import RELIABILITY_FIGURES, read_faults

    read_faults(name)
    return _entry(read_entry("reliability", name, RELIABILITY_FIGURES))


def _profile(name: str) -> dict[str, Any]:
    from serried.compiler import read_profile

    read_profile(name)
    return _entry(read_entry("profiles", name, {}))


def _stack(name: str) -> dict[str, Any]:
    """A stack with its parameters as they are read: a value with spread, unit, status, source and meaning."""
    from serried.software import STACK_PARAMETERS, read_stack

    entry = read_entry("stacks", name, {})
    fits = []
    for raw in entry.tables.get("fit", [{}]):
        family = str(raw.get("chip_family", "*"))
        stack = read_stack(name, family)
        fits.append({"chip_family": family, "rows": stack.fitted_rows, "parameters": {
            key: {"value": stack[key], "spread": stack.spreads[key], "unit": spec.unit, "status": stack.status[key],
                  "source": raw[key].get("source", ""), "description": spec.description}
            for key, spec in STACK_PARAMETERS.items() if key in raw}})
    return _entry(entry) | {"tables": {"fit": fits}}


def _model(name: str) -> dict[str, Any]:
    from serried.workload import parameters, read_model

    model = read_model(name)
    counted = parameters(model)
    facts: dict[str, Any] = {
        "layers": model.layer_count, "hidden": model.hidden, "vocabulary": model.vocab,
        "parameters": counted.total, "active_parameters": counted.active, "tied_embeddings": model.tied_embeddings}
    aliases: list[str] = []
    if model.source.endswith(".toml"):
        entry = read_entry("models", model.source, {})
        aliases, facts = list(entry.aliases), facts | dict(entry.facts)
    return {"name": model.name, "aliases": aliases, "facts": facts, "figures": {}}


_SHOW: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "chips": _chip, "fabrics": _fabric, "fleets": _fleet, "models": _model, "stacks": _stack, "profiles": _profile,
    "collectives": _collective, "prices": _price, "reliability": _reliability}


def _entry(entry: Entry) -> dict[str, Any]:
    return {"name": entry.name, "aliases": list(entry.aliases), "facts": dict(entry.facts),
            "figures": {name: _figure(figure) for name, figure in entry.figures.items()},
            "tables": {key: value for key, value in entry.tables.items() if key != "config"}}


def _figure(figure: Figure) -> dict[str, Any]:
    return {"value": figure.value, "unit": figure.unit, "status": figure.status, "source": figure.source,
            "spread": figure.spread}


def _parsed(table: Mapping[str, Any], units: Mapping[str, str], entry: Entry) -> dict[str, Any]:
    """The figures among the keys of a table, in base units."""
    return {key: _figure(figure_of(key, table[key], units, Path(entry.file))) for key in units if key in table}
