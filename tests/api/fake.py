"""A control loop of a few lines, for tests of what stands before it."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from serried.control.ledger import LedgerLost
from serried.control.spec import JobPhase, JobSpec, JobView, NodeView, RankView, Usage
from serried.errors import BadInput, NoAnswer
from serried.fleet import Why

FINAL = (JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.CANCELLED)


def answered(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(value) if isinstance(value, Exception) else future.set_result(value)
    return future


class FakeControl:
    """Jobs that run as soon as they are submitted. lost: the ledger is away. folder: of logs."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder, self.lost = folder, False
        self.specs: list[JobSpec] = []
        self.views: list[JobView] = []
        self.keys: dict[str, int] = {}
        self.states = {"a": "up", "b": "up"}

    def _do(self, work) -> Future[Any]:
        if self.lost:
            return answered(LedgerLost("The database is away.", remedy="Ask again with the same key."))
        try:
            return answered(work())
        except (BadInput, NoAnswer) as error:
            return answered(error)

    def _view(self, number: int) -> JobView:
        if not 0 <= number < len(self.views):
            raise BadInput(field="job", value=number, expected="the number of a job", remedy="List them.")
        return self.views[number]

    def _node(self, name: str) -> NodeView:
        if name not in self.states:
            raise BadInput(field="node", value=name, expected="one of a, b", remedy="Name one.")
        return NodeView(name=name, kind="virtual", chip_count=4, idle_chips=4, state=self.states[name], heard_s=1.0,
                        incarnation="x")

    def submit(self, spec: JobSpec, key: str) -> Future[int]:
        def work() -> int:
            if key in self.keys:
                if self.specs[self.keys[key]] != spec:
                    raise BadInput(field="key", value=key, expected="the very submission", remedy="Use a new key.")
                return self.keys[key]
            if spec.tenant not in ("", "research"):
                raise BadInput(field="tenant", value=spec.tenant, expected="research", remedy="Name it.")
            number = len(self.specs)
            ranks = tuple(RankView(rank=rank, node="a", chips=(rank,)) for rank in range(min(spec.workers, 4)))
            self.specs.append(spec)
            self.views.append(JobView(number=number, name=spec.name, tenant=spec.tenant, priority=spec.priority,
                                      phase=JobPhase.RUNNING, chip_count=spec.workers, submitted_s=1.0, epoch=0,
                                      ranks=ranks))
            if key:
                self.keys[key] = number
            return number
        return self._do(work)

    def end(self, number: int, phase: JobPhase = JobPhase.SUCCEEDED) -> JobView:
        self.views[number] = replace(self._view(number), phase=phase, ended_s=2.0)
        return self.views[number]

    def cancel(self, number: int) -> Future[JobView]:
        return self._do(lambda: self.end(number, JobPhase.CANCELLED))

    def drain(self, node: str, why: str) -> Future[NodeView]:
        def work() -> NodeView:
            self._node(node)
            self.states[node] = "draining"
            return self._node(node)
        return self._do(work)

    def open(self, node: str) -> Future[NodeView]:
        def work() -> NodeView:
            self._node(node)
            self.states[node] = "up"
            return self._node(node)
        return self._do(work)

    def job(self, number: int) -> Future[JobView]:
        return self._do(lambda: self._view(number))

    def jobs(self, *, phase: str = "", tenant: str = "", after: int = -1, limit: int = 100) -> Future[list[JobView]]:
        return self._do(lambda: [view for view in self.views[after + 1:] if phase in ("", view.phase)
                                 and tenant in ("", view.tenant)][:limit])

    def why(self, number: int) -> Future[Why]:
        return self._do(lambda: Why(job=self._view(number).number, reason="room", sentence="It waits for 4 chips.",
                                    figures={"chips": 4.0}))

    def nodes(self) -> Future[list[NodeView]]:
        return self._do(lambda: [self._node(name) for name in self.states])

    def usage(self) -> Future[Usage]:
        return self._do(lambda: Usage(
            chip_count=8, busy_chips=1, down_chips=0, jobs_by_phase=Counter(view.phase.value for view in self.views),
            chips_by_tenant={"research": 1.0}, records=len(self.views), policy="fair", engine="fake"))

    def log_path(self, number: int, rank: int, epoch: int | None) -> Future[str]:
        def work() -> str:
            view = self._view(number)
            if rank >= len(view.ranks):
                raise BadInput(field="rank", value=rank, expected=f"0 to {len(view.ranks) - 1}", remedy="Choose one.")
            return f"{self.folder}/{number}.{view.epoch if epoch is None else epoch}.{rank}"
        return self._do(work)

    def history(self, number: int) -> Future[list[dict[str, Any]]]:
        return self._do(lambda: [{"time_s": 1.0, "what": "submitted", "job": self._view(number).number}])

    def counters(self) -> Future[dict[str, float]]:
        return self._do(lambda: {"submissions_total": float(len(self.views)), "serried_loop_lag_s": 0.01})

    def records(self, after: int, limit: int) -> Future[list[str]]:
        return self._do(lambda: [json.dumps({"seq": seq}) for seq in range(len(self.views))][after + 1:][:limit])
