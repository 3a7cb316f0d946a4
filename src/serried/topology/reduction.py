"""From wires to tiers: the fabric that the planner's columns know, with what the wires leave of each tier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from serried.fabric import Fabric, Tier, read_collectives
from serried.fabric.spec import TierKind
from serried.topology.clos import LEVELS, Clos
from serried.topology.collisions import expected_fullest
from serried.topology.direct import GraphNetwork, Torus
from serried.topology.islands import port_bytes_per_s, thinnest_bytes_per_s
from serried.topology.network import Wired, wire
from serried.topology.spec import Topology
from serried.topology.wires import Network

__all__ = ["one_network", "reduced_fabric"]

#: What a fabric of one network is to the formulas, by its kind; a graph drawn by hand counts as a switch.
_FLAT: Mapping[str, TierKind] = {"switch": "switch", "ring": "ring", "torus": "torus", "full": "mesh",
                                 "cube-mesh": "mesh", "dragonfly": "clos"}
_MOST_HASHED = 512   # flows of one switch for which the exact distribution is worked out


def reduced_fabric(topology: Topology, *, routing: str = "spray") -> Fabric:
    """Tiers from the inside out, for groups that fill them: chips reached, bandwidth per chip, latency.

    oversubscription of a tier: what the chips below it can send over what its live uplinks carry, the worst switch
    counting, times what hashing loses: the mean load of the fullest uplink over that of all (`collisions`).
    """
    wired = wire(topology)
    tiers = list(_inner_tiers(wired))
    network = wired.outer
    tiers += _clos_tiers(wired, network, routing) if isinstance(network, Clos) else [_thinned(wired)]
    return Fabric(name=topology.name, tiers=tuple(tiers), profile=read_collectives(topology.word("profile")),
                  file=topology.file, title=f"{topology.name} ({topology.kind})")


def one_network(wired: Wired) -> Fabric:
    """Two tiers, a scale-up domain and one network over all: what contention then slows algorithm by algorithm."""
    topology, network = wired.topology, wired.outer
    tiers = [*_inner_tiers(wired)]
    if isinstance(network, Clos) and topology.kind != "switch":
        level = len(network.uplinks_K)
        tiers.append(Tier(name="network", kind="clos", group_size=0, latency_s=2.0 * level * network.latency_s,
                          bandwidth_bytes_per_s=topology.number("bandwidth")))
    else:
        tiers.append(_flat_tier(wired))
    return Fabric(name=topology.name, tiers=tuple(tiers), profile=read_collectives(topology.word("profile")),
                  file=topology.file)


def _inner_tiers(wired: Wired) -> list[Tier]:
    topology = wired.topology
    if wired.inner is None:
        return [replace(_flat_tier(wired), name="island", group_size=wired.node)] if wired.node > 1 else []
    return [Tier(name="node", kind="switch" if topology.word("inner") == "switch" else "mesh", group_size=wired.node,
                 bandwidth_bytes_per_s=topology.number("inner_bandwidth"), latency_s=topology.number("inner_latency"),
                 in_network_reduction=topology.whole("in_network_reduction") == 1)]


def _clos_tiers(wired: Wired, network: Clos, routing: str) -> list[Tier]:
    """A tier for every level of switches; the leaves of a segment's rails are one tier of kind rail."""
    topology, tiers = wired.topology, []
    if topology.kind == "switch":
        return [_flat_tier(wired)]
    rails = topology.whole("rails")
    thinning = 1.0
    for level in range(1, len(network.uplinks_K) + 1):
        last = level == len(network.uplinks_K)
        chips = np.bincount(network.group_KE[level])
        group = int(chips.max()) * (rails if level == 1 and not last else 1)
        if level > 1:
            thinning = max(thinning, _thinning(network, level - 1, routing))
        kind: TierKind = "rail" if level == 1 and rails > 1 else "clos"
        tiers.append(Tier(name="segment" if kind == "rail" else LEVELS[level], kind=kind,
                          group_size=0 if last else min(group, network.chips),
                          bandwidth_bytes_per_s=topology.number("bandwidth"), oversubscription=max(thinning, 1.0),
                          latency_s=2.0 * level * network.latency_s))
    return tiers


def _thinning(network: Clos, level: int, routing: str) -> float:
    """Bandwidth below the worst group of a level over that of its live uplinks, and what hashing loses there."""
    top = len(network.uplinks_K)
    block = network.blocks[2 * top + level]
    up = network.bandwidth_bytes_per_s_L[block.first:block.first + block.count]
    chips = np.bincount(network.group_KE[level], minlength=block.count)
    port = network.bandwidth_bytes_per_s_K[0] * network.uplinks_K[0]
    worst = float(np.max(chips * port / np.maximum(up, 1e-300)))
    if routing != "ecmp":
        return worst
    flows = int(chips.max())
    uplinks = max(1, round(flows * network.uplinks_K[level] / max(flows, 1)))
    shown = min(1.0, _MOST_HASHED / max(flows, uplinks))
    flows, uplinks = max(1, round(flows * shown)), max(1, round(uplinks * shown))
    return worst * expected_fullest(flows, uplinks) / (flows / uplinks)


def _flat_tier(wired: Wired) -> Tier:
    """A fabric of one network as one tier."""
    topology, network = wired.topology, wired.outer
    kind = _FLAT.get(topology.kind, "switch")
    hops = {"dragonfly": 5.0}.get(topology.kind, 1.0)
    return Tier(name="network" if kind == "clos" else "node", kind=kind,
                group_size=0 if kind == "clos" else wired.chips,
                bandwidth_bytes_per_s=_bandwidth(wired), latency_s=hops * float(network.latency_s_L.max(initial=0.0)),
                in_network_reduction=topology.parameters.get("in_network_reduction") == 1,
                dimensions=tuple(topology.whole(axis) for axis in "xyz" if topology.whole(axis) > 1)
                if kind == "torus" else ())


def _thinned(wired: Wired) -> Tier:
    """The one tier over all, with what leaves the thinnest island beside what its chips could send."""
    flat, network = _flat_tier(wired), wired.outer
    if wired.node == 1 or not isinstance(network, GraphNetwork):
        return flat
    return replace(flat, oversubscription=wired.node * flat.bandwidth_bytes_per_s / thinnest_bytes_per_s(
        network.graph, wired.node))


def _bandwidth(wired: Wired) -> float:
    """What leaves a chip; of an explicit graph, the least over its chips."""
    network: Network = wired.outer
    if isinstance(network, Torus):
        return 2.0 * len(network.dimensions) * network.link_bandwidth_bytes_per_s
    if isinstance(network, GraphNetwork):
        return port_bytes_per_s(network.graph)
    return wired.topology.number("bandwidth")
