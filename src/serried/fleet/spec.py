"""Nouns of the fleet: what there is, what is asked for, what happens, and what a policy answers.

Axes: N = node, C = chip of a node, L = level of switches from the inside out, K = kind of chip, T = tenant, R = row of
a placement (one per node that it touches). Time is integer nanoseconds of an event clock; nobody here knows whether
that clock is real.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from serried.fleet.snapshot import Snapshot

__all__ = ["FAR_NS", "WHOLE_MILLI", "Alternative", "Event", "EventKind", "Fleet", "Job", "JobStatus", "NodeFlag",
           "Placement", "Plan", "Policy", "Shape", "Span", "Tenant", "Why"]

Ints = NDArray[np.int64]
Nodes = NDArray[np.int32]
#: Some nodes as an index into columns: a slice where they stand side by side, which is several times as fast.
Span = slice | Nodes

#: A chip is a thousand shares; a job of fewer shares the chip.
WHOLE_MILLI = 1000
#: When something ends that nobody knows the end of.
FAR_NS = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """Who pays. Tenants form a tree; fair share divides each parent's share by `weight` among its children.

    parent: index of the tenant above, -1 at the top. quota_chips_K: chips of each kind that are the tenant's by right;
    empty = no quota of its own. borrows: whether it may hold more than its quota while others leave theirs idle.
    """

    name: str
    parent: int = -1
    weight: float = 1.0
    quota_chips_K: tuple[int, ...] = ()
    borrows: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fleet:
    """What there is, as columns over nodes; it does not change while the fleet runs.

    kinds: names of chips. levels: names of switch levels, innermost first; switch_LN: the switch of each level that a
    node hangs on; nodes of one switch stand side by side and switches nest (`fleet_of` sorts and checks).
    usage_half_life_ns: how fast fair share forgets; 0 = it remembers everything.
    """

    kinds: tuple[str, ...]
    levels: tuple[str, ...]
    kind_N: NDArray[np.int16]
    chip_count_N: NDArray[np.int16]
    cpu_milli_N: Ints
    memory_bytes_N: Ints
    switch_LN: NDArray[np.int32]
    node_names: tuple[str, ...] = ()
    tenants: tuple[Tenant, ...] = (Tenant(name="all"),)
    usage_half_life_ns: int = 0

    @property
    def node_count(self) -> int:
        """Number of nodes."""
        return len(self.kind_N)

    def node_name(self, node: int) -> str:
        """The node's own name, or its number."""
        return self.node_names[node] if self.node_names else f"node-{node}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One way to run a job: so many workers of so many chips each, on chips of any of `kinds`.

    throughput_per_s: predicted work a second of the whole gang; price_usd_per_s: what it then costs. The policy takes
    alternatives in the order of throughput per price (`worth`); where the numbers come from is not its business.
    """

    kinds: tuple[int, ...]
    worker_count: int = 1
    chips_per_worker: int = 1
    throughput_per_s: float = 1.0
    price_usd_per_s: float = 0.0

    @property
    def worth(self) -> float:
        """Work per dollar; work alone where nothing has a price."""
        return self.throughput_per_s / self.price_usd_per_s if self.price_usd_per_s > 0 else self.throughput_per_s

    @property
    def chip_count(self) -> int:
        """Chips of the whole gang."""
        return self.worker_count * self.chips_per_worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a job asks of the fleet. Jobs of one shape share one object, so that answers can be kept per shape.

    share_milli: of each chip; less than 1000 only for one worker of one chip. cpu_milli, memory_bytes: per worker.
    level: index of the switch level that the gang must (`level_required`) or should stay under; -1 = anywhere.
    island_workers: so many consecutive workers, by rank, never straddle two switches of the innermost level (the
    scale-up island); 0 = free. spread_workers: no switch of spread_level holds more of the gang (failure domains); 0 =
    free.
    """

    alternatives: tuple[Alternative, ...]
    share_milli: int = WHOLE_MILLI
    cpu_milli: int = 0
    memory_bytes: int = 0
    level: int = -1
    level_required: bool = False
    island_workers: int = 0
    spread_level: int = -1
    spread_workers: int = 0

    def time_ratio(self, alternative: int) -> float:
        """How long a piece of work takes on an alternative, beside the first."""
        return self.alternatives[0].throughput_per_s / self.alternatives[alternative].throughput_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One submission. runtime_ns: what is expected of it on its first alternative (0 = unknown: it is never let past a
    reservation).

    preemptible: whether a job of higher priority may push it out. tenant: index into the fleet's tenants.
    """

    name: str
    shape: Shape
    tenant: int = 0
    priority: int = 0
    preemptible: bool = True
    runtime_ns: int = 0

    def runtime_on_ns(self, alternative: int) -> int:
        """What is expected of it on one of its alternatives; 0 = unknown."""
        if not alternative or not self.runtime_ns:
            return self.runtime_ns
        return max(round(self.runtime_ns * self.shape.time_ratio(alternative)), 1)


@dataclass(slots=True, kw_only=True, eq=False)
class Placement:
    """Where a gang runs: one row per node, in the order of ranks. chips_R: bit c set = chip c of that node.

    workers_R: how many workers of the gang stand on the node; alternative: which of the shape's was taken.

    Not frozen, nor are events and plans: a run makes millions, and a frozen one costs three times as much to make. They
    are never written to all the same.
    """

    node_R: Nodes
    chips_R: NDArray[np.uint64]
    workers_R: NDArray[np.int32]
    alternative: int = 0
    _nodes: Span | None = field(default=None, init=False, repr=False)

    @property
    def nodes(self) -> Span:
        """The nodes as an index into columns."""
        if self._nodes is None:
            first, end = self.node_R.item(0), self.node_R.item(-1) + 1
            side_by_side = end - first == len(self.node_R) and not np.count_nonzero(self.node_R[1:] <= self.node_R[:-1])
            self._nodes = slice(first, end) if side_by_side else self.node_R
        return self._nodes


class JobStatus(IntEnum):
    """BROKEN: it holds its chips, some of its nodes are down, and it does not progress."""

    PENDING = 0
    RUNNING = 1
    BROKEN = 2
    DONE = 3


class NodeFlag(IntFlag):
    """Why a node takes no new work; 0 = it does. A SPARE is kept for replacements, a RESERVED one for a waiting job."""

    DOWN = 1
    DRAINING = 2
    SPARE = 4
    RESERVED = 8


class EventKind(IntEnum):
    """What can happen. The first five are the world's, the others are decisions that somebody carried out."""

    SUBMIT = 0      # request
    FINISH = 1      # job
    CANCEL = 2      # job
    FAIL = 3        # nodes (whole nodes, or of one node the chips of `chips`); its jobs become BROKEN
    REPAIR = 4      # nodes (and chips)
    PLACE = 5       # job, placement
    REPLACE = 6     # job, placement: the same gang with some rows exchanged; it runs again
    MOVE = 7        # job, placement: all of it elsewhere, from a checkpoint
    EVICT = 8       # job; it waits again
    DRAIN = 9       # nodes
    OPEN = 10       # nodes: neither draining nor spare any more
    SPARE = 11      # nodes
    RESERVE = 12    # job, nodes, until_ns: kept for a waiting job that will start about then; no nodes = no longer


@dataclass(slots=True, kw_only=True, eq=False)
class Event:
    """One change of the fleet. A plan is made of events that have not happened yet.

    chips: for FAIL and REPAIR of single chips, the bits of those chips; 0 = the node itself. cause: one word for the
    books ("preempted", "defragmented", "drained", ...).
    """

    time_ns: int
    kind: EventKind
    job: int = -1
    request: Job | None = None
    placement: Placement | None = None
    nodes: tuple[int, ...] = ()
    chips: int = 0
    until_ns: int = 0
    cause: str = ""


@dataclass(slots=True, kw_only=True)
class Plan:
    """One decision (a gang and whom it pushes out, a repair, a move), on the state of `version`; a later event may need
    an earlier one. Whoever applies it asks again, until the plan is empty.

    wake_ns: when the policy wants to be asked again even if nothing happens; -1 = it does not.
    """

    version: int
    events: tuple[Event, ...] = ()
    wake_ns: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Why a job waits, now: a word for programs (`reason`), a sentence for people, and figures behind both."""

    job: int
    reason: str
    sentence: str
    figures: Mapping[str, float] = field(default_factory=dict)


class Policy(Protocol):
    """Snapshot in, plan out. A policy may remember what it computed, never what happened: asked with the same snapshot,
    a fresh policy of the same arguments answers the same plan."""

    name: str

    def plan(self, snapshot: Snapshot) -> Plan:
        """What to do now."""
        ...

    def why(self, snapshot: Snapshot, job: int) -> Why:
        """Why this job waits."""
        ...
