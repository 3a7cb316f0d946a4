"""`serried catalogue KIND [NAME]`: what is known, from whom, and how surely."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from serried.catalogue import Entry, names_of, read_entry
from serried.display.terminal import console, table
from serried.errors import BadInput, nearest
from serried.units import format_quantity

__all__ = ["command"]


def command(
    kind: Annotated[str, typer.Argument(help="chips, fabrics, fleets, models or stacks")],
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
        print(json.dumps({"schema": "serried/catalogue/1", "kind": kind, "entries": answer, "timing": timing}))
    elif name:
        _print_one(next(iter(answer.values())))
    else:
        _print_list(kind, answer)


def _chip(name: str) -> dict[str, Any]:
    from serried.silicon import CHIP_FIGURES

    return _entry(read_entry("chips", name, CHIP_FIGURES))


def _raw(kind: str) -> Callable[[str], dict[str, Any]]:
    def show(name: str) -> dict[str, Any]:
        return _entry(read_entry(kind, name, {}))
    return show


def _model(name: str) -> dict[str, Any]:
    from serried.workload import parameters, read_model

    model, counted = read_model(name), None
    counted = parameters(model)
    return {"name": model.name, "aliases": [], "facts": {
        "layers": model.layer_count, "hidden": model.hidden, "vocabulary": model.vocab,
        "parameters": counted.total, "active_parameters": counted.active,
        "tied_embeddings": model.tied_embeddings, "source": model.source}, "figures": {}}


_SHOW: dict[str, Callable[[str], dict[str, Any]]] = {
    "chips": _chip, "fabrics": _raw("fabrics"), "fleets": _raw("fleets"), "models": _model, "stacks": _raw("stacks")}


def _entry(entry: Entry) -> dict[str, Any]:
    return {"name": entry.name, "aliases": list(entry.aliases), "facts": dict(entry.facts),
            "figures": {name: {"value": figure.value, "unit": figure.unit, "status": figure.status,
                               "source": figure.source, "spread": figure.spread}
                        for name, figure in entry.figures.items()},
            "tables": {key: value for key, value in entry.tables.items() if key != "config"}}


def _print_one(entry: dict[str, Any]) -> None:
    screen = console()
    aliases = f"  (also {', '.join(entry['aliases'])})" if entry["aliases"] else ""
    screen.print(f"[bold]{entry['name']}[/bold]{aliases}")
    for key, value in entry["facts"].items():
        screen.print(f"  {key}: {value:,}" if isinstance(value, int) and not isinstance(value, bool)
                     else f"  {key}: {value}", markup=False)
    if entry["figures"]:
        screen.print(table("", ("figure", "value", "status", "spread", "source"), [
            (name, format_quantity(figure["value"], figure["unit"], digits=4), figure["status"],
             f"±{figure['spread']:.0%}" if figure["spread"] else "", figure["source"])
            for name, figure in entry["figures"].items()]))
    for key, value in entry.get("tables", {}).items():
        screen.print(f"  {key}:", markup=False)
        for row in value if isinstance(value, list) else [value]:
            screen.print(f"    {row}", markup=False)


def _print_list(kind: str, answer: dict[str, dict[str, Any]]) -> None:
    rows = [(stem, entry["name"], _gist(entry)) for stem, entry in answer.items()]
    console().print(table(f"{len(rows)} {kind}", ("name", "full name", "in short"), rows, left=3))


def _gist(entry: dict[str, Any]) -> str:
    figures = entry["figures"]
    if figures:
        shown = [format_quantity(figures[key]["value"], figures[key]["unit"]) + mark for key, mark in (
            ("matrix_peak.bf16", " bf16"), ("hbm_capacity", ""), ("hbm_bandwidth", "")) if key in figures]
        return ", ".join(shown) or "no figures published"
    facts = entry["facts"]
    if "parameters" in facts:
        return f"{facts['parameters'] / 1e9:.4g} B parameters, {facts['layers']} layers of {facts['hidden']}"
    tables = entry.get("tables", {})
    tiers = [f"{tier.get('name')} x{tier.get('group_size') or '∞'}" for tier in tables.get("tier", [])]
    pools = [f"{pool.get('chip')} x{pool.get('count')}" for pool in tables.get("pool", [])]
    return ", ".join(tiers or pools) or str(facts.get("kind", ""))
