"""What the catalogue looks like: a list in short, or one entry with the provenance of every figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from serried.display.terminal import table
from serried.units import format_quantity

__all__ = ["print_entry", "print_list"]

_ALIASES = 8
#: Whole numbers from here on are set in groups of three: a year is not.
_GROUPED = 10_000
_GIST = (("matrix_peak.bf16", " bf16"), ("matrix_peak.fp16", " fp16"), ("matrix_peak.int8", " int8"))


def print_entry(entry: Mapping[str, Any], screen: Console) -> None:
    """One entry: names, facts, figures with provenance, then what nests in it as tables."""
    facts, tables = dict(entry["facts"]), dict(entry.get("tables", {}))
    title = facts.pop("title", "")
    screen.print(f"[bold]{entry['name']}[/bold]" + (f"  {title}" if title and title != entry["name"] else ""))
    if entry["aliases"]:
        more = f" and {len(entry['aliases']) - _ALIASES} more" if len(entry["aliases"]) > _ALIASES else ""
        screen.print(f"  also called: {'; '.join(entry['aliases'][:_ALIASES])}{more}", markup=False)
    for key, value in facts.items():
        screen.print(f"  {key.replace('_', ' ')}: {_fact(value)}", markup=False)
    if entry["figures"]:
        screen.print(_figures(entry["figures"]))
    for key, draw in _TABLES.items():
        if key in tables:
            draw(tables.pop(key), screen)
    kernels = {key: value for key, value in tables.items() if isinstance(value, dict)}
    if kernels:
        screen.print(_kernels(kernels))


def print_list(kind: str, answer: Mapping[str, Mapping[str, Any]], screen: Console) -> None:
    """Every entry of a kind: its name, its name for people, and what it amounts to."""
    rows = [(stem, str(entry["facts"].get("title", entry["name"])), _gist(kind, entry))
            for stem, entry in answer.items()]
    made = table(f"{len(rows)} {kind}", ("name", "full name", "in short"), rows, left=3)
    made.columns[0].no_wrap = True
    screen.print(made)


def _fact(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and value >= _GROUPED else str(value)


def _figures(figures: Mapping[str, Mapping[str, Any]], title: str = "") -> Table:
    made = table(title, ("figure", "value", "status", "spread", "source"), [
        (name, format_quantity(figure["value"], figure["unit"], digits=4), figure["status"],
         f"±{figure['spread']:.0%}" if figure["spread"] else "", figure["source"]) for name, figure in figures.items()])
    made.columns[0].no_wrap = made.columns[1].no_wrap = True
    made.columns[2].justify = made.columns[4].justify = "left"
    return made


def _tiers(tiers: Sequence[Mapping[str, Any]], screen: Console) -> None:
    """Tiers as a table, then the provenance of their figures."""
    rows, figures = [], dict[str, Mapping[str, Any]]()
    for tier in tiers:
        given = {key: value for key, value in tier.items() if isinstance(value, dict)}
        figures |= {f"{tier['name']}.{key}": value for key, value in given.items()}
        shape = " x ".join(map(str, tier["dimensions"])) if tier.get("dimensions") else ""
        rows.append((str(tier["name"]), str(tier["kind"]) + (f" {shape}" if shape else ""),
                     f"{tier['group_size']:,}" if tier["group_size"] else "any number",
                     *(format_quantity(given[key]["value"], given[key]["unit"]) if key in given else other
                       for key, other in (("bandwidth", "unknown"), ("latency", "unknown"), ("oversubscription", "1"))),
                     "yes" if tier.get("in_network_reduction") else "no"))
    screen.print(table("Tiers, from the inside out (bandwidth per chip and direction, latency one hop one way)",
                       ("tier", "kind", "chips together", "bandwidth", "latency", "oversubscription",
                        "adds in the switch"), rows, left=2))
    screen.print(_figures(figures, "Where these figures come from"))


def _pools(pools: Sequence[Mapping[str, Any]], screen: Console) -> None:
    screen.print(table("Pools of equal chips", ("chip", "fabric", "chips"), [
        (str(pool.get("chip")), str(pool.get("fabric", "the chip's own")), f"{pool.get('count', 0):,}")
        for pool in pools], left=2))


def _stack_fits(fits: Sequence[Mapping[str, Any]], screen: Console) -> None:
    """Parameters down, families of chips across: value ± half-width of the 80 % interval."""
    families = [f"{'any' if fit['chip_family'] == '*' else fit['chip_family']}" for fit in fits]
    meanings: dict[str, Mapping[str, Any]] = {}
    for fit in fits:
        meanings |= fit["parameters"]
    status = [", ".join(dict.fromkeys(one["status"] for one in fit["parameters"].values())) for fit in fits]
    rows = [["rows fitted", *(f"{fit['rows']:,}" for fit in fits)], ["status", *status]]
    rows += [[name, *(_parameter(fit["parameters"].get(name)) for fit in fits)] for name in meanings]
    screen.print(table("Parameters by family of chips (± half of the 80 % interval)", ("parameter", *families), rows))
    screen.print(table("What they mean", ("parameter", "meaning"),
                       [(name, told["description"]) for name, told in meanings.items()], left=2))
    sources = {f"{family}: {one['source']}" for family, fit in zip(families, fits, strict=True)
               for one in fit["parameters"].values() if one["source"]}
    for source in sorted(sources):
        screen.print(f"  source, {source}", markup=False)


def _parameter(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "perfect"
    value, spread = (format_quantity(one[key], one["unit"]) if one["unit"] != "1" or key == "value" else
                     f"{one[key]:.2g}" for key in ("value", "spread"))
    return f"{value} ±{spread}" if one["spread"] else value


def _kernels(families: Mapping[str, Mapping[str, Any]]) -> Table:
    """Which library's kernels stand behind each family and variant, and how well they were fitted."""
    rows = []
    for family, variants in families.items():
        for variant, told in variants.items():
            fit = told.get("fit", {}) if isinstance(told, dict) else {}
            known = fit.get("rows", 0) > 0
            library = " ".join(filter(None, (fit.get("library", ""), fit.get("release", ""))))
            rows.append((f"{family}.{variant}", library, f"{fit.get('rows', 0):,}",
                         f"{fit['median_error']:.1%}" if known else "–",
                         f"{fit['p90_error']:.1%}" if known else "–", str(fit.get("source", ""))))
    made = table("Kernels: whose, and the error of the fit on the rows fitted (`serried evidence` has the others)",
                 ("kernel", "library", "rows", "median", "p90", "source"), rows, left=2)
    made.columns[0].no_wrap, made.columns[5].justify = True, "left"
    return made


_TABLES = {"tier": _tiers, "pool": _pools, "fit": _stack_fits}


def _gist(kind: str, entry: Mapping[str, Any]) -> str:
    figures, facts, tables = entry["figures"], entry["facts"], entry.get("tables", {})
    if kind == "chips":
        peak = next(((name, mark) for name, mark in _GIST if name in figures), None)
        shown = [format_quantity(figures[key]["value"], figures[key]["unit"]) + mark for key, mark in (
            *((peak,) if peak else ()), ("hbm_capacity", ""), ("hbm_bandwidth", "")) if key in figures]
        missing = [] if {"hbm_capacity", "hbm_bandwidth"} & set(figures) else ["memory unknown"]
        return ", ".join(shown + missing) if figures else "no figures published"
    if "parameters" in facts:
        return f"{facts['parameters'] / 1e9:.4g} B parameters, {facts['layers']} layers of {facts['hidden']:,}"
    if kind == "fabrics":
        return ", ".join(f"{tier['name']} x{tier['group_size'] or '∞'}" for tier in tables.get("tier", []))
    if kind == "fleets":
        return ", ".join(f"{pool.get('chip')} x{pool.get('count', 0):,}" for pool in tables.get("pool", []))
    if kind == "stacks":
        fits = tables.get("fit", [])
        return f"{facts.get('kind', '')}; " + ", ".join(
            f"{'any chip' if fit['chip_family'] == '*' else fit['chip_family']} ({fit['rows']} rows)" for fit in fits)
    if kind == "profiles":
        speaks = facts.get("chips") or facts.get("chip_families") or ()
        return f"{', '.join('any family' if name == '*' else name for name in speaks)}: {', '.join(tables)}"
    return str(facts.get("notes") or facts.get("source") or facts.get("evidence_class", ""))[:90]
