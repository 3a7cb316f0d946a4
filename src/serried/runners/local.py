"""The engine that runs gangs on this machine: one agent process a node, which goes on when this one dies."""

from __future__ import annotations

import logging
import os
import selectors
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from serried.runners.environment import rank_environment
from serried.runners.local_link import Link, bury
from serried.runners.local_nodes import LocalNode
from serried.runners.node_files import NodeFiles, node_names
from serried.runners.orders import LINE_BYTES, line_of
from serried.runners.output import rank_log_path
from serried.runners.spec import AttemptId, Launch, Node, NodeSeen, Observation, Row, TaskSeen

__all__ = ["LocalEngine"]

_LOG = logging.getLogger("serried.runners")
_LONGEST_SLEEP_S, _STUMBLE_S = 0.25, 0.1
_DEAF_NS = 1_000_000_000   # longer than any sleep: silence counts only while somebody listens
_CLOCK_PLAY_NS = 5_000_000   # two clocks are not read at once; below this they have not moved against each other


class LocalEngine:
    """Nodes of this machine under one state directory. `spec.Engine` says what its verbs do.

    on_change: called by the engine's own thread as soon as there is news; it must not wait. respawn_ns: from the death
    of an agent to the next one. log_limit_bytes, log_kept_parts: of the output of every rank. spawns: whether agents
    that do not run are started; cgroups: whether these use cgroups where that is permitted. owner: names the ledger by
    which attempts are numbered; what another one ordered here is ended before anything else, as its numbers would be
    taken for ours. "" = nobody asks.
    """

    name = "local"

    def __init__(self, state: Path | str, nodes: Sequence[LocalNode], *, respawn_ns: int = 500_000_000,
                 log_limit_bytes: int = 16 * 2**20, log_kept_parts: int = 3, spawns: bool = True, cgroups: bool = True,
                 owner: str = "", on_change: Callable[[], None] | None = None) -> None:
        self.on_change = on_change or (lambda: None)
        self._state = Path(state).absolute()
        self._log_limit_bytes, self._log_kept_parts = log_limit_bytes, log_kept_parts
        self._nodes = {one.node.name: one for one in nodes}
        if owner:
            _oust_others(self._state, owner)
        self._lock = threading.RLock()
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._closing, self._news, self._offset_ns = False, False, 0
        self._listened_ns = time.monotonic_ns()
        self._told: dict[tuple[AttemptId, str, int], tuple[TaskSeen, TaskSeen]] = {}   # as heard, as told
        self._links = {name: Link(NodeFiles(self._state, name), lock=self._lock, selector=self._selector,
                                  respawn_ns=respawn_ns, spawns=spawns, cgroups=cgroups, changed=self._changed)
                       for name in self._nodes}
        # A node that is declared no more can be given no order: what it still runs would run unseen.
        self._strangers = [Link(NodeFiles(self._state, name), lock=self._lock, selector=self._selector,
                                respawn_ns=respawn_ns, spawns=False, cgroups=cgroups, changed=lambda: None)
                           for name in node_names(self._state) if name not in self._nodes]
        for link in self._strangers:
            link.fence()
        self._thread = threading.Thread(target=self._run, daemon=True, name="local engine")
        self._thread.start()

    def nodes(self) -> tuple[Node, ...]:
        """The nodes as they were declared."""
        return tuple(one.node for one in self._nodes.values())

    def observe(self, now_ns: int) -> Observation:
        """What the agents have told so far."""
        with self._lock:
            monotonic_ns = time.monotonic_ns()
            offset_ns = now_ns - monotonic_ns
            if abs(offset_ns - self._offset_ns) > _CLOCK_PLAY_NS:
                self._offset_ns = offset_ns
            deaf_ns = monotonic_ns - self._listened_ns   # this process was stopped, and the news are still unread
            shift_ns = self._offset_ns + (deaf_ns if deaf_ns > _DEAF_NS else 0)
            nodes = tuple(NodeSeen(name=name, incarnation=link.incarnation, fenced=link.fenced,
                                   heard_ns=min(link.heard_ns + shift_ns, now_ns) if link.heard_ns else 0)
                          for name, link in self._links.items())
            tasks = [task for link in self._links.values() for task in link.tasks.values()]
            before, self._told = self._told, {}
            for task in tasks:   # few have news since the last time
                key = task.attempt, task.node, shift_ns
                known = before.get(key)
                self._told[key] = known if known and known[0] is task else (task, _shifted(task, shift_ns))
            return Observation(nodes=nodes, tasks=tuple(told for _, told in self._told.values()))

    def start(self, launch: Launch, nodes: Sequence[str]) -> None:
        """Order the rows on these nodes, unless the node has changed or knows the attempt already."""
        if any(row.node not in self._nodes for row in launch.rows):
            return   # a gang that cannot be whole does not start
        declared = {name: one.node for name, one in self._nodes.items()}
        for row in launch.rows:
            link = self._links[row.node]
            if row.node in nodes and row.incarnation == link.incarnation and launch.attempt not in link.tasks:
                link.say(self._start_order(launch, row, declared))

    def _start_order(self, launch: Launch, row: Row, declared: dict[str, Node]) -> bytes:
        environments = [rank_environment(launch, row, local_rank, declared) for local_rank in range(row.rank_count)]
        shared = dict(set.intersection(*(set(one.items()) for one in environments)))
        per_rank = len(row.chips) // row.rank_count
        local = self._nodes[row.node]
        whose = {"order": "start", "attempt": list(launch.attempt), "incarnation": row.incarnation}
        order = line_of({
            **whose, "argv": list(launch.argv), "directory": launch.directory, "environment": shared,
            "limits": asdict(launch.limits), "log_limit_bytes": self._log_limit_bytes,
            "log_kept_parts": self._log_kept_parts,
            "ranks": [{"rank": row.first_rank + place, "cores": list(local.cores_of(
                           row.chips[place * per_rank:(place + 1) * per_rank])),
                       "environment": {name: value for name, value in one.items() if name not in shared}}
                      for place, one in enumerate(environments)]})
        if len(order) <= LINE_BYTES:
            return order
        return line_of({**whose, "refusal": f"arguments and environment of all ranks take {len(order)} bytes: expected "
                                            f"at most {LINE_BYTES}. Pass what is long in a file."})

    def stop(self, attempt: AttemptId, nodes: Sequence[str], grace_ns: int) -> None:
        """Order its end on these nodes."""
        for name in nodes:
            if name in self._links:
                self._links[name].say(line_of({"order": "stop", "attempt": list(attempt), "grace_ns": grace_ns}))

    def fence(self, node: str) -> None:
        """Kill the node's agent and everything that carries the node's mark; `observe` tells when that is certain."""
        if node in self._links:
            self._links[node].fence()

    def forget(self, attempt: AttemptId) -> None:
        """Let the agents forget it too; those that are not there are told when they are."""
        with self._lock:
            for link in self._links.values():
                if link.tasks.pop(attempt, None) is not None:
                    link.unforgotten.add(attempt)
                    link.say(line_of({"order": "forget", "attempt": list(attempt)}))

    def log_path(self, attempt: AttemptId, rank: int) -> str:
        """Below the state directory."""
        return str(rank_log_path(self._state, str(attempt), rank))

    def close(self) -> None:
        """Hang up; agents and jobs go on."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self._rouse()
        self._thread.join()
        for link in [*self._links.values(), *self._strangers]:
            link.let_go()
        self._selector.close()
        os.close(self._woken)
        os.close(self._wake)

    def shutdown(self, grace_ns: int = 5_000_000_000) -> None:
        """End every job and every agent, then close. Waits, for the grace and a little more."""
        for link in self._links.values():
            link.spawns = False
            link.say(line_of({"order": "end", "grace_ns": grace_ns}))
        deadline_s = time.monotonic() + grace_ns / 1e9 + 1.0
        self.close()
        for link in self._links.values():
            while bury(link.files, kill=lambda: time.monotonic() > deadline_s, given_up=lambda: False) is None:
                pass   # it still has time

    def _changed(self) -> None:
        self._news = True
        self._rouse()

    def _rouse(self) -> None:
        try:
            os.write(self._wake, b"\0")
        except OSError:   # full: it is awake already; closed: nobody needs to be
            return

    def _run(self) -> None:
        while not self._closing:
            try:
                self._turn()
            except Exception:   # a thread that died would make every node silent, and a silent node is killed
                _LOG.exception("the local engine stumbled")
                time.sleep(_STUMBLE_S)

    def _turn(self) -> None:
        began_ns = time.monotonic_ns()
        due_ns = min((link.due_ns for link in self._links.values()), default=2**63)
        patience_s = (due_ns - began_ns) / 1e9
        events = self._selector.select(max(0.0, min(patience_s, _LONGEST_SLEEP_S)))
        with self._lock:
            for key, happened in events:
                if key.data is None:
                    os.read(self._woken, 4096)
                elif key.data.open:
                    key.data.move(happened)
            news, self._news = self._news, False
            self._listened_ns = began_ns   # what had been said by then has been read
        for link in self._links.values():
            link.step()
        if news:
            try:
                self.on_change()
            except Exception:   # who is told must not keep the others from being told
                _LOG.exception("the engine's listener failed")


def _shifted(task: TaskSeen, shift_ns: int) -> TaskSeen:
    """The same with its heartbeats on another clock."""
    if not any(one.beat for one in task.ranks):
        return task
    return replace(task, ranks=tuple(
        one if one.beat is None else replace(one, beat=replace(one.beat, heard_ns=one.beat.heard_ns + shift_ns))
        for one in task.ranks))


def _oust_others(state: Path, owner: str) -> None:
    """End and forget all that was ordered by another owner; waits for it."""
    said = state / "owner"
    if said.exists() and said.read_text() == owner:
        return
    for name in node_names(state):
        files = NodeFiles(state, name)
        bury(files, kill=lambda: True, given_up=lambda: False)
        shutil.rmtree(files.ended, ignore_errors=True)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    drafted = said.with_name(f"owner.{os.getpid()}")
    drafted.write_text(owner)
    os.replace(drafted, said)
