"""Read a fleet: `CHIP:COUNT`, a fleet file, or a fleet of the catalogue."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from serried.catalogue import names_of, read_entry
from serried.errors import BadInput
from serried.fabric.spec import Fabric, Fleet, Pool
from serried.fabric.tables import read_fabric
from serried.silicon import read_chip

__all__ = ["read_fleet"]

_POOL_KEYS = {"chip", "fabric", "count"}


def read_fleet(text: str, fabric_of: Callable[[str], Fabric] = read_fabric) -> Fleet:
    """`text` is "CHIP:COUNT" (on the chip's own fabric), a path to a fleet file, or a name in the catalogue.

    fabric_of: how a fabric is read from its name or path (a floor above knows more kinds of files).
    Raises BadInput for an unknown chip (with the nearest names), a count that is not a positive whole number, and a
    count beyond one node that does not fill whole nodes.
    """
    chip_name, colon, count = text.rpartition(":")
    if colon and not text.endswith(".toml"):
        return Fleet(name=text, pools=(_pool({"chip": chip_name, "count": _whole(count)}, "--fleet", "", fabric_of),))
    if not text.endswith(".toml") and not Path(text).is_file() and text not in names_of("fleets"):
        _refuse_bare_chip(text)
    entry = read_entry("fleets", text, {})
    rows = entry.tables.get("pool", [])
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise BadInput(file=entry.file, field="pool", value=rows, expected="at least one [[pool]] table",
                       remedy='Write [[pool]] with chip = "...", count = 1024 and, optionally, fabric = "...".')
    pools = tuple(_pool(row, f"pool[{position}]", entry.file, fabric_of) for position, row in enumerate(rows))
    return Fleet(name=entry.name, pools=pools, file=entry.file)


def _refuse_bare_chip(text: str) -> None:
    """A chip without a count is the likeliest slip; say what to write instead of listing fleets."""
    try:
        chip = read_chip(text)
    except BadInput:
        return
    raise BadInput(field="--fleet", value=text, expected="CHIP:COUNT, a fleet of the catalogue, or a fleet file",
                   remedy=f"{chip.name} is a chip: say how many, e.g. {text}:8.")


def _whole(text: str) -> object:
    digits = text.strip().replace("_", "").replace(",", "")
    return int(digits) if re.fullmatch(r"\d{1,9}", digits) else text


def _pool(row: Mapping[str, Any], where: str, file: str, fabric_of: Callable[[str], Fabric]) -> Pool:
    unknown = set(row) - _POOL_KEYS
    if unknown:
        raise BadInput(file=file, field=f"{where}.{min(unknown)}", value=row[min(unknown)],
                       expected=f"one of {', '.join(sorted(_POOL_KEYS))}", remedy="Remove it or correct its name.")
    if not isinstance(row.get("chip"), str) or not row["chip"].strip():
        raise BadInput(file=file, field=f"{where}.chip", value=row.get("chip"), expected="the name of a chip",
                       remedy="Write CHIP:COUNT; `serried catalogue chips` lists the chips.")
    count = row.get("count")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise BadInput(file=file, field=f"{where} count", value=count, expected="a positive whole number of chips",
                       remedy=f"Write for example {row['chip']}:8.")
    chip = read_chip(_beside(row["chip"], file))
    fabric_name = row.get("fabric", chip.fabric)
    if not isinstance(fabric_name, str) or not fabric_name:
        raise BadInput(file=file or chip.file, field=f"{where}.fabric", value=fabric_name, expected="a fabric's name",
                       remedy=f"{chip.name} names no fabric of its own: give one in a fleet file, "
                              "[[pool]] chip = \"...\", fabric = \"...\", count = 8.")
    fabric = fabric_of(_beside(fabric_name, file) if "fabric" in row else _beside(fabric_name, chip.file))
    _check_whole_nodes(count, fabric, where, file)
    return Pool(chip=chip, fabric=fabric, chip_count=count)


def _beside(name: str, file: str) -> str:
    """A relative path in a file is meant from that file's folder, if it is there."""
    sibling = Path(file).parent / name if file and name.endswith(".toml") else None
    return str(sibling) if sibling is not None and sibling.is_file() else name


def _check_whole_nodes(count: int, fabric: Fabric, where: str, file: str) -> None:
    """Beyond one node, chips come in whole nodes; a torus is cut into slices of any legal shape instead."""
    node = fabric.node_size
    if node == 0 or count <= node or count % node == 0 or fabric.tiers[0].kind in ("torus", "ring") or node > 64:
        return
    below, above = count // node * node, -(-count // node) * node
    raise BadInput(file=file, field=f"{where} count", value=count,
                   expected=f"whole nodes of {node} chips beyond one node",
                   remedy=f"Take {below} or {above}, or up to {node} chips of one node.")
