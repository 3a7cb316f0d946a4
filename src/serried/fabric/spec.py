"""Nouns of the fabric: tiers from the inside out, the library that drives them, fleets of chips on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from serried.catalogue import Figure
from serried.silicon import Chip

__all__ = ["FABRIC_FIGURES", "OPERATIONS", "PARAMETER_UNITS", "PROTOCOLS", "TIER_KINDS", "CollectiveProfile", "Fabric",
           "Fleet", "Operation", "Pool", "Tier", "TierKind"]

TierKind = Literal["switch", "mesh", "ring", "torus", "rail", "clos"]
TIER_KINDS: tuple[TierKind, ...] = ("switch", "mesh", "ring", "torus", "rail", "clos")

Operation = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send", "broadcast"]
OPERATIONS: tuple[Operation, ...] = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send", "broadcast")

#: How bytes are handed over: with a flag in every word (low latency, half the bandwidth), with a flag in every line,
#: or in large chunks behind a fence.
PROTOCOLS = ("ll", "ll128", "simple")

#: Every figure a tier may give, and its base unit.
FABRIC_FIGURES: Mapping[str, str] = {"bandwidth": "bytes/s", "latency": "s", "oversubscription": "1"}

#: Every parameter family of a collective profile and its base unit; see `serried.fabric.algorithms` for the formulas.
#: A parameter is called "<family>.<algorithm>.<protocol>", e.g. "step.ring.ll128"; launch and local have one word more.
PARAMETER_UNITS: Mapping[str, str] = {
    "launch": "s",       # before the first byte moves: kernel start, handshake
    "step": "s",         # software cost of one hop inside the scale-up tiers, above the tier's wire latency
    "hop": "s",          # the same between nodes
    "ratio": "1",        # bandwidth of the tier that the algorithm reaches
    "network": "1",      # likewise between nodes
    "pair": "1",         # bandwidth that one pair of ranks reaches, in tier bandwidths
    "peer": "s",         # cost of each further peer of a rank that talks to all at once
    "floor": "s",        # host time of an eager call: no call is shorter
    "exponent": "1",     # how steps and bytes add: 1/2 a pipeline in the best chunks, 1 in turn, large the longer
    "fill": "1",         # most that filling a pipeline of chunks costs, in times of its steps
    "lockstep": "1",     # exponent of a flagged ring that crosses nodes, where every step waits for the slowest link
    "choice": "1",       # what the library believes of its own time, as a ratio, when it chooses
    "local": "1",        # speed at which a rank copies its own share, in tier bandwidths
    "scale": "1",        # growth of a hop with each doubling of the nodes beyond two (stragglers, load imbalance)
    "minimum": "1",      # smallest group that uses the algorithm
    "maximum": "bytes",  # largest payload that uses the algorithm
    "stolen": "1",       # what a running collective takes from compute beside it: share of the cores, of the HBM
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One level of wires.

    group_size: chips that reach each other at this tier or below (8 for a node, 72 for a rack, ...); the outermost
    tier may be unbounded (0).
    bandwidth_bytes_per_s: per direction, per chip, at this tier. latency_s: one hop, one way.
    oversubscription: 1 = full bisection.
    in_network_reduction: the switch can add (NVLS, SHARP and their like).
    dimensions: degrees of a torus, inside out; empty = as cubic as the group allows.
    """

    name: str
    kind: TierKind
    group_size: int
    bandwidth_bytes_per_s: float
    latency_s: float
    oversubscription: float = 1.0
    in_network_reduction: bool = False
    dimensions: tuple[int, ...] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict, repr=False)

    @property
    def scale_up(self) -> bool:
        """Whether chips here reach each other by load and store, or nearly so, without a network adapter."""
        return self.kind not in ("rail", "clos")


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveProfile:
    """Calibrated parameters of one collective library on one fabric family (see `serried.fabric.algorithms`).

    parameters: by "<family>.<algorithm>.<protocol>" (PARAMETER_UNITS); ratios to the tier's figures, or seconds.
    An algorithm without a "ratio" does not exist in the library.
    evidence_class: "kernel-calibrated chip", "same family" or "data sheet only", inside the scale-up tiers.
    network_evidence_class: the same for groups that cross nodes.
    """

    name: str
    library: str
    parameters: Mapping[str, float]
    spread: float
    evidence_class: str
    network_evidence_class: str = "data sheet only"
    source: str = ""
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabric:
    """Many chips as one machine: tiers from the inside out, and the collective library that drives them."""

    name: str
    tiers: tuple[Tier, ...]
    profile: CollectiveProfile
    file: str = ""
    notes: str = ""
    title: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def node_size(self) -> int:
        """Chips in the innermost group; 0 when it is unbounded."""
        return self.tiers[0].group_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """`chip_count` equal chips on one fabric."""

    chip: Chip
    fabric: Fabric
    chip_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Pools of chips; a fleet may mix chips."""

    name: str
    pools: tuple[Pool, ...]
    file: str = ""

    @property
    def chip_count(self) -> int:
        """Chips in all pools."""
        return sum(pool.chip_count for pool in self.pools)
