"""Nouns of the door: whom the application asks, and what its answers look like.

Every answer is one JSON object with `schema`, a name and a version, and one more field named for what was asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Literal, Protocol

from typing_extensions import TypedDict

from serried.control.spec import JobSpec, JobView, NodeView, Usage
from serried.fleet import Why

__all__ = ["Control", "ErrorAnswer", "HistoryAnswer", "JobAnswer", "JobsAnswer", "NodeAnswer", "NodesAnswer",
           "RecordsAnswer", "SubmittedAnswer", "UsageAnswer", "WhyAnswer", "WhyView"]


class Control(Protocol):
    """What is asked of the control loop. Every method returns at once; its future fails with BadInput for what is not
    known, NoAnswer, or LedgerLost while the database is away."""

    def submit(self, spec: JobSpec, key: str) -> Future[int]:
        """Number of the job, once it is on the disk; the same key again is the same job."""
        ...

    def cancel(self, number: int) -> Future[JobView]:
        """End a job."""
        ...

    def drain(self, node: str, why: str) -> Future[NodeView]:
        """Let nothing new start on a node."""
        ...

    def open(self, node: str) -> Future[NodeView]:
        """Let a drained node take work again."""
        ...

    def job(self, number: int) -> Future[JobView]:
        """A job as it stands."""
        ...

    def jobs(self, *, phase: str = "", tenant: str = "", after: int = -1, limit: int = 100) -> Future[list[JobView]]:
        """Jobs of a number above `after`, in order."""
        ...

    def why(self, number: int) -> Future[Why]:
        """Why a job waits."""
        ...

    def nodes(self) -> Future[list[NodeView]]:
        """Every node."""
        ...

    def usage(self) -> Future[Usage]:
        """The fleet at a glance."""
        ...

    def log_path(self, number: int, rank: int, epoch: int | None) -> Future[str]:
        """File of a rank's latest output; older parts have .1, .2, ... behind their name."""
        ...

    def history(self, number: int) -> Future[list[dict[str, Any]]]:
        """What happened to a job, for people."""
        ...

    def counters(self) -> Future[dict[str, float]]:
        """Figures for /metrics."""
        ...

    def records(self, after: int, limit: int) -> Future[list[str]]:
        """Lines of the ledger."""
        ...


class WhyView(TypedDict):
    """Why a job waits: a word for programs, a sentence for people, and figures behind both."""

    job: int
    reason: str
    sentence: str
    figures: Mapping[str, float]


class SubmittedAnswer(TypedDict):
    """The number of a job that is safe."""

    schema: Literal["serried/submitted/1"]
    job: int


class JobAnswer(TypedDict):
    """One job."""

    schema: Literal["serried/job/1"]
    job: JobView


class JobsAnswer(TypedDict):
    """A page of jobs. next_after: what to ask for the next one, null on the last."""

    schema: Literal["serried/jobs/1"]
    jobs: list[JobView]
    next_after: int | None


class WhyAnswer(TypedDict):
    """Why a job waits."""

    schema: Literal["serried/why/1"]
    why: WhyView


class HistoryAnswer(TypedDict):
    """What happened to a job, oldest first."""

    schema: Literal["serried/history/1"]
    history: list[dict[str, Any]]


class NodeAnswer(TypedDict):
    """One node."""

    schema: Literal["serried/node/1"]
    node: NodeView


class NodesAnswer(TypedDict):
    """Every node."""

    schema: Literal["serried/nodes/1"]
    nodes: list[NodeView]


class UsageAnswer(TypedDict):
    """The fleet at a glance."""

    schema: Literal["serried/usage/1"]
    usage: Usage


class RecordsAnswer(TypedDict):
    """A page of the ledger's lines. next_after: as of jobs."""

    schema: Literal["serried/records/1"]
    records: list[str]
    next_after: int | None


class ErrorAnswer(TypedDict):
    """What is wrong, where, what was expected, and what mends it; "" where it does not apply."""

    schema: Literal["serried/error/1"]
    error: str
    message: str
    file: str
    field: str
    value: str
    expected: str
    remedy: str
    binding: str
