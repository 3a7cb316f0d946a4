"""What is seen of the engine's world now, and what follows from it with certainty.

What is not known is not gone: only an ending that the engine reports, another incarnation of the node, or a fence says
that no process of a row is left.
"""

from __future__ import annotations

import operator
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from serried.control.books import Attempt
from serried.runners import AttemptId, NodeSeen, Observation, Phase, RankSeen, TaskSeen

__all__ = ["Ending", "Sight", "ending_of"]

_OVER = (Phase.EXITED, Phase.GONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an attempt ended. counts: whether it is the job's own doing."""

    succeeded: bool = False
    why: str = ""
    exit_codes: tuple[int | None, ...] = ()
    counts: bool = True


class Sight:
    """The last observation, by name. began_ns: since when anybody looks; nobody is silent for longer than that.

    stirred_tasks, stirred_nodes: whose word differs from the one before. Of tens of thousands of rows few have news at
    a time, and engines give those without it as the very objects that they gave before.
    """

    def __init__(self, *, began_ns: int, silence_ns: int) -> None:
        self.nodes: dict[str, NodeSeen] = {}
        self.tasks: dict[tuple[AttemptId, str], TaskSeen] = {}
        self.stirred_tasks: set[AttemptId] = set()
        self.stirred_nodes: list[str] = []
        self._told: tuple[TaskSeen, ...] = ()
        self._ended: set[AttemptId] = set()
        self._began_ns, self._silence_ns, self._now_ns = began_ns, silence_ns, began_ns
        self._incarnations: dict[tuple[AttemptId, str], str] = {}   # of rows, when they were last seen

    def look(self, observation: Observation, now_ns: int) -> None:
        """Take in what the engine knows."""
        self._now_ns = now_ns
        before, self.nodes = self.nodes, {seen.name: seen for seen in observation.nodes}
        self.stirred_nodes = [name for name, seen in self.nodes.items()
                              if name not in before or self._differs(before[name], seen)]
        self.stirred_tasks.clear()
        told, self._told = self._told, observation.tasks
        if len(told) != len(self._told) or not all(map(operator.is_, told, self._told)):
            self._look_at_tasks()

    def _differs(self, before: NodeSeen, seen: NodeSeen) -> bool:
        """Whether a node's word means anything else than before; that it was heard once more is no news."""
        return (before.incarnation != seen.incarnation or before.fenced != seen.fenced
                or (before.heard_ns > self._began_ns) != (seen.heard_ns > self._began_ns))

    def _look_at_tasks(self) -> None:
        before, self.tasks = self.tasks, {(seen.attempt, seen.node): seen for seen in self._told}
        for key, seen in self.tasks.items():
            if before.get(key) is not seen:
                self._incarnations[key] = seen.incarnation
                self.stirred_tasks.add(seen.attempt)
        self.stirred_tasks.update(attempt for attempt, _ in before.keys() - self.tasks.keys())
        alive = {attempt for (attempt, _), task in self.tasks.items() if task.phase not in _OVER}
        self._ended = {attempt for attempt, _ in self.tasks} - alive

    def forget(self, attempt: AttemptId, nodes: Sequence[str]) -> None:
        """The attempt is closed: what was known of its rows matters no more."""
        for node in nodes:
            self._incarnations.pop((attempt, node), None)

    def is_fresh(self, node: str) -> bool:
        """Whether a node lives, and was heard lately."""
        seen = self.nodes.get(node)
        return (seen is not None and bool(seen.incarnation) and not seen.fenced
                and self._now_ns - seen.heard_ns <= self._silence_ns)

    def silent(self) -> Iterator[str]:
        """Nodes that were not heard for too long and are not cut off yet."""
        for name, seen in self.nodes.items():
            if not seen.fenced and self.silence_ns(name) > self._silence_ns:
                yield name

    def silence_ns(self, node: str) -> int:
        """For how long a node has said nothing, as far as anybody listened."""
        return self._now_ns - max(self.nodes[node].heard_ns, self._began_ns)

    def is_gone(self, attempt: Attempt, node: str) -> bool:
        """Whether it is certain that no process of a row lives, and that none will come of the orders so far."""
        task, place = self.tasks.get((attempt.id, node)), self.nodes.get(node)
        if task is not None and task.phase in _OVER:
            return True
        if place is None:
            return False
        known = self._incarnations.get((attempt.id, node))
        return place.fenced or (known is not None and place.incarnation not in ("", known))

    def is_lost(self, attempt: Attempt, node: str) -> bool:
        """Whether ranks that ran are known to nobody any more: the node was heard since we look, and has no word of
        them though it tells everything that it ever ran."""
        place = self.nodes.get(node)
        return (attempt.running_ns >= 0 and (attempt.id, node) not in self.tasks and place is not None
                and bool(place.incarnation) and place.heard_ns > self._began_ns)

    def ranks(self, attempt: AttemptId, nodes: Sequence[str]) -> dict[int, RankSeen]:
        """Rank -> what is seen of it."""
        return {rank.rank: rank for node in nodes if (attempt, node) in self.tasks
                for rank in self.tasks[attempt, node].ranks}

    def all_run(self, attempt: AttemptId, nodes: Sequence[str]) -> bool:
        """Whether every rank was started. One that has ended well in the meantime did run."""
        seen = [self.tasks.get((attempt, node)) for node in nodes]
        return all(task is not None and task.phase in (Phase.RUNNING, Phase.EXITED) and not task.error
                   for task in seen)

    def ended(self) -> set[AttemptId]:
        """Attempts of which nothing that is seen goes on."""
        return self._ended


def ending_of(sight: Sight, attempt: Attempt, nodes: Sequence[str]) -> Ending | None:
    """How an attempt that should run has ended; None when it has not. One rank that fails ends all of it."""
    ranks = sight.ranks(attempt.id, nodes)
    codes = tuple(ranks[rank].exit_code if rank in ranks else None
                  for rank in range(int(attempt.placement.workers_R.sum())))
    for node in nodes:
        task = sight.tasks.get((attempt.id, node))
        if task is not None and task.error:
            return Ending(why=f"on {node}: {task.error}", exit_codes=codes)
    for rank, code in enumerate(codes):
        if code:
            return Ending(why=f"rank {rank} {_said(code)}", exit_codes=codes)
    over = 0
    for node in nodes:
        task = sight.tasks.get((attempt.id, node))
        if task is not None and task.phase == Phase.EXITED:
            over += 1
        elif sight.is_gone(attempt, node) or sight.is_lost(attempt, node):
            return Ending(why=f"its ranks on {node} were lost", exit_codes=codes, counts=False)
    return Ending(succeeded=True, exit_codes=codes) if over == len(nodes) else None


def _said(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    known = {one.value: one.name for one in signal.Signals}
    return f"was killed by {known.get(-code, f'signal {-code}')}"
