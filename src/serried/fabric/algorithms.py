"""What a collective costs by each algorithm and protocol a library has.

Every candidate is `launch + join(steps, bytes) + own copy`: the time of its hops in turn, and the time of its bytes on
the narrowest wires, joined by an exponent p as (steps^p + bytes^p)^(1/p). p = 1 adds them (nothing overlaps); a large
p takes the longer (a long ring of flagged words); p = 1/2 is steps + 2 sqrt(steps x bytes) + bytes, the time of a
pipeline that is cut into the best number of chunks, which is where the square root of the message size in measured
collectives comes from.

Traffic of an n-rank collective of S bytes, per rank and direction: ring all-reduce 2 (n-1)/n S, ring all-gather and
reduce-scatter (n-1)/n S (Patarasuk and Yuan 2009); a pair of complementary trees over more than two nodes 2 S per
node, over two nodes S (Sanders, Speck and Traff 2009); one-shot all-reduce (n-1) S.

Axes: G = collective asked for; T = tier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serried.fabric.placement import Floats, Placement, torus_dimensions
from serried.fabric.spec import PROTOCOLS, Fabric, Tier

__all__ = ["ALGORITHMS", "Candidate", "candidates", "join"]

_DEFAULTS: Mapping[str, float] = {"exponent": 1.0, "choice": 1.0, "step": 0.0, "hop": 0.0, "scale": 0.0,
                                  "minimum": 2.0, "maximum": math.inf, "local": math.inf, "pair": math.inf,
                                  "peer": 0.0, "floor": 0.0, "fill": math.inf}
#: One-way wire times in one hop: data alone, or data and the word that the buffer is free again.
_WIRE_TIMES = {"ll": 1.0, "ll128": 1.0, "simple": 2.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to run the collective: its time, and the time that the library believes it takes when it chooses."""

    algorithm: str
    protocol: str
    time_s: Floats
    believed_s: Floats


@dataclass(frozen=True, slots=True)
class _Library:
    """Parameters of a profile, from the most specific name to the family's default."""

    parameters: Mapping[str, float]

    def get(self, family: str, algorithm: str = "", protocol: str = "") -> float:
        for name in (f"{family}.{algorithm}.{protocol}", f"{family}.{algorithm}", f"{family}.{protocol}", family):
            if name in self.parameters:
                return self.parameters[name]
        return _DEFAULTS.get(family, math.nan)

    def has(self, family: str, algorithm: str, protocol: str) -> bool:
        return f"{family}.{algorithm}.{protocol}" in self.parameters


def join(steps_s: Floats, bytes_s: Floats, exponent: float, fill: float = math.inf) -> Floats:
    """(steps^p + bytes^p)^(1/p), without overflow for any p > 0.

    fill: chunks grow with the message until they reach the library's largest; from there on filling the pipeline
    costs a constant, at most `fill` times the steps, above their sum with the bytes.
    """
    if exponent == 1.0:
        return steps_s + bytes_s
    if exponent < 1.0 and fill < math.inf:
        plain = steps_s + bytes_s
        filled: Floats = plain + np.minimum(join(steps_s, bytes_s, exponent) - plain, fill * steps_s)
        return filled
    longer, shorter = np.maximum(steps_s, bytes_s), np.minimum(steps_s, bytes_s)
    if exponent >= 32.0:
        return longer
    if exponent == 0.5:
        chunked: Floats = longer + shorter + 2.0 * np.sqrt(longer * shorter)
        return chunked
    share = shorter / np.maximum(longer, 1e-300)
    joined: Floats = longer * (1.0 + share**exponent) ** (1.0 / exponent)
    return joined


def candidates(operation: str, payload_bytes_G: Floats, placement: Placement, fabric: Fabric, *,
               switch_adds: bool = True, ways: Collection[str] = ()) -> Iterator[Candidate]:
    """Every way this fabric's library has for `operation`; infinite where a way does not apply.

    ways: when given, only these, each "<algorithm>/<protocol>", "<algorithm>/" or "/<protocol>".

    payload_bytes_G: as `serried.fabric.collective_time_s` counts it. switch_adds: whether in-network reduction knows
    the number format.
    """
    library = _Library(fabric.profile.parameters)
    for algorithm, cost in _ALGORITHMS[operation].items():
        for protocol in PROTOCOLS:
            if not library.has("ratio", algorithm, protocol) or (algorithm == "switch" and not switch_adds):
                continue
            if ways and not {f"{algorithm}/{protocol}", f"{algorithm}/", f"/{protocol}"} & set(ways):
                continue
            call = _Call(operation=operation, algorithm=algorithm, protocol=protocol, payload_bytes=payload_bytes_G,
                         placement=placement, fabric=fabric, library=library)
            time_s_G = np.maximum(cost(call) + call.launch_s + call.own_copy_s(), call.get("floor"))
            allowed_G = (placement.degree >= library.get("minimum", algorithm, protocol)) & (
                payload_bytes_G <= library.get("maximum", algorithm, protocol))
            time_s_G = np.where(allowed_G & call.reaches(), time_s_G, np.inf)
            yield Candidate(algorithm=algorithm, protocol=protocol, time_s=time_s_G,
                            believed_s=time_s_G * call.belief())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One algorithm and protocol for one operation: the library's parameters at hand, by tier."""

    operation: str
    algorithm: str
    protocol: str
    payload_bytes: Floats
    placement: Placement
    fabric: Fabric
    library: _Library

    def get(self, family: str) -> float:
        return self.library.get(family, self.algorithm, self.protocol)

    @property
    def launch_s(self) -> float:
        return self.get("launch")

    @property
    def passes(self) -> float:
        """An all-reduce goes round twice, once to reduce and once to gather."""
        return 2.0 if self.operation == "all_reduce" else 1.0

    def tiers(self) -> Iterator[tuple[Tier, Floats, Floats, Floats, Floats]]:
        """Tier, members inside it, members below it, parts it joins, and bandwidth reached, from the inside out."""
        below_G = np.ones_like(self.placement.degree)
        for position, tier in enumerate(self.fabric.tiers):
            members_G, parts_G = self.placement.members[position], self.placement.parts[position]
            yield tier, members_G, below_G, parts_G, self.placement.bandwidth_bytes_per_s[position] * self.reached(tier)
            below_G = members_G

    def scale_up_tiers(self) -> Iterator[tuple[Tier, Floats, Floats, Floats, Floats]]:
        """The tiers that need no network."""
        return (level for level in self.tiers() if level[0].scale_up)

    def join(self, steps_s: Floats, bytes_s: Floats) -> Floats:
        """Steps and bytes of this algorithm and protocol as one time."""
        return join(steps_s, bytes_s, self.get("exponent"), self.get("fill"))

    def reached(self, tier: Tier) -> float:
        """Share of the tier's bandwidth that the algorithm reaches; NaN where the library has no way across."""
        return self.get("ratio" if tier.scale_up else "network")

    def hop_s(self, tier: Tier) -> Floats | float:
        wire_s = _WIRE_TIMES[self.protocol] * tier.latency_s
        if tier.scale_up:
            return self.get("step") + wire_s
        return (self.get("hop") + wire_s) * self.growth()

    def belief(self) -> Floats | float:
        """What the library believes of a time, as a ratio; measured inside nodes, and between them for trees alone."""
        ratio = self.get("choice")
        return ratio if self.algorithm in ("tree", "switch") else np.where(self.node_count() > 1.0, 1.0, ratio)

    def node_count(self) -> Floats:
        """Parts that only a network joins."""
        nodes_G = np.ones_like(self.placement.degree)
        for tier, parts_G in zip(self.fabric.tiers, self.placement.parts, strict=True):
            if not tier.scale_up:
                nodes_G = nodes_G * parts_G
        return nodes_G

    def growth(self) -> Floats:
        """Waiting for the slowest of many links: a hop grows with each doubling of the nodes beyond two."""
        return 1.0 + self.get("scale") * np.log2(np.maximum(self.node_count() / 2.0, 1.0))

    def reaches(self) -> NDArray[np.bool_]:
        """False where the group crosses a tier that the library cannot cross by this algorithm and protocol."""
        reaches_G = self.placement.degree >= 1.0
        for tier, parts_G in zip(self.fabric.tiers, self.placement.parts, strict=True):
            if math.isnan(self.reached(tier)):
                reaches_G = reaches_G & (parts_G <= 1.0)
        return reaches_G

    def own_copy_s(self) -> Floats:
        """Each rank also moves its own share from the input to the output buffer."""
        speed = self.library.get("local", self.operation)
        return self.payload_bytes / self.placement.degree / (speed * self.fabric.tiers[0].bandwidth_bytes_per_s)


def _ring_s(call: _Call) -> Floats:
    """Steps pass every rank in turn; bytes are bound by the narrowest tier, where a node's members send at once."""
    degree_G = call.placement.degree
    steps_s_G, slowest_s_per_byte_G = np.zeros_like(degree_G), np.zeros_like(degree_G)
    for tier, members_G, below_G, parts_G, bandwidth_G in call.tiers():
        steps_s_G = steps_s_G + (parts_G - 1.0) * degree_G / members_G * call.hop_s(tier)
        pace_G = np.where(parts_G > 1.0, 1.0 / (below_G * bandwidth_G), 0.0)
        slowest_s_per_byte_G = np.maximum(slowest_s_per_byte_G, pace_G)
    bytes_s_G = call.passes * (degree_G - 1.0) / degree_G * call.payload_bytes * slowest_s_per_byte_G
    steps_s_G = call.passes * steps_s_G
    if math.isnan(lockstep := call.library.get("lockstep", "ring", call.protocol)):
        return call.join(steps_s_G, bytes_s_G)
    return np.where(call.node_count() > 1.0, join(steps_s_G, bytes_s_G, lockstep), call.join(steps_s_G, bytes_s_G))


def _tree_s(call: _Call) -> Floats:
    """A chain (or the adding switch) inside the scale-up tiers, two complementary trees over the nodes."""
    steps_s_G, inner_s_G = _scale_up_stage(call)
    nodes_G, network_s_G = call.node_count(), np.zeros_like(call.placement.degree)
    scale_up_members_G = np.ones_like(nodes_G)
    for tier, members_G, _, parts_G, bandwidth_G in call.tiers():
        if tier.scale_up:
            scale_up_members_G = members_G
            continue
        steps_s_G = steps_s_G + 2.0 * np.log2(parts_G) * call.hop_s(tier)
        copies_G = np.where(nodes_G > 2.0, 2.0, 1.0)
        pace_G = np.where(parts_G > 1.0, copies_G / (scale_up_members_G * bandwidth_G), 0.0)
        network_s_G = np.maximum(network_s_G, call.payload_bytes * pace_G)
    bytes_s_G = join(inner_s_G, network_s_G, call.library.get("exponent", "stages"))
    return call.join(steps_s_G, bytes_s_G)


def _scale_up_stage(call: _Call) -> tuple[Floats, Floats]:
    """Steps and bytes of the part of a tree that runs below the network."""
    steps_s_G, bytes_s_G = np.zeros_like(call.payload_bytes), np.zeros_like(call.payload_bytes)
    for tier, _, below_G, parts_G, bandwidth_G in call.scale_up_tiers():
        hops_G = np.minimum(parts_G - 1.0, 1.0) if call.algorithm == "switch" else parts_G - 1.0
        steps_s_G = steps_s_G + 2.0 * (hops_G * call.hop_s(tier) + (parts_G - 1.0) * call.get("peer"))
        bytes_s_G = bytes_s_G + 2.0 * (parts_G - 1.0) / parts_G * call.payload_bytes / (below_G * bandwidth_G)
    return steps_s_G, bytes_s_G


def _between_nodes_s(call: _Call) -> Floats:
    """Trees are for groups of several nodes; inside one a chain would be a slower ring."""
    return np.where(call.node_count() > 1.0, _tree_s(call), np.inf)


def _switch_s(call: _Call) -> Floats:
    """The switch adds and multicasts: two hops inside, then trees over the nodes. Only where every inner tier can."""
    able = all(tier.in_network_reduction for tier in call.fabric.tiers if tier.scale_up)
    any_inside_G = call.placement.degree > call.node_count()
    return np.where(able & any_inside_G, _tree_s(call), np.inf)


def _hierarchical_s(call: _Call) -> Floats:
    """Tier by tier from the inside out (and back in an all-reduce), each on what the tier below has left to it."""
    steps_s_G, bytes_s_G = np.zeros_like(call.payload_bytes), np.zeros_like(call.payload_bytes)
    for position, (tier, _, below_G, parts_G, bandwidth_G) in enumerate(call.tiers()):
        steps_s_G = steps_s_G + call.placement.turns[position] * call.hop_s(tier)
        share_G = (parts_G - 1.0) / parts_G / below_G
        bytes_s_G = bytes_s_G + np.where(parts_G > 1.0, share_G * call.payload_bytes / bandwidth_G, 0.0)
    return call.join(call.passes * steps_s_G, call.passes * bytes_s_G)


def _direct_s(call: _Call) -> Floats:
    """Every rank to every other at once: each tier carries what leaves the tier below it; a pair has its own limit."""
    degree_G, peers_G = call.placement.degree, np.zeros_like(call.placement.degree)
    steps_s_G, bytes_s_G = np.zeros_like(degree_G), np.zeros_like(degree_G)
    share_G = call.payload_bytes / degree_G
    for tier, members_G, below_G, parts_G, bandwidth_G in call.tiers():
        peers_G = members_G - below_G
        crossed_G = parts_G > 1.0
        steps_s_G = np.maximum(steps_s_G, np.where(crossed_G, call.hop_s(tier), 0.0))
        steps_s_G = steps_s_G + peers_G * call.get("peer")
        pair_s_G = share_G / (call.get("pair") * tier.bandwidth_bytes_per_s)
        tier_s_G = np.maximum((degree_G - below_G) * share_G / bandwidth_G * _detour(tier, parts_G), pair_s_G)
        bytes_s_G = np.maximum(bytes_s_G, np.where(crossed_G, tier_s_G, 0.0))
    return call.join(steps_s_G, bytes_s_G)


def _detour(tier: Tier, parts_G: Floats) -> Floats:
    """On rings of wires a message to a random peer passes a quarter of the circle, and loads every wire it passes."""
    if tier.kind not in ("ring", "torus"):
        return np.ones_like(parts_G)
    dimensions = 1 if tier.kind == "ring" else len(torus_dimensions(tier))
    return np.maximum(parts_G ** (1.0 / dimensions) / 4.0 * dimensions, 1.0)


def _send_s(call: _Call) -> Floats:
    """One message to the next member of the group, over the outermost tier that any of them crosses."""
    time_s_G = np.zeros_like(call.payload_bytes)
    for tier, _, _, parts_G, _ in call.tiers():
        wire = 1.0 if tier.kind in ("switch", "rail", "clos") else _wire_share(tier)
        bandwidth = tier.bandwidth_bytes_per_s / tier.oversubscription * call.reached(tier) * wire
        bandwidth = min(bandwidth, call.get("pair") * tier.bandwidth_bytes_per_s)
        hop_s_G = call.join(np.asarray(call.hop_s(tier)) + 0.0 * parts_G, call.payload_bytes / bandwidth)
        time_s_G = np.where(parts_G > 1.0, np.maximum(time_s_G, hop_s_G), time_s_G)
    return time_s_G


def _wire_share(tier: Tier) -> float:
    """Share of a chip's links that lead to one neighbour."""
    if tier.kind == "mesh":
        return 1.0 / max(tier.group_size - 1, 1)
    if tier.kind == "ring":
        return 0.5
    return 0.5 / len(torus_dimensions(tier))


def _one_shot_s(call: _Call) -> Floats:
    """Every rank reads the whole buffer of every other and adds for itself; inside the scale-up tiers only."""
    steps_s_G, bytes_s_G = np.zeros_like(call.payload_bytes), np.zeros_like(call.payload_bytes)
    for tier, members_G, below_G, parts_G, bandwidth_G in call.scale_up_tiers():
        steps_s_G = np.maximum(steps_s_G, np.where(parts_G > 1.0, call.hop_s(tier), 0.0))
        bytes_s_G = bytes_s_G + (members_G - below_G) * call.payload_bytes / bandwidth_G
    steps_s_G = steps_s_G + (call.placement.degree - 1.0) * call.get("peer")
    return np.where(call.node_count() > 1.0, np.inf, call.join(steps_s_G, bytes_s_G))


def _two_shot_s(call: _Call) -> Floats:
    """Reduce-scatter, then all-gather, each read directly from every peer: two hops however many ranks there are."""
    steps_s_G, bytes_s_G = np.zeros_like(call.payload_bytes), np.zeros_like(call.payload_bytes)
    for tier, _, below_G, parts_G, bandwidth_G in call.scale_up_tiers():
        steps_s_G = np.maximum(steps_s_G, np.where(parts_G > 1.0, 2.0 * call.hop_s(tier), 0.0))
        bytes_s_G = bytes_s_G + 2.0 * (parts_G - 1.0) / parts_G * call.payload_bytes / (below_G * bandwidth_G)
    steps_s_G = steps_s_G + 2.0 * (call.placement.degree - 1.0) * call.get("peer")
    return np.where(call.node_count() > 1.0, np.inf, call.join(steps_s_G, bytes_s_G))


def _halving_doubling_s(call: _Call) -> Floats:
    """Partners 1, 2, 4, ... apart, the nearest exchanging the most (Rabenseifner 2004): log2 steps; powers of two."""
    steps_s_G, bytes_s_G = np.zeros_like(call.payload_bytes), np.zeros_like(call.payload_bytes)
    for tier, _, below_G, parts_G, bandwidth_G in call.tiers():
        steps_s_G = steps_s_G + np.log2(parts_G) * call.hop_s(tier)
        share_G = (parts_G - 1.0) / parts_G / below_G
        bytes_s_G = bytes_s_G + np.where(parts_G > 1.0, share_G * call.payload_bytes / bandwidth_G, 0.0)
    whole_G = np.log2(call.placement.degree) % 1.0 == 0.0
    return np.where(whole_G, call.join(call.passes * steps_s_G, call.passes * bytes_s_G), np.inf)


def _bruck_s(call: _Call) -> Floats:
    """Distances 1, 2, 4, ... for any number of ranks (Bruck et al. 1997): ceil(log2) steps; far steps carry the most.

    An all-to-all forwards half of the buffer in every step.
    """
    degree_G = call.placement.degree
    steps_s_G, bytes_s_G = np.zeros_like(call.payload_bytes), np.zeros_like(call.payload_bytes)
    for tier, members_G, below_G, parts_G, bandwidth_G in call.tiers():
        turns_G = np.ceil(np.log2(members_G)) - np.ceil(np.log2(below_G))
        steps_s_G = steps_s_G + turns_G * call.hop_s(tier)
        share_G = turns_G / 2.0 if call.operation == "all_to_all" else (members_G - below_G) / degree_G
        bytes_s_G = bytes_s_G + np.where(parts_G > 1.0, share_G * call.payload_bytes / bandwidth_G, 0.0)
    return call.join(steps_s_G, bytes_s_G)


def _rail_aligned_s(call: _Call) -> Floats:
    """To the right place in one's own node first, then along that rail: both at once, a message for every peer."""
    return _relayed_s(call, peers=call.placement.degree - 1.0, together=True)


def _two_level_s(call: _Call) -> Floats:
    """The same in turn, with one message for each node: fewer peers, and the stages wait for each other."""
    places_G = call.placement.degree / call.node_count()
    return _relayed_s(call, peers=places_G + call.node_count() - 2.0, together=False)


def _relayed_s(call: _Call, *, peers: Floats, together: bool) -> Floats:
    """An all-to-all that crosses the network on rails alone; for groups of several nodes of several chips."""
    degree_G = call.placement.degree
    inside_s_G, network_s_G, steps_s_G = (np.zeros_like(call.payload_bytes) for _ in range(3))
    for tier, _, below_G, parts_G, bandwidth_G in call.tiers():
        crossed_G = parts_G > 1.0
        steps_s_G = steps_s_G + np.where(crossed_G, call.hop_s(tier), 0.0)
        stage_s_G = np.where(crossed_G, call.payload_bytes / bandwidth_G, 0.0)
        if tier.scale_up:
            inside_s_G = inside_s_G + (parts_G - 1.0) / parts_G * stage_s_G
        else:
            network_s_G = np.maximum(network_s_G, (degree_G - below_G) / degree_G * stage_s_G)
    bytes_s_G = np.maximum(inside_s_G, network_s_G) if together else inside_s_G + network_s_G
    several_G = (call.node_count() > 1.0) & (degree_G > call.node_count())
    return np.where(several_G, call.join(steps_s_G + peers * call.get("peer"), bytes_s_G), np.inf)


_ALGORITHMS: Mapping[str, Mapping[str, Callable[[_Call], Floats]]] = {
    "all_reduce": {"ring": _ring_s, "tree": _between_nodes_s, "switch": _switch_s, "hierarchical": _hierarchical_s,
                   "one-shot": _one_shot_s, "two-shot": _two_shot_s, "halving-doubling": _halving_doubling_s},
    "all_gather": {"ring": _ring_s, "hierarchical": _hierarchical_s, "halving-doubling": _halving_doubling_s,
                   "bruck": _bruck_s, "pairwise": _direct_s},
    "reduce_scatter": {"ring": _ring_s, "hierarchical": _hierarchical_s, "halving-doubling": _halving_doubling_s,
                       "pairwise": _direct_s},
    "all_to_all": {"direct": _direct_s, "rail-aligned": _rail_aligned_s, "two-level": _two_level_s,
                   "bruck": _bruck_s},
    "send": {"direct": _send_s},
    "broadcast": {"ring": _ring_s, "hierarchical": _hierarchical_s},
}
#: Operation -> every algorithm that is modelled; a library has those of them for which its profile gives a ratio.
ALGORITHMS: Mapping[str, tuple[str, ...]] = {operation: tuple(ways) for operation, ways in _ALGORITHMS.items()}
