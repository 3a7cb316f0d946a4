"""The topology of one node as the collective library dumps it: CPUs, PCI bridges, chips, links between chips.

A document with a DTD or entities is refused before it is parsed: entities are how XML bombs grow.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from serried.catalogue.entry import DATA, read_toml
from serried.errors import BadInput
from serried.topology.kinds import build_topology
from serried.topology.slurm import read_text
from serried.topology.spec import Topology
from serried.topology.tables import graph_of_rows
from serried.units import parse_quantity

__all__ = ["read_nccl_xml"]

_MOST_DEPTH = 64
_CPU_LINKS: Mapping[str, Any] = read_toml(DATA / "topology" / "cpu-links.toml")
#: Useful bytes/s of one lane, by transfers a second in 1e9: encoding taken off.
_LANE_BYTES_PER_S = {2.5: 0.25e9, 5.0: 0.5e9, 8.0: 0.985e9, 16.0: 1.969e9, 32.0: 3.938e9, 64.0: 7.877e9}


def read_nccl_xml(path: Path, given: Mapping[str, Any], *, link_bandwidth: str, name: str = "") -> Topology:
    """Chips, bridges and CPUs as an explicit graph; network adapters are left out, as they lead elsewhere.

    link_bandwidth: of one chip-to-chip link and direction; the file gives counts alone. Raises BadInput naming the
    element at fault.
    """
    text, file = read_text(path), str(path)
    if re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise BadInput(file=file, field="DOCTYPE", value="<!DOCTYPE or <!ENTITY", expected="plain elements",
                       remedy="Remove the declaration.")
    root, depth = None, 0
    try:
        for event, element in ElementTree.iterparse(io.StringIO(text), events=("start", "end")):
            root = element if root is None else root
            depth += 1 if event == "start" else -1
            if depth > _MOST_DEPTH:
                raise BadInput(file=file, field=element.tag, value=depth, expected="elements at most 64 deep",
                               remedy="Give what the library dumped.")
    except ElementTree.ParseError as error:
        raise BadInput(file=file, field=f"line {error.position[0]}, column {error.position[1]}", value=path.name,
                       expected="well-formed XML", remedy=str(error)) from None
    if root is None or root.tag != "system":
        raise BadInput(file=file, field="root", value=None if root is None else root.tag, expected="<system>",
                       remedy="Give what NCCL_TOPO_DUMP_FILE wrote.")
    reader = _Reader(file, link_bandwidth)
    for child in root:
        if child.tag == "cpu":
            reader.cpu(child)
    return build_topology(name or path.stem, "explicit", given, file=file,
                          graph=graph_of_rows(name or path.stem, reader.nodes, reader.joined(), file))


class _Reader:
    """Gathers nodes and links while it walks the tree."""

    def __init__(self, file: str, link_bandwidth: str) -> None:
        self.file = file
        self.link_bandwidth_bytes_per_s = parse_quantity(link_bandwidth, "bytes/s", field="--link-bandwidth")
        self.nodes: list[dict[str, Any]] = []
        self.links: list[dict[str, Any]] = []
        self.peers: list[tuple[str, str, str, float]] = []
        self.bus_of: dict[str, str] = {}
        self.cpus: list[str] = []
        self.cpu_bandwidth: list[str] = []

    def cpu(self, element: ElementTree.Element) -> None:
        label = f"cpu{element.get('numaid', len(self.cpus))}"
        self.cpus.append(label)
        self.cpu_bandwidth.append(_cpu_bandwidth(element))
        self.nodes.append({"name": label, "switch": True})
        for child in element:
            if child.tag == "pci":
                self._pci(child, label)

    def _pci(self, element: ElementTree.Element, above: str) -> None:
        chips = [child for child in element if child.tag == "gpu"]
        bridges = [child for child in element if child.tag == "pci"]
        bus = element.get("busid", "")
        if element.find(".//gpu") is None:   # adapters and other devices
            return
        label = f"chip{chips[0].get('dev', '')}" if chips else f"pci-{bus}"
        self.nodes.append({"name": label} if chips else {"name": label, "switch": True})
        self.links.append({"from": above, "to": label, "class": "pci", "latency": "0.5 us",
                           "bandwidth": self._pace(element)})
        for chip in chips:
            self.bus_of[bus] = label
            for link in chip:
                if link.tag in ("nvlink", "xgmi"):
                    self.peers.append((label, link.get("target", ""), link.get("tclass", ""), self._count(link)))
        for bridge in bridges:
            self._pci(bridge, label)

    def _pace(self, element: ElementTree.Element) -> float:
        speed = re.match(r"[\d.]+", element.get("link_speed", ""))
        width = element.get("link_width", "")
        lane = _LANE_BYTES_PER_S.get(float(speed.group().rstrip("."))) if speed else None
        if not speed:   # the library writes no speed for bridges it could not ask
            return _LANE_BYTES_PER_S[16.0] * 16.0
        if lane is None or not width.isdigit() or not 1 <= int(width) <= 64:
            raise BadInput(file=self.file, field=f"pci {element.get('busid')}", value=element.get("link_speed"),
                           expected='link_speed = "16.0 GT/s PCIe", link_width = "16"', remedy="Correct it.")
        return lane * int(width)

    def _count(self, element: ElementTree.Element) -> float:
        count = element.get("count", "1")
        if not count.isdigit() or not 1 <= int(count) <= 1024:
            raise BadInput(file=self.file, field=f"{element.tag}.count", value=count, expected="a number of links",
                           remedy="Correct it.")
        return float(count)

    def joined(self) -> list[dict[str, Any]]:
        """All links: the tree of buses, CPUs with each other, chips with chips or with their common switch."""
        links = list(self.links)
        links += [{"from": self.cpus[0], "to": other, "bandwidth": bandwidth, "class": "cpu",
                   "latency": _CPU_LINKS["default"]["latency"]}
                  for other, bandwidth in zip(self.cpus[1:], self.cpu_bandwidth[1:], strict=True)]
        for label, target, device_class, count in self.peers:
            pace = count * self.link_bandwidth_bytes_per_s
            if device_class.startswith("0x0680") or target not in self.bus_of:
                if not any(node["name"] == "switch" for node in self.nodes):
                    self.nodes.append({"name": "switch", "switch": True})
                links.append({"from": label, "to": "switch", "bandwidth": pace, "latency": "0.5 us", "class": "link"})
            else:
                links.append({"from": label, "to": self.bus_of[target], "bandwidth": pace, "latency": "1 us",
                              "class": "link", "one_way": True})
        return links


def _cpu_bandwidth(element: ElementTree.Element) -> str:
    """What this CPU carries to the others, by `data/topology/cpu-links.toml`."""
    numbers = {name: int(text) if (text := element.get(f"{name}id", "")).isdecimal() else 0
               for name in ("family", "model")}
    found = str(_CPU_LINKS["default"]["bandwidth"])
    for row in _CPU_LINKS["link"]:
        alike = all(element.get(word) == row[word] for word in ("vendor", "arch") if word in row)
        if alike and all(numbers[name] >= row.get(name, 0) for name in numbers):
            found = str(row["bandwidth"])
    return found
