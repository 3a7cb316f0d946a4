"""One node of this machine as the engine stands to it: finding its agent, hearing it, burying it, starting another."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

from serried.runners.containment import end_node
from serried.runners.conversation import Conversation
from serried.runners.node_files import AgentRecord, NodeFiles
from serried.runners.orders import PROTOCOL, BadOrder, line_of, read_task
from serried.runners.spec import AttemptId, Beat, Phase, RankSeen, TaskSeen

__all__ = ["Link", "Stage", "bury"]

_LOG = logging.getLogger("serried.runners")
_RETRY_NS, _PATIENT_RETRY_NS, _EAGER_NS = 5_000_000, 100_000_000, 2_000_000_000
_BIRTH_NS = 30_000_000_000
_IN_TROUBLE_NS = 1_000_000_000
_MOST_RESPAWN_NS = 30_000_000_000
_PAUSE_S = 0.002
_LETTING_GO_S = 0.5   # so long a dying process may hold its lock after its connection is closed
_PACKAGE_HOME = Path(__file__).resolve().parents[2]


class Stage(Enum):
    """Where the engine is with a node. SEEKING: no connection; TALKING: there is one; BURYING: its agent died or has
    to, and what it ran is being killed; BURIED: all of that is dead, and the next agent is due later."""

    SEEKING = 0
    TALKING = 1
    BURYING = 2
    BURIED = 3


def _kill(record: AgentRecord | None) -> None:
    """Kill an agent, and nobody who got its number later."""
    if record is None:
        return
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(record.pid)
        try:
            if record.lives:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def bury(files: NodeFiles, *, kill: Callable[[], bool], given_up: Callable[[], bool]) -> AgentRecord | None:
    """Make sure that no agent of a node lives, nor anything that one started, and say which agent it was.

    kill: whether to end the agent if it lives; otherwise None is answered where it does. Waits as long as it takes, or
    until `given_up`, which answers None too. While it works no agent can start: it holds their lock.
    """
    patience_s = time.monotonic() + _LETTING_GO_S
    while (lock := files.try_lock()) is None:
        if kills := kill():   # before anything else: whoever asked for it may hang up at once
            _kill(files.record())
        if given_up() or (not kills and time.monotonic() > patience_s):
            return None
        time.sleep(_PAUSE_S)
    try:
        record = files.record() or AgentRecord(pid=0, started=0, boot="", incarnation="")
        return record if end_node(record.groups, files.mark(), given_up) else None
    finally:
        os.close(lock)


class Link:
    """One node. What is heard is written under `lock`; `changed` is called when there is news that somebody may wait
    for. heard_ns: of the monotonic clock, 0 = never."""

    def __init__(self, files: NodeFiles, *, lock: threading.RLock, selector: selectors.BaseSelector,
                 respawn_ns: int, spawns: bool, cgroups: bool, changed: Callable[[], None]) -> None:
        self.files, self.respawn_ns, self.spawns, self.cgroups = files, respawn_ns, spawns, cgroups
        self._lock, self._selector, self._changed = lock, selector, changed
        self.stage, self.due_ns = Stage.SEEKING, 0
        self.incarnation, self.heard_ns, self.fenced = "", 0, False
        self.tasks: dict[AttemptId, TaskSeen] = {}
        self._told = self.tasks   # what is being told before the hello, which closes the list
        self.unforgotten: set[AttemptId] = set()
        self.closing, self._kills, self._complained = False, False, ""
        self._talk: Conversation | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._seeking_since_ns, self._spawned_ns, self._spawn_due_ns, self._failures = 0, 0, 0, 0
        self._gravedigger: threading.Thread | None = None

    def say(self, order: bytes) -> None:
        """Give an order, if anybody is there to hear it."""
        with self._lock:
            if self._talk and self._told is self.tasks:   # it has said who it is
                self._talk.say(order)

    def fence(self) -> None:
        """Kill the agent and all it runs. Asking twice is asking once."""
        with self._lock:
            if self.stage == Stage.BURIED or self.closing or self._is_being_born():
                return
            self._kills = True
            if self.stage != Stage.BURYING:
                self._start_burial()
            if self._talk:
                self._talk.close()

    def _is_being_born(self) -> bool:
        """An agent that was just started on a busy machine is not silent. It ends what ran before it by itself, and to
        kill it for its slowness would keep the node from ever coming up."""
        return (self._child is not None and self._told is not self.tasks
                and time.monotonic_ns() - self._spawned_ns < _BIRTH_NS)

    def step(self) -> None:
        """What is due: called by the engine's thread alone, without the lock."""
        now_ns = time.monotonic_ns()
        if self.closing or now_ns < self.due_ns:
            return
        if self._child and self._child.poll() is not None:
            if self._child.returncode not in (0, 3, -signal.SIGKILL) and not self.incarnation:
                self._complain(f"the agent of node {self.files.node} ended with {self._child.returncode}: see "
                               f"{self.files.directory / 'agent.log'}")
            self._child = None
        if self.stage == Stage.BURIED:
            self._seek(now_ns)
        if self.stage == Stage.SEEKING:
            try:
                self._try(now_ns)
            except OSError as error:   # no space, no handles, no directory: the other nodes do not care
                self._complain(f"node {self.files.node} cannot be reached: {error}")
                self.due_ns = now_ns + _IN_TROUBLE_NS

    def _complain(self, text: str) -> None:
        """Once, until something else is wrong: it is tried again and again."""
        if text != self._complained:
            self._complained = text
            _LOG.warning(text)

    def let_go(self) -> None:
        """Leave the agent and its jobs alone."""
        with self._lock:
            self.closing = True
            if self._talk:
                self._talk.close()
        if self._gravedigger:
            self._gravedigger.join()
        if self._child:
            self._child.returncode = 0   # it goes on; nobody waits for it, which Popen would complain about

    def _seek(self, now_ns: int) -> None:
        with self._lock:
            self.stage, self._seeking_since_ns, self.due_ns = Stage.SEEKING, now_ns, 0

    def _try(self, now_ns: int) -> None:
        try:
            connection = self.files.connect()
        except OSError:
            if self._child is None and now_ns >= self._spawn_due_ns and self.spawns and self._nobody_lives():
                self._spawn(now_ns)
            eager = now_ns - (self._seeking_since_ns or now_ns) < _EAGER_NS
            self._seeking_since_ns = self._seeking_since_ns or now_ns
            self.due_ns = now_ns + (_RETRY_NS if eager else _PATIENT_RETRY_NS)
            return
        with self._lock:
            if self.stage != Stage.SEEKING or self.closing:   # fenced meanwhile
                connection.close()
                return
            self.stage, self.due_ns = Stage.TALKING, 2**63
            self._told = {}
            self._talk = Conversation(connection, self._selector, heard=self._hear, closed=self._lost)

    def _nobody_lives(self) -> bool:
        lock = self.files.try_lock()
        if lock is not None:
            os.close(lock)
        return lock is not None

    def _spawn(self, now_ns: int) -> None:
        self._spawned_ns, self._told = now_ns, {}
        self._spawn_due_ns = now_ns + min(_MOST_RESPAWN_NS, self.respawn_ns * 2**min(self._failures, 16))
        self._failures += 1
        environment = dict(os.environ)
        before = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(_PACKAGE_HOME), *([before] if before else [])])
        command = [sys.executable, "-m", "serried.runners.agent", str(self.files.state), self.files.node,
                   json.dumps({"python_path": before, "cgroups": self.cgroups})]
        with open(self.files.directory / "agent.log", "ab") as log:
            self._child = subprocess.Popen(command, env=environment, cwd="/", start_new_session=True,
                                           stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _start_burial(self) -> None:
        self.stage, self.due_ns = Stage.BURYING, 2**63
        self._gravedigger = threading.Thread(target=self._bury, daemon=True, name=f"burial of {self.files.node}")
        self._gravedigger.start()

    def _is_to_kill(self) -> bool:
        child = self._child
        if self._kills and child:
            child.kill()   # it may not have got as far as saying who it is
        return self._kills

    def _bury(self) -> None:
        record, failed = None, False
        try:
            record = bury(self.files, kill=self._is_to_kill, given_up=lambda: self.closing)
        except OSError as error:   # the disk or the table of files is full; a node that is not fenced is asked again
            self._complain(f"node {self.files.node} could not be fenced: {error}")
            failed = True
        with self._lock:
            now_ns, kills = time.monotonic_ns(), self._kills
            self._kills = False
            if record is not None:
                self.incarnation, self.fenced = self.incarnation or record.incarnation, True
                self.tasks = {attempt: task for attempt, task in self.tasks.items() if task.phase >= Phase.EXITED}
                self.stage, self.due_ns = Stage.BURIED, now_ns + self.respawn_ns
                self._spawn_due_ns = 0
            elif kills and not failed and not self.closing:   # the order came too late for this one
                self._kills = True
                self._start_burial()
            else:
                self._seek(now_ns)
        self._changed()

    def _lost(self, talk: Conversation) -> None:
        self._talk = None
        if self.stage == Stage.TALKING and not self.closing:
            self._start_burial()
            self._changed()

    def _hear(self, talk: Conversation, line: bytes) -> None:
        self.heard_ns = time.monotonic_ns()
        try:
            words = json.loads(line)
            if "task" in words:
                task = read_task(words["task"])
                self._told[task.attempt] = task
                self._changed()
            elif "beats" in words:
                self._hear_beats(*words["beats"])
            elif "hello" in words:
                self._hear_hello(words)
            elif "forgotten" in words:
                self.tasks.pop(AttemptId(*words["forgotten"]), None)
            elif "refused" in words:
                self._complain(f"the agent of node {self.files.node} refused an order: {words['refused']}")
        except (BadOrder, ValueError, LookupError, TypeError) as error:
            self._complain(f"the agent of node {self.files.node} says what cannot be read: {error!r}")
            talk.close()

    def _hear_hello(self, words: dict[str, Any]) -> None:
        if words["hello"] != PROTOCOL or words["node"] != self.files.node:
            raise BadOrder(f"agent of protocol {words['hello']} and node {words['node']}")
        self.incarnation, self.fenced, self._failures = str(words["incarnation"]), False, 0
        self.tasks = self._told   # from now on the same
        for attempt in self.unforgotten & self.tasks.keys():
            self.say(line_of({"order": "forget", "attempt": list(attempt)}))
        self.unforgotten.clear()
        self._changed()

    def _hear_beats(self, attempt: list[int], told: list[list[Any]]) -> None:
        task = self.tasks.get(AttemptId(*attempt))
        if task is None:
            return
        beats = {rank: Beat(step=step, heard_ns=heard_ns, busy_s=busy_s) for rank, step, heard_ns, busy_s in told}
        self.tasks[task.attempt] = TaskSeen(
            attempt=task.attempt, node=task.node, incarnation=task.incarnation, phase=task.phase, error=task.error,
            ranks=tuple(RankSeen(rank=one.rank, pid=one.pid, exit_code=one.exit_code,
                                 beat=beats.get(one.rank, one.beat)) for one in task.ranks))
