"""Nouns of the control plane: what people submit, what they see of it, and by which terms the fleet is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from serried.runners import Limits

__all__ = ["Health", "JobPhase", "JobSpec", "JobView", "NodeView", "RankView", "Terms", "Topology", "Usage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Where the gang shall stand. level: name of a switch level that it must (`required`) or should stay under; "" =
    anywhere. island_workers: so many consecutive ranks share an innermost switch. spread_workers: no switch of
    spread_level holds more of the gang."""

    level: str = ""
    required: bool = False
    island_workers: int = 0
    spread_level: str = ""
    spread_workers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """When a running gang is not well. heartbeat_s: so long a rank may be silent in the file that SERRIED_HEARTBEAT
    names before the gang is taken to hang and is restarted; 0 = it is not asked. start_s: the same until the first
    beat. straggler_ratio: a rank whose own work a step takes so many times the gang's median is called a straggler."""

    heartbeat_s: float = 0.0
    start_s: float = 600.0
    straggler_ratio: float = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One submission. argv: a program and its arguments, run once per worker (rank); never a shell line.

    chips: kinds of chip that will do, "" to choose none in particular (empty = any kind). share: of one chip, below 1
    only for one worker of one chip. cpu_cores, memory_bytes: per worker. retries: so often the job is restarted after
    its own failure (nodes that fail under it do not count), each time after backoff_s, doubled every time.
    runtime_s: what is expected of it; 0 = unknown. workload: what was asked for where serried wrote the command.
    """

    name: str
    argv: tuple[str, ...]
    workers: int = 1
    chips_per_worker: int = 1
    chips: tuple[str, ...] = ()
    share: float = 1.0
    cpu_cores: float = 0.0
    memory_bytes: int = 0
    tenant: str = ""
    priority: int = 0
    preemptible: bool = True
    topology: Topology = field(default_factory=Topology)
    directory: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    checkpoint_directory: str = ""
    retries: int = 3
    backoff_s: float = 1.0
    grace_s: float = 10.0
    runtime_s: float = 0.0
    health: Health = field(default_factory=Health)
    limits: Limits = field(default_factory=Limits)
    workload: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How the fleet is run. silence_ns: a node not heard for so long is fenced. tick_ns: the longest the loop sleeps.

    start_ns: so long the ranks of an ordered attempt may take until all of them run. repeat_ns: after so long an order
    whose effect is not seen is given again. most_backoff_ns: how far doubling goes.
    """

    silence_ns: int = 3_000_000_000
    tick_ns: int = 100_000_000
    start_ns: int = 60_000_000_000
    repeat_ns: int = 1_000_000_000
    most_backoff_ns: int = 300_000_000_000


class JobPhase(StrEnum):
    """What people are told of a job. STARTING: it has its chips, and not all of its ranks run yet. BACKING_OFF: it has
    its chips and waits before the next attempt. MENDING: nodes failed under it. STOPPING: it is over, and some of its
    processes are not gone yet."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    BACKING_OFF = "backing off"
    MENDING = "mending"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankView:
    """One rank of the current or last attempt."""

    rank: int
    node: str
    chips: tuple[int, ...]
    pid: int = 0
    exit_code: int | None = None
    step: int = -1
    straggles: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as it stands. Times are s since the Unix epoch, 0.0 where it has not happened. outcome: why it ended, or
    why its last attempt did. epoch: of the current or last attempt, -1 before the first."""

    number: int
    name: str
    tenant: str
    priority: int
    phase: JobPhase
    chip_count: int
    submitted_s: float
    started_s: float = 0.0
    ended_s: float = 0.0
    epoch: int = -1
    restarts: int = 0
    retries_left: int = 0
    evictions: int = 0
    outcome: str = ""
    ranks: tuple[RankView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """A node as it stands. state: "up", "draining", "spare", "reserved", "silent", "down", or
    "undeclared": it is no part of the fleet any more."""

    name: str
    kind: str
    chip_count: int
    idle_chips: int
    state: str
    heard_s: float
    incarnation: str
    jobs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The fleet at a glance."""

    chip_count: int
    busy_chips: int
    down_chips: int
    jobs_by_phase: Mapping[str, int]
    chips_by_tenant: Mapping[str, float]
    records: int
    policy: str
    engine: str
