"""Sends, receives and work in an order, without the data: what GOAL and a bare Chakra trace can say of a collective.

What can be proven of them: every message is sent, received and as long as expected, and nothing waits for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serried.errors import BadInput

__all__ = ["Task", "check_traffic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """kind is send, recv or calc; requires: labels of the same rank that must be over first."""

    rank: int
    label: int
    kind: str
    payload_bytes: int = 0
    peer: int = -1
    tag: int = -1
    requires: tuple[int, ...] = ()


def check_traffic(tasks: Sequence[Task], *, file: str = "") -> None:
    """Raise BadInput with the rank and the task where a message does not meet, or where a task is never done.

    Messages of one pair and tag arrive in the order told; a send is over only when it is received (rendezvous).
    """
    event = _met(tasks, file)
    place = {(task.rank, task.label): position for position, task in enumerate(tasks)}
    unknown = next(((task, wait) for task in tasks for wait in task.requires if (task.rank, wait) not in place), None)
    if unknown:
        raise BadInput(file=file, field=f"rank {unknown[0].rank}, task {unknown[0].label}", value=unknown[1],
                       expected="waits for tasks of its rank", remedy="Correct what it waits for.")
    edges = np.asarray(sorted({(event[place[(task.rank, wait)]], event[position]) for position, task in
                               enumerate(tasks) for wait in task.requires}), dtype=np.int64).reshape(-1, 2)
    stuck = _never_done(len(tasks), edges)
    waiting = [task for position, task in enumerate(tasks) if stuck[event[position]]]
    if waiting:
        raise BadInput(file=file, field=f"rank {waiting[0].rank}, task {waiting[0].label} ({waiting[0].kind})",
                       value="deadlock", expected="an order in which everything is done, but it waits in a circle, "
                       f"with {len(waiting)} tasks", remedy="Break the circle and verify again.")


def _met(tasks: Sequence[Task], file: str) -> list[int]:
    """Task -> event: a send and its receive are one."""
    wires: dict[tuple[int, int, int], tuple[list[int], list[int]]] = {}
    for position, task in enumerate(tasks):
        if task.kind != "calc":
            ends = (task.rank, task.peer) if task.kind == "send" else (task.peer, task.rank)
            wires.setdefault((*ends, task.tag), ([], []))[task.kind == "recv"].append(position)
    event = list(range(len(tasks)))
    for (sender, receiver, tag), (sent, received) in wires.items():
        lengths = [[tasks[position].payload_bytes for position in side] for side in (sent, received)]
        if lengths[0] != lengths[1]:
            raise BadInput(file=file, field=f"rank {sender} to {receiver}, tag {tag}", value=len(sent),
                           expected=f"as many and as long messages as rank {receiver} takes ({len(received)})",
                           remedy="Match every send with a recv.")
        for one, other in zip(sent, received, strict=True):
            event[other] = one
    return event


def _never_done(count: int, edges: np.ndarray) -> np.ndarray:
    """Events on a circle, or behind one."""
    waits = np.bincount(edges[:, 1], minlength=count)
    first = np.searchsorted(edges[:, 0], np.arange(count + 1)).tolist()
    targets = edges[:, 1].tolist()
    ready = np.flatnonzero(waits == 0).tolist()
    while ready:
        done = ready.pop()
        for target in targets[first[done]:first[done + 1]]:
            waits[target] -= 1
            if not waits[target]:
                ready.append(target)
    never: np.ndarray = waits > 0
    return never
