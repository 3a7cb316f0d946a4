"""Slurm's two forms of a topology: `topology.conf` (tree or block) and `topology.yaml`.

    SwitchName=leaf0 Nodes=node[0-7]          - topology: default
    SwitchName=spine Switches=leaf[0-3]         tree:
    BlockName=b0 Nodes=node[0-17]                 switches:
    BlockSizes=18                                   - {switch: leaf0, nodes: "node[0-7]"}

Both become hosts with a switch at each tier. The YAML read here is the subset that Slurm documents: mappings and lists
by indentation, quoted or bare words, no anchors, no tags.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from serried.errors import BadInput
from serried.topology.kinds import build_topology
from serried.topology.network import wire
from serried.topology.spec import Topology

__all__ = ["Tree", "labelled", "read_slurm", "slurm_conf", "slurm_yaml", "tiers_of"]

_MOST_BYTES, _MOST_HOSTS = 20_000_000, 500_000
_RANGE = re.compile(r"^([^\[\]]*)\[([\d,\-]+)\]([^\[\]]*)$")
#: Switch or block -> (hosts below it, switches below it, line of the file).
Tree = dict[str, tuple[list[str], list[str], int]]


def read_slurm(path: Path, given: Mapping[str, Any], name: str = "") -> Topology:
    """A Slurm topology as one of kind "labels"; BadInput with file and line for whatever does not fit."""
    text = read_text(path)
    tree = _yaml_tree(text, str(path)) if path.suffix in (".yaml", ".yml") else _conf_tree(text, str(path))
    return labelled(tree, str(path), given, name or path.stem)


def read_text(path: Path) -> str:
    """A text file of sane size."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BadInput(file=str(path), field="file", value=path.stat().st_size, expected="at most 20 MB",
                           remedy="Give the topology file itself.")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(file=str(path), field="file", value=path.name, expected="a readable text in UTF-8",
                       remedy=str(error)) from None


def _conf_tree(text: str, file: str) -> Tree:
    tree: Tree = {}
    for number, raw in enumerate(text.splitlines(), 1):
        words = raw.partition("#")[0].split()
        if not words:
            continue
        pairs = {key.casefold(): value for key, _, value in (word.partition("=") for word in words)}
        if set(pairs) <= {"blocksizes"}:
            continue
        label = pairs.get("switchname") or pairs.get("blockname")
        known = {"switchname", "blockname", "nodes", "switches", "linkspeed"}
        if not label or not set(pairs) <= known or not pairs.keys() & {"nodes", "switches"}:
            raise BadInput(file=file, field=f"line {number}", value=raw.strip()[:80], remedy="Correct the line.",
                           expected="SwitchName=... or BlockName=... with Nodes=... or Switches=...")
        _add(tree, label, expand(pairs.get("nodes", ""), file, number), expand(pairs.get("switches", ""), file, number),
             number, file)
    return tree


def _add(tree: Tree, label: str, hosts: list[str], switches: list[str], number: int, file: str) -> None:
    if label in tree:
        raise BadInput(file=file, field=f"line {number}", value=label, expected="a switch that is named once",
                       remedy=f"It stands on line {tree[label][2]} already.")
    tree[label] = (hosts, switches, number)


def expand(text: str, file: str, number: int) -> list[str]:
    """`node[0-3,7],login1` as names; zero padding is kept."""
    names: list[str] = []
    for part in re.findall(r"[^,\[\]]*(?:\[[^\]]*\][^,\[\]]*)?", text):
        if not part:
            continue
        match = _RANGE.match(part)
        if not match:
            names.append(part)
            continue
        for span in match.group(2).split(","):
            low, dash, high = span.partition("-")
            ends = (int(low or -1), int((high if dash else low) or -1)) if len(span) < 20 else (-1, -1)
            if ends[0] < 0 or not ends[0] <= ends[1] < ends[0] + _MOST_HOSTS - len(names):
                raise BadInput(file=file, field=f"line {number}", value=part[:80], expected="a range such as node[0-7]",
                               remedy="Correct the range.")
            names += [f"{match.group(1)}{index:0{len(low)}d}{match.group(3)}" for index in range(ends[0], ends[1] + 1)]
    return names


def _yaml_tree(text: str, file: str) -> Tree:
    """Switches or blocks of the first tree or block topology."""
    tree: Tree = {}
    current: dict[str, str] = {}
    first = 0

    def close() -> None:
        if label := current.get("switch") or current.get("block"):
            below = expand(current.get("children", ""), file, first)
            _add(tree, label, expand(current.get("nodes", ""), file, first), below, first, file)
        current.clear()

    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split(" #")[0].strip() if not raw.lstrip().startswith("#") else ""
        if re.search(r"[&*!]\w", line) or line.startswith(("%", "<<")):
            raise BadInput(file=file, field=f"line {number}", value=line[:80], expected="plain mappings and lists",
                           remedy="Anchors, aliases and tags are not part of Slurm's form.")
        begins = line.startswith("- ")
        for key, value in re.findall(r"""[{,\s-]*(\w+):\s*("[^"]*"|'[^']*'|[^,}{"']*(?:\[[^\]]*\][^,}{"']*)*)""", line):
            if begins and key in ("switch", "block", "topology"):
                close()
                first = number
            current[key] = value.strip().strip("\"'")
    close()
    if not tree:
        raise BadInput(file=file, field="switches", value=None, expected="- switch: NAME with nodes or children",
                       remedy="Give a topology with a tree or blocks.")
    return tree


def labelled(tree: Tree, file: str, given: Mapping[str, Any], name: str) -> Topology:
    """Hosts with the switches above them; every host must be equally deep."""
    above: dict[str, str] = {}
    for label, (_, switches, number) in tree.items():
        for switch in switches:
            if switch not in tree or switch in above:
                raise BadInput(file=file, field=f"line {number}", value=switch, remedy="Correct the name.",
                               expected="a switch that is described, under one switch only")
            above[switch] = label
    hosts: dict[str, list[str]] = {}
    for label, (names, _, number) in tree.items():
        chain = [label]
        while chain[-1] in above:
            chain.append(above[chain[-1]])
            if len(chain) > 4:
                raise BadInput(file=file, field=f"line {number}", value=label, expected="at most four tiers, no circle",
                               remedy="Check which switch lies under which.")
        for host in names:
            if host in hosts or len(hosts) >= _MOST_HOSTS:
                raise BadInput(file=file, field=f"line {number}", value=host, expected="a host under one switch only",
                               remedy="Remove one of the two.")
            hosts[host] = chain
    depths = {len(chain) for chain in hosts.values()}
    tops = {chain[-1] for chain in hosts.values()}
    if len(depths) != 1:
        shallow = min(hosts, key=lambda host: len(hosts[host]), default=None)
        raise BadInput(file=file, field="Nodes", value=shallow, expected="hosts, all under equally many switches",
                       remedy="Put a switch between.")
    if len(tops) > 1 and any(switches for _, switches, _ in tree.values()):
        raise BadInput(file=file, field="SwitchName", value=sorted(tops)[1], remedy="Add the switch that joins them.",
                       expected=f"a connected tree, but {sorted(tops)[0]} and {sorted(tops)[1]} have no switch above")
    labels = {("leaf", "spine", "core", "top")[tier]: tuple(chain[tier] for chain in hosts.values())
              for tier in range(depths.pop())}
    return build_topology(name, "labels", given, hosts=tuple(hosts), labels=labels, file=file)


def tiers_of(topology: Topology) -> tuple[tuple[str, ...], Mapping[str, tuple[str, ...]]]:
    """Hosts and their switches by tier, of any topology of nested groups; BadInput for others."""
    if topology.hosts:
        return topology.hosts, topology.labels
    if "leaf" not in topology.parameters:
        raise BadInput(field="kind", value=topology.kind, expected="a tree of switches",
                       remedy="These forms know switches above switches alone.")
    wired, node = wire(topology), topology.whole("node")
    columns = wired.outer.group_KE[1:]  # type: ignore[attr-defined]
    names = ("leaf", "spine", "core")
    rails = topology.whole("rails")
    labels = {names[tier]: tuple(f"{names[tier]}{int(group) // (rails if tier == 0 and len(columns) > 1 else 1)}"
                                 for group in column[::node]) for tier, column in enumerate(columns)}
    return tuple(f"node{host}" for host in range(len(columns[0][::node]))), labels


def _below(topology: Topology) -> list[tuple[str, list[str], bool]]:
    """(switch, what hangs from it, whether those are hosts), from the inside out."""
    hosts, labels = tiers_of(topology)
    rows, below = [], list(hosts)
    for tier, column in enumerate(labels.values()):
        groups: dict[str, dict[str, None]] = {}
        for child, switch in zip(below, column, strict=True):
            groups.setdefault(switch, {})[child] = None
        rows += [(switch, list(children), tier == 0) for switch, children in groups.items()]
        below = list(column)
    tops = list(dict.fromkeys(below))
    return [*rows, ("root", tops, False)] if len(tops) > 1 else rows


def slurm_conf(topology: Topology) -> str:
    """The topology as `topology.conf` of the tree plugin."""
    return "".join(f"SwitchName={switch} {'Nodes' if hosts else 'Switches'}={folded(children)}\n"
                   for switch, children, hosts in _below(topology))


def slurm_yaml(topology: Topology) -> str:
    """The topology as `topology.yaml`."""
    lines = ["---", f"- topology: {topology.name}", "  cluster_default: true", "  tree:", "    switches:"]
    for switch, children, hosts in _below(topology):
        lines += [f"      - switch: {switch}", f"        {'nodes' if hosts else 'children'}: \"{folded(children)}\""]
    return "\n".join(lines) + "\n"


def folded(names: Iterable[str]) -> str:
    """Names as a list with ranges: node0, node1, node2 -> node[0-2]."""
    parts: list[str] = []
    numbered = [(match.group(1), int(match.group(2)), name) if (match := re.fullmatch(r"(.*?)(0|[1-9]\d*)", name))
                else (name, -1, name) for name in names]
    ordered = sorted(numbered)
    for _, run in itertools.groupby(enumerate(ordered), key=lambda pair: (pair[1][0], pair[1][1] - pair[0])):
        rows = [row for _, row in run]
        parts.append(rows[0][2] if len(rows) == 1 else f"{rows[0][0]}[{rows[0][1]}-{rows[-1][1]}]")
    return ",".join(parts)
