"""Read one named table: shipped under `serried/data/<kind>/`, or a user's file of the same form.

The form, the same for every kind:

    schema = "serried/chip/1"
    name = "my-chip"
    aliases = ["My Chip 64 GB", "mychip_oam"]

    [facts]                      # plain words and whole numbers
    vendor = "..."

    [figures]                    # numbers with provenance, flat, dotted names for families
    hbm_bandwidth = { value = "3.35 TB/s", status = "specified", source = "..." }
    "matrix_peak.bf16" = { value = "989.4 TFLOP/s", status = "specified", source = "..." }
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serried.catalogue.spec import STATUSES, Figure
from serried.errors import BadInput, nearest
from serried.units import parse_quantity

__all__ = ["DATA", "Entry", "figure_of", "fold", "locate", "names_of", "read_entry", "read_toml"]

DATA = Path(__file__).resolve().parent.parent / "data"
_SINGULAR = {"chips": "chip", "fabrics": "fabric", "fleets": "fleet", "models": "model", "stacks": "stack",
             "profiles": "profile", "prices": "price", "collectives": "collective", "engines": "engine",
             "reliability": "reliability"}
_LETTERS = re.compile(r"[^\W_]|(?<=\d)\.(?=\d)")
_FIGURE_KEYS = {"value", "status", "source", "spread"}
_MOST_TEXT = 2_000_000   # bytes; no table of this form is larger


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One table as read: `facts` in plain words, `figures` with provenance, `tables` for what nests."""

    kind: str
    name: str
    aliases: tuple[str, ...]
    file: str
    facts: Mapping[str, Any]
    figures: Mapping[str, Figure]
    tables: Mapping[str, Any]


def read_entry(kind: str, name_or_path: str, units: Mapping[str, str]) -> Entry:
    """The entry of `kind` ("chips", "fabrics", ...) called `name_or_path`, or the file at that path.

    A model's name may carry an organisation before a slash; it is looked up with and without.
    units: base unit of each figure by its name; a dotted figure ("matrix_peak.bf16") is looked up by its family
    ("matrix_peak"). A figure that is not in `units` is refused, so that a misspelt one is not lost in silence.
    Raises BadInput with the nearest names when nothing is called so.
    """
    path = locate(kind, name_or_path)
    raw = read_toml(path)
    known = {"schema", "name", "aliases", "facts", "figures"}
    expected_schema = f"serried/{_SINGULAR[kind]}/1"
    if raw.get("schema") != expected_schema:
        raise BadInput(file=str(path), field="schema", value=raw.get("schema"), expected=repr(expected_schema),
                       remedy=f'Begin the file with schema = "{expected_schema}".')
    if not isinstance(raw.get("name"), str) or not fold(raw["name"]):
        raise BadInput(file=str(path), field="name", value=raw.get("name"), expected="a text with a letter or digit",
                       remedy='Give the entry a name, e.g. name = "my-chip".')
    figures = {name: figure_of(name, table, units, path) for name, table in _table(raw, "figures", path).items()}
    return Entry(kind=kind, name=raw["name"], aliases=_aliases(raw, path), file=str(path),
                 facts=_table(raw, "facts", path), figures=figures,
                 tables={key: value for key, value in raw.items() if key not in known})


def names_of(kind: str) -> list[str]:
    """File stems of every shipped entry of a kind, sorted; these are the canonical names on the command line."""
    return sorted(path.stem for path in (DATA / kind).glob("*.toml"))


def meant_by(kind: str, words: str) -> str:
    """The shipped entry of which a longer name speaks, e.g. what a driver calls a device: every part of the entry's
    name is a word of it, and no other entry has more of them there. "" where none or several do."""
    said = set(re.split(r"[^a-z0-9]+", words.casefold()))
    parts = {name: len(set(name.split("-"))) for name in names_of(kind) if said.issuperset(name.split("-"))}
    best = [name for name, count in parts.items() if count == max(parts.values())]
    return best[0] if len(best) == 1 else ""


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dictionary; BadInput with line and column when it is not TOML."""
    try:
        if path.stat().st_size > _MOST_TEXT:
            raise BadInput(file=str(path), field="file", value=path.name, expected="a table of at most 2 MB",
                           remedy="Give the file that describes the entry.")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise BadInput(file=str(path), field="file", value=path.name, expected="tables that nest a few levels deep",
                       remedy="Flatten the file.") from None
    except OSError as error:
        raise BadInput(file=str(path), field="file", value=path.name, expected="a readable file",
                       remedy=str(error)) from None
    except ValueError as error:   # not TOML, not UTF-8, or a number beyond what can be read
        raise BadInput(file=str(path), field="file", value=path.name, expected="valid TOML in UTF-8",
                       remedy=str(error)) from None


def fold(name: str) -> str:
    """How names compare: case, blanks, underscores and hyphens do not matter; nor do dots, except between digits.

    A dot between digits is a decimal point: "GPT3-1.3B" is not "GPT3-13B".
    """
    return "".join(_LETTERS.findall(name.casefold()))


def figure_of(name: str, table: Any, units: Mapping[str, str], path: Path) -> Figure:
    """One figure with its provenance from its inline table; BadInput names the file and the figure."""
    unit = units.get(name) or units.get(name.partition(".")[0])
    if unit is None:
        near = nearest(name, units)
        raise BadInput(file=str(path), field=f"figures.{name}", value=table, expected="a figure of this kind of entry",
                       remedy=f"Nearest: {', '.join(near)}." if near else f"Known: {', '.join(units)}.")
    if not isinstance(table, dict) or "value" not in table or not set(table) <= _FIGURE_KEYS:
        raise BadInput(file=str(path), field=f"figures.{name}", value=table,
                       expected='{ value = "...", status = "...", source = "..." }, optionally with spread',
                       remedy="Give each figure its provenance.")
    if table.get("status") not in STATUSES:
        raise BadInput(file=str(path), field=f"figures.{name}.status", value=table.get("status"),
                       expected=f"one of {', '.join(STATUSES)}", remedy="Say how surely the figure is known.")
    if not isinstance(table.get("source"), str) or not table["source"].strip():
        raise BadInput(file=str(path), field=f"figures.{name}.source", value=table.get("source"),
                       expected="a text that names who says so",
                       remedy='Give the source, e.g. source = "data sheet 2024".')
    value = parse_quantity(table["value"], unit, field=f"figures.{name}.value", file=str(path))
    if value <= 0:
        raise BadInput(file=str(path), field=f"figures.{name}.value", value=table["value"],
                       expected="a positive quantity", remedy="Leave out what is unknown.")
    spread = parse_quantity(table.get("spread", 0.0), "1", field=f"figures.{name}.spread", file=str(path))
    if not 0 <= spread < 10:
        raise BadInput(file=str(path), field=f"figures.{name}.spread", value=table["spread"],
                       expected="a fraction from 0 to 10", remedy="Write 0.1 for an 80 % interval of ±10 %.")
    return Figure(value=value, unit=unit, status=table["status"], source=table["source"], spread=spread)


def locate(kind: str, name_or_path: str) -> Path:
    """The file of the entry called so, or the path itself; BadInput with the nearest names."""
    if name_or_path.endswith(".toml") or ("/" in name_or_path and _is_file(name_or_path)):
        return Path(name_or_path)
    plain = _plain(kind, name_or_path)
    for name in (name_or_path, plain):
        canonical = DATA / kind / f"{name.casefold()}.toml"
        if fold(name) and "/" not in name and _is_file(str(canonical)):   # no other file needs to be read
            return canonical
    index = _index(kind)
    for name in (name_or_path, plain):
        if fold(name) in index:
            return index[fold(name)]
    near = nearest(plain, names_of(kind))
    raise BadInput(field=_SINGULAR[kind], value=name_or_path, expected=f"one of the catalogue's {kind}",
                   remedy=(f"Nearest: {', '.join(near)}. " if near else "")
                   + f"`serried catalogue {kind}` lists them; a path to a file of the same form works too.")


def _plain(kind: str, name: str) -> str:
    """A model's name without its organisation; of other kinds a slash is part of the name."""
    return name.rpartition("/")[2] if kind == "models" else name


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):   # a name too long, or with a null byte, is no file
        return False


@functools.cache
def _index(kind: str) -> dict[str, Path]:
    """Folded name or alias, with and without organisation, to file. Aliases stand in the entries and nowhere else."""
    found: dict[str, Path] = {}
    for path in sorted((DATA / kind).glob("*.toml")):
        raw = read_toml(path)
        for name in (path.stem, raw.get("name", path.stem), *_aliases(raw, path)):
            for spelling in {fold(name), fold(_plain(kind, name))} - {""}:
                clash = found.setdefault(spelling, path)
                assert clash == path, f"{name!r} names both {clash.name} and {path.name}"
    return found


def _aliases(raw: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    aliases = raw.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        raise BadInput(file=str(path), field="aliases", value=aliases, expected="a list of texts",
                       remedy='Write for example aliases = ["My Chip"].')
    return tuple(aliases)


def _table(raw: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    table = raw.get(key, {})
    if not isinstance(table, dict):
        raise BadInput(file=str(path), field=key, value=table, expected="a table",
                       remedy=f"Write [{key}] on its own line.")
    return table
