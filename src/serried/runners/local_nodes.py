"""Which nodes this machine offers: itself as one, or whatever a file declares.

    [[node]]
    name = "left-{n}"                  # {n} counts from 0 where there are several
    count = 4                          # default 1
    kind = "cpu"                       # default "cpu"
    chips = 8
    cpu_cores = 8                      # default: all of the machine's, which its ranks share with other nodes'
    memory = "16 GiB"                  # default: all of the machine's, likewise
    switches = { leaf = "leaf-0", spine = ["spine-0", "spine-1"] }   # innermost first; a list is dealt out in blocks
    device_variables = ["MY_VISIBLE_DEVICES"]

Chips may be virtual, so that gangs of many ranks run on a laptop. Where the cores of all nodes together are no more
than the machine has, every node has cores of its own, and every chip its part of them.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serried.catalogue.entry import read_toml
from serried.errors import BadInput, nearest
from serried.runners.spec import Node
from serried.units import parse_quantity

__all__ = ["LocalNode", "read_local_nodes", "this_machine"]

_FIELDS = ("name", "count", "kind", "chips", "cpu_cores", "memory", "switches", "device_variables", "address")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST_NODES, _MOST_CHIPS = 1024, 64   # a node's chips are bits of one number


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalNode:
    """A node of this machine. cores: those that its chips stand for; empty = its ranks run on any."""

    node: Node
    cores: tuple[int, ...] = ()

    def cores_of(self, chips: Sequence[int]) -> tuple[int, ...]:
        """Cores of some of its chips, in equal parts; any where there are fewer cores than chips."""
        per_chip = len(self.cores) // self.node.chip_count if self.node.chip_count else 0
        return tuple(core for chip in chips for core in self.cores[chip * per_chip:(chip + 1) * per_chip])


def this_machine() -> tuple[LocalNode, ...]:
    """One node named after the host, a chip of kind "cpu" for every core that this process may use, 64 at most."""
    cores = tuple(sorted(os.sched_getaffinity(0)))
    chip_count = min(len(cores), _MOST_CHIPS)
    name = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).strip("-._")[:63] or "localhost"
    return (LocalNode(cores=cores if len(cores) == chip_count else (), node=Node(
        name=name, kind="cpu", chip_count=chip_count, cpu_milli=1000 * len(cores),
        memory_bytes=_machine_memory_bytes())),)


def _machine_memory_bytes() -> int:
    """Whole GiB: what the system says differs a little from boot to boot, and the fleet must not."""
    return max(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30, 1) << 30


def read_local_nodes(path: Path | str) -> tuple[LocalNode, ...]:
    """The nodes that a file declares; raises BadInput with the field, its value, what was expected, and the remedy."""
    words = read_toml(Path(path))
    unknown = set(words) - {"node"}
    if unknown:
        raise _bad(path, min(unknown), words[min(unknown)], "tables called [[node]] alone", "Remove it.")
    tables = words.get("node")
    if not isinstance(tables, list) or not tables or not all(isinstance(one, dict) for one in tables):
        raise _bad(path, "node", tables, "one or more tables [[node]]",
                   'Write [[node]], then name = "node-0" and chips = 8.')
    nodes = [node for place, table in enumerate(tables) for node in _nodes_of(table, f"node[{place}]", str(path))]
    names = [node.name for node in nodes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise _bad(path, "name", twice, "every node to have a name of its own", "Rename one of them.")
    if len(nodes) > _MOST_NODES:
        raise _bad(path, "count", len(nodes), f"at most {_MOST_NODES} nodes on one machine", "Declare fewer.")
    levels = {node.name: list(node.switches) for node in nodes}
    odd = next((name for name in names if levels[name] != levels[names[0]]), None)
    if odd is not None:
        raise _bad(path, f"switches of {odd}", levels[odd], f"the levels of {names[0]}, in its order: "
                   f"{levels[names[0]]}", "Give all nodes the same levels, innermost first.")
    return _with_cores(nodes)


def _with_cores(nodes: Sequence[Node]) -> tuple[LocalNode, ...]:
    free = sorted(os.sched_getaffinity(0))
    if sum(node.cpu_milli for node in nodes) > 1000 * len(free):
        return tuple(LocalNode(node=node) for node in nodes)   # they overlap: the system's scheduler knows better
    placed = []
    for node in nodes:
        count = node.cpu_milli // 1000
        placed.append(LocalNode(node=node, cores=tuple(free[:count])))
        free = free[count:]
    return tuple(placed)


def _nodes_of(table: Mapping[str, Any], where: str, file: str) -> list[Node]:
    for field in table:
        if field not in _FIELDS:
            close = nearest(field, _FIELDS, count=1)
            raise _bad(file, f"{where}.{field}", table[field], f"one of {', '.join(_FIELDS)}",
                       f"Did you mean {close[0]}?" if close else "Remove it.")
    count = _whole(table, "count", where, file, least=1, most=_MOST_NODES, default=1)
    names = _names(table, count, where, file)
    switches = _switches(table, count, where, file)
    variables = table.get("device_variables", [])
    if not isinstance(variables, list) or not all(isinstance(one, str) and _VARIABLE.fullmatch(one)
                                                  for one in variables):
        raise _bad(file, f"{where}.device_variables", variables, "names of environment variables in a list",
                   'Write for example ["MY_VISIBLE_DEVICES"].')
    memory = table.get("memory", _machine_memory_bytes())
    memory_bytes = parse_quantity(memory, "bytes", field=f"{where}.memory", file=file)
    if not 0 <= memory_bytes < 2**62:
        raise _bad(file, f"{where}.memory", memory, "0 or more bytes", 'Write for example "16 GiB".')
    return [Node(name=names[place], kind=_text(table, "kind", where, file, default="cpu"),
                 chip_count=_whole(table, "chips", where, file, least=1, most=_MOST_CHIPS),
                 cpu_milli=1000 * _whole(table, "cpu_cores", where, file, least=0, most=2**16,
                                         default=len(os.sched_getaffinity(0))),
                 memory_bytes=int(memory_bytes), device_variables=tuple(variables),
                 switches={level: dealt[place] for level, dealt in switches.items()},
                 address=_text(table, "address", where, file, default="127.0.0.1")) for place in range(count)]


def _names(table: Mapping[str, Any], count: int, where: str, file: str) -> list[str]:
    pattern = table.get("name")
    names = [pattern.replace("{n}", str(place)) for place in range(count)] if isinstance(pattern, str) else []
    if not names or not all(_NAME.fullmatch(name) for name in names):
        raise _bad(file, f"{where}.name", pattern, "1 to 63 letters, digits, '.', '_' or '-', the first no sign",
                   'Write for example name = "node-{n}".')
    if len(set(names)) < count:
        raise _bad(file, f"{where}.name", pattern, f"{{n}} in it, which numbers the {count} nodes",
                   f'Write for example name = "{pattern}-{{n}}".')
    return names


def _switches(table: Mapping[str, Any], count: int, where: str, file: str) -> dict[str, list[str]]:
    told = table.get("switches", {})
    if not isinstance(told, dict):
        raise _bad(file, f"{where}.switches", told, "a table of level and switch", 'Write { leaf = "leaf-0" }.')
    dealt = {}
    for level, switch in told.items():
        blocks = [switch] if isinstance(switch, str) else switch
        if not isinstance(blocks, list) or not blocks or not all(isinstance(one, str) and one for one in blocks):
            raise _bad(file, f"{where}.switches.{level}", switch, "the name of a switch, or a list of them",
                       'Write for example "leaf-0" or ["leaf-0", "leaf-1"].')
        if count % len(blocks):
            raise _bad(file, f"{where}.switches.{level}", switch, f"a number of switches that divides {count} nodes",
                       "Change the list or the count.")
        dealt[level] = [blocks[place * len(blocks) // count] for place in range(count)]
    return dealt


def _whole(table: Mapping[str, Any], field: str, where: str, file: str, *, least: int, most: int,
           default: int | None = None) -> int:
    value = table.get(field, default)
    if type(value) is not int or not least <= value <= most:
        raise _bad(file, f"{where}.{field}", value, f"a whole number from {least} to {most}",
                   f"Write for example {field} = 8.")
    return value


def _text(table: Mapping[str, Any], field: str, where: str, file: str, *, default: str) -> str:
    value = table.get(field, default)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise _bad(file, f"{where}.{field}", value, "a printable text", f'Write for example {field} = "{default}".')
    return value


def _bad(file: Path | str, field: str, value: object, expected: str, remedy: str) -> BadInput:
    return BadInput(file=str(file), field=field, value=value, expected=expected, remedy=remedy)
