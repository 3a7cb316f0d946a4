"""Nouns of running: what is asked of an engine, what it answers, and what it promises.

An engine turns orders into processes. It decides nothing and remembers no intention: whoever drives it says the same
thing again until what is seen agrees with what is wanted. So every order may be lost, repeated or late, and the
promises below hold all the same. Times are whole nanoseconds of the driver's clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, Protocol

__all__ = ["AttemptId", "Beat", "Engine", "Launch", "Limits", "Node", "NodeSeen", "Observation", "Phase", "RankSeen",
           "Row", "TaskSeen"]


class AttemptId(NamedTuple):
    """One attempt to run the gang of one job. epoch: number of the ledger's record that called for it, so that a later
    attempt has a larger one and none is ever used twice."""

    job: int
    epoch: int

    def __str__(self) -> str:
        """As it is written in names of files and processes."""
        return f"{self.job}.{self.epoch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine as an engine offers it. chips may be virtual, so that a laptop runs gangs of many ranks.

    switches: level -> switch, innermost level first; the same levels on every node. address: what other nodes' ranks
    reach it by. device_variables: environment variables in which programs look for the numbers of their chips.
    """

    name: str
    kind: str
    chip_count: int
    cpu_milli: int = 0
    memory_bytes: int = 0
    switches: Mapping[str, str] = field(default_factory=dict)
    address: str = "127.0.0.1"
    device_variables: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What each rank may take of its machine; 0 = no limit of its own."""

    open_files: int = 0
    memory_bytes: int = 0
    core_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The ranks of one attempt on one node. chips: the node's numbers of all chips, those of the first rank first.

    incarnation: of the node, as it was seen when this was ordered; any other ignores the order.
    """

    node: str
    incarnation: str
    chips: tuple[int, ...]
    first_rank: int
    rank_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """An order to run one attempt: the whole gang, one row a node, in the order of ranks. argv is never a shell line.

    environment: added to what the engine sets (`environment.rank_environment`). directory: where ranks start, on every
    node. grace_ns: from SIGTERM to SIGKILL when it is stopped. restarts: attempts of this job before.
    """

    attempt: AttemptId
    name: str
    argv: tuple[str, ...]
    rows: tuple[Row, ...]
    directory: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    checkpoint_directory: str = ""
    share_milli: int = 1000
    restarts: int = 0
    grace_ns: int = 10_000_000_000

    @property
    def world_size(self) -> int:
        """Ranks of the whole gang."""
        return sum(row.rank_count for row in self.rows)


class Phase(IntEnum):
    """Where the ranks of one row stand. GONE: none of them runs, and none ever will: it was stopped, perhaps before it
    started. EXITED: all of them ended by themselves, with their exit codes."""

    STARTING = 0
    RUNNING = 1
    EXITED = 2
    GONE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A rank's word of life: the step it is at, when it was heard, and the time of that step that was its own work."""

    step: int
    heard_ns: int
    busy_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSeen:
    """One rank. exit_code: None while it runs, below 0 for a signal. beat: None where it never gave one."""

    rank: int
    pid: int = 0
    exit_code: int | None = None
    beat: Beat | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSeen:
    """What is known of one row of one attempt. error: why it could not be started ("" = it could)."""

    attempt: AttemptId
    node: str
    incarnation: str
    phase: Phase
    ranks: tuple[RankSeen, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSeen:
    """What is known of a node. heard_ns: when it last said anything. incarnation: changes whenever what ran on it
    before is dead for certain (a new agent, a reboot); "" = never heard. fenced: it was cut off, and nothing that was
    started on this incarnation runs or will."""

    name: str
    incarnation: str = ""
    heard_ns: int = 0
    fenced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Everything that an engine knows now. A row that is not listed is not known, which does not mean that it is not
    running: only EXITED, GONE, another incarnation or a fence mean that."""

    nodes: tuple[NodeSeen, ...] = ()
    tasks: tuple[TaskSeen, ...] = ()


class Engine(Protocol):
    """What makes processes of orders. No call waits for a node; an order that does not arrive is given again.

    Promises, which `tests/runners/contract.py` holds every engine to:

    1. `start` twice is `start` once, per attempt and node, also across restarts of the driver.
    2. Once a `stop` of an attempt has arrived at a node, a `start` of it there never runs anything, before or after.
    3. A row is started only on the incarnation that its order names.
    4. EXITED and GONE are said only when no process of that row is alive, its children's children among them.
    5. A node is `fenced` only when nothing started on that incarnation is alive; it comes back as another one.
    6. What ended is told until it is forgotten.
    """

    name: str

    def nodes(self) -> tuple[Node, ...]:
        """The machines there are; the same as long as the engine lives."""
        ...

    def observe(self, now_ns: int) -> Observation:
        """What is known, without waiting. now_ns is the driver's clock, by which `heard_ns` are given."""
        ...

    def start(self, launch: Launch, nodes: Sequence[str]) -> None:
        """Run the rows of an attempt that stand on these nodes."""
        ...

    def stop(self, attempt: AttemptId, nodes: Sequence[str], grace_ns: int) -> None:
        """End an attempt on these nodes: SIGTERM, after `grace_ns` SIGKILL; and bar it from ever starting there."""
        ...

    def fence(self, node: str) -> None:
        """Cut a silent node off: kill everything on it by a way that does not need its agent."""
        ...

    def forget(self, attempt: AttemptId) -> None:
        """The attempt is over on every node and written down; nobody will ask again."""
        ...

    def log_path(self, attempt: AttemptId, rank: int) -> str:
        """File in which the output of a rank is, the latest part; older parts have .1, .2, ... behind their name."""
        ...

    def close(self) -> None:
        """Let go of everything but the jobs: they go on."""
        ...
