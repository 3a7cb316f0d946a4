"""The kinds of topology, and what each may be told: the domain as a table.

A parameter's unit is that of the value inside; at the door it is text such as "400 Gb/s". Unit "count" is a whole
number, "word" a text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serried.errors import BadInput, nearest
from serried.topology.spec import Graph, Topology
from serried.units import parse_quantity

__all__ = ["KINDS", "PARAMETERS", "build_topology"]

#: Parameter -> (unit, what it says).
PARAMETERS: Mapping[str, tuple[str, str]] = {
    "chips": ("count", "endpoints"),
    "node": ("count", "chips of one scale-up domain"),
    "inner": ("word", "wires of a scale-up domain: switch or full"),
    "inner_bandwidth": ("bytes/s", "per chip and direction inside a scale-up domain"),
    "inner_latency": ("s", "one hop inside a scale-up domain"),
    "in_network_reduction": ("count", "1 where the scale-up switch adds"),
    "bandwidth": ("bytes/s", "per chip and direction: all its ports together"),
    "latency": ("s", "one cable and the switch behind it"),
    "planes": ("count", "ports of a network adapter, each to a network of its own"),
    "rails": ("count", "leaves over which the chips of a node are spread"),
    "leaf": ("count", "chips that the leaves of one segment join (all rails together)"),
    "pod": ("count", "chips under one set of spines; 0 = all"),
    "uplink_bandwidth": ("bytes/s", "of one cable between switches; 0 = that of a chip's port"),
    "oversubscription": ("1", "of the leaves: bandwidth down over bandwidth up"),
    "pod_oversubscription": ("1", "of the spines, likewise"),
    "x": ("count", "chips along the first dimension"),
    "y": ("count", "chips along the second"),
    "z": ("count", "chips along the third"),
    "optical": ("count", "1 where optical switches close the circles of any slice"),
    "groups": ("count", "groups of a dragonfly"),
    "routers": ("count", "routers in a group"),
    "router_chips": ("count", "chips on a router"),
    "global_links": ("count", "cables between each pair of groups"),
    "profile": ("word", "the collective library that drives it, as in the catalogue"),
}

_NODE = {"node": 8, "inner": "switch", "inner_bandwidth": "450 GB/s", "inner_latency": "1 us",
         "in_network_reduction": 0}
_PORT = {"bandwidth": "400 Gb/s", "latency": "1 us"}
_CLOS = {**_NODE, **_PORT, "planes": 1, "rails": 1, "uplink_bandwidth": 0, "oversubscription": 1,
         "pod_oversubscription": 1, "profile": "generic"}
_WIRES: Mapping[str, Any] = {"bandwidth": "50 GB/s", "latency": "1 us", "profile": "generic"}

#: Kind -> its parameters with their defaults; None must be given.
KINDS: Mapping[str, Mapping[str, Any]] = {
    "switch": {"chips": None, "bandwidth": "450 GB/s", "latency": "1 us", "in_network_reduction": 0,
               "profile": "generic"},
    "full": {"chips": None, **_WIRES},
    "ring": {"chips": None, **_WIRES},
    "cube-mesh": {**_WIRES},
    "torus": {"x": None, "y": None, "z": 1, "optical": 0, **_WIRES},
    "clos": {"chips": None, **_CLOS, "leaf": 256, "pod": 0},
    "rail": {"chips": None, **_CLOS, "rails": 8, "leaf": 256, "pod": 0},
    "hpn": {"chips": None, **_CLOS, "planes": 2, "rails": 8, "leaf": 1024, "pod": 15360, "pod_oversubscription": 15},
    "rack": {"chips": None, **_CLOS, "node": 72, "rails": 18, "leaf": 1152, "pod": 0},
    "dragonfly": {"groups": None, "routers": None, "router_chips": None, "global_links": 1, **_PORT,
                  "uplink_bandwidth": 0, "profile": "generic"},
    "labels": {**_CLOS, "profile": "generic"},
    "explicit": {"profile": "generic"},
}
_MOST_CHIPS = 4_000_000


def build_topology(name: str, kind: str, given: Mapping[str, Any], *, failed: tuple[str, ...] = (),
                   graph: Graph | None = None, hosts: tuple[str, ...] = (),
                   labels: Mapping[str, tuple[str, ...]] | None = None, file: str = "") -> Topology:
    """A topology of `kind` from what is given of its parameters (texts or numbers); the rest by default.

    Raises BadInput for an unknown kind or parameter, a missing one, or a value that is out of range.
    """
    if kind not in KINDS:
        raise BadInput(file=file, field="kind", value=kind, expected=f"one of {', '.join(KINDS)}",
                       remedy=f"Nearest: {', '.join(nearest(str(kind), KINDS)) or 'clos'}.")
    known = KINDS[kind]
    for key in given:
        if key not in known:
            raise BadInput(file=file, field=f"parameters.{key}", value=given[key],
                           expected=f"a parameter of {kind}: {', '.join(known)}", remedy="Remove or correct it.")
    missing = [key for key, value in known.items() if value is None and key not in given]
    if missing:
        raise BadInput(file=file, field=f"parameters.{missing[0]}", value=None, expected=PARAMETERS[missing[0]][1],
                       remedy=f"A topology of kind {kind} needs {', '.join(missing)}.")
    parameters = {key: _value(key, given.get(key, default), file) for key, default in known.items()}
    made = Topology(name=name, kind=kind, parameters=parameters, failed=failed, graph=graph, hosts=hosts,
                    labels=labels or {}, file=file)
    _check(made)
    return made


def _value(key: str, raw: Any, file: str) -> float | str:
    unit = PARAMETERS[key][0]
    if unit == "word":
        if not isinstance(raw, str) or not raw:
            raise BadInput(file=file, field=f"parameters.{key}", value=raw, expected="a word", remedy="Quote it.")
        return raw
    value = parse_quantity(raw, "1" if unit == "count" else unit, field=f"parameters.{key}", file=file)
    least = 0.0 if key in ("pod", "uplink_bandwidth", "in_network_reduction", "optical", "latency", "inner_latency") \
        else 1.0 if unit in ("count", "1") else 1e-300
    if value < least or (unit == "count" and (value != int(value) or value > _MOST_CHIPS)):
        raise BadInput(file=file, field=f"parameters.{key}", value=raw,
                       expected=f"{PARAMETERS[key][1]}: {'a whole number, ' if unit == 'count' else ''}at least "
                       f"{least:.0f}", remedy="Correct it.")
    return value


def _check(topology: Topology) -> None:
    """What no single parameter shows: sizes must nest, and the whole must stay within what one machine can hold."""
    parameters, file = topology.parameters, topology.file
    product = 1.0
    for key in ("x", "y", "z", "groups", "routers", "router_chips"):
        product *= float(parameters.get(key, 1.0))
    if product > _MOST_CHIPS or (topology.kind == "full" and topology.number("chips") > 4096):
        raise BadInput(file=file, field="parameters", value=f"{product:.0f} chips",
                       expected="a fabric of at most 4 million chips (4,096 where every pair has a wire)",
                       remedy="Make it smaller.")
    if "leaf" not in parameters:
        return
    node, rails, leaf, pod = (topology.whole(key) for key in ("node", "rails", "leaf", "pod"))
    if node % rails or leaf % node or (pod and pod % leaf):
        raise BadInput(file=file, field="parameters", value=f"node {node}, rails {rails}, leaf {leaf}, pod {pod}",
                       expected="rails that divide a node, nodes that divide a leaf, leaves that divide a pod",
                       remedy="Let the sizes nest.")
    if topology.whole("chips") > node and topology.whole("chips") % node:
        raise BadInput(file=file, field="parameters.chips", value=topology.whole("chips"),
                       expected=f"whole scale-up domains of {node}", remedy="Round it to a multiple.")
    if parameters["inner"] not in ("switch", "full"):
        raise BadInput(file=file, field="parameters.inner", value=parameters["inner"], expected="switch or full",
                       remedy="Say how the chips of a domain are wired.")
