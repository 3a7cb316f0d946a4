"""Nouns of the fabric: tiers from the inside out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from serried.catalogue import Figure

__all__ = ["FABRIC_FIGURES", "CollectiveProfile", "Fabric", "Tier", "TierKind"]

TierKind = Literal["switch", "mesh", "ring", "torus", "rail", "clos"]

#: Every figure a tier may give, and its base unit.
FABRIC_FIGURES: Mapping[str, str] = {
    "bandwidth": "bytes/s", "latency": "s", "oversubscription": "1", "group_size": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One level of wires.

    group_size: chips that reach each other at this tier or below (8 for a node, 72 for a rack, ...); the outermost
    tier may be unbounded (0).
    bandwidth_bytes_per_s: per direction, per chip, at this tier. latency_s: one hop, one way.
    oversubscription: 1 = full bisection.
    in_network_reduction: the switch can add (NVLS, SHARP and their like).
    """

    name: str
    kind: TierKind
    group_size: int
    bandwidth_bytes_per_s: float
    latency_s: float
    oversubscription: float = 1.0
    in_network_reduction: bool = False
    figures: Mapping[str, Figure] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveProfile:
    """Calibrated parameters of one collective library on one fabric family (see `serried.fabric.collective`).

    parameters: flat, by "<tier kind>.<algorithm>.<name>"; dimensionless ratios to the tier's figures, or seconds.
    evidence_class: "kernel-calibrated chip", "same family" or "data sheet only".
    """

    name: str
    library: str
    parameters: Mapping[str, float]
    spread: float
    evidence_class: str
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabric:
    """Many chips as one machine: tiers from the inside out, and the collective library that drives them."""

    name: str
    tiers: tuple[Tier, ...]
    profile: CollectiveProfile
    file: str = ""
    notes: str = ""

    @property
    def node_size(self) -> int:
        """Chips in the innermost group."""
        return self.tiers[0].group_size
