"""The agent of one node: `python -m serried.runners.agent STATE NODE`, one process that outlives whoever started it.

It follows orders and decides nothing. Everything it starts dies with it, and it tells a new incarnation only after
what its predecessor had started is dead: so an incarnation that is not the one in an order never runs that order.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import signal
import socket
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path

from serried.runners.containment import Cage, cgroup_home, end_node, permits_cgroup, process_start
from serried.runners.conversation import Conversation, is_ours
from serried.runners.node_files import AgentRecord, NodeFiles, boot_id
from serried.runners.orders import PROTOCOL, BadOrder, End, Forget, Start, Stop, line_of, read_order, task_words
from serried.runners.process import prepare_to_start
from serried.runners.spec import AttemptId, Phase, TaskSeen
from serried.runners.task import Task

__all__ = ["Agent", "main"]

_ALIVE_NS, _BEATS_NS, _PREMISES_NS = 250_000_000, 100_000_000, 1_000_000_000
_SOONEST_S = 0.002   # between two looks at something that should be dead
_LOCK_PATIENCE_S = 1.0
_MOST_NOTES, _MOST_TALKS = 1000, 64
_REMEMBERED = 65_536   # attempts that were forgotten and are still barred


class Agent:
    """One incarnation of a node. lock: its handle on the node's lock, which it keeps for life; cgroups: whether they
    are used where they are permitted."""

    def __init__(self, files: NodeFiles, lock: int, *, cgroups: bool) -> None:
        self.files, self.lock, self.cgroups = files, lock, cgroups
        self.incarnation = secrets.token_hex(8)
        self.mark_prefix = files.mark()
        self.base_environment = {name: value for name, value in os.environ.items() if not name.startswith("SERRIED_")}
        self.home = next((place for place in (os.path.expanduser("~"), "/") if os.path.isdir(place)), "/")
        self.selector = selectors.DefaultSelector()
        self.tasks: dict[AttemptId, Task] = {}
        self.ended: dict[AttemptId, TaskSeen] = {}
        self.barred: OrderedDict[AttemptId, None] = OrderedDict()
        self.talks: set[Conversation] = set()
        self.group: Path | None = None
        self.ending = False
        self._noted: set[str] = set()
        self._due_ns = {"alive": 0, "beats": 0, "premises": 0}

    def take_over(self) -> None:
        """Bury what earlier incarnations left, and only then be one."""
        before = self.files.record()
        home = cgroup_home() if self.cgroups else None
        group = home / f"serried-{self.mark_prefix.split('/')[0]}" / self.files.node if home else None
        groups = dict.fromkeys([*(before.groups if before else ()), *([str(group)] if group else [])])
        self.files.write_record(AgentRecord(
            pid=os.getpid(), started=process_start(os.getpid()), boot=boot_id(), incarnation=self.incarnation,
            groups=tuple(groups)))
        end_node(groups, self.mark_prefix)
        if group and permits_cgroup(group):
            self.group = group
        self.ended = {task.attempt: task for task in self.files.read_ended()}
        prepare_to_start()

    def run(self) -> None:
        """Until it is ended."""
        self._hear_signals()
        listener = self.files.listen()
        self.selector.register(listener, selectors.EVENT_READ, partial(self._welcome, listener))
        while not (self.ending and not self.tasks):
            try:
                self._turn()
            except Exception:   # a fault of ours must not end people's jobs
                self._note(traceback.format_exc())
                time.sleep(_SOONEST_S)
        listener.close()
        for talk in list(self.talks):
            talk.flush()
        if self.group:
            end_node([str(self.group)], self.mark_prefix)

    def _turn(self) -> None:
        for key, events in self.selector.select(self._patience_s()):
            if key.fd in self.selector.get_map():   # what came before may have closed it
                key.data.move(events) if isinstance(key.data, Conversation) else key.data()
        self._settle()
        self._on_time()

    def _note(self, text: str) -> None:
        """Into the agent's own file, once, and only if the disk takes it."""
        if text not in self._noted and len(self._noted) < _MOST_NOTES:
            self._noted.add(text)
            with contextlib.suppress(OSError):
                print(text, file=sys.stderr, flush=True)

    def _hear_signals(self) -> None:
        woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_IGN)
        self.selector.register(woken, selectors.EVENT_READ, partial(self._hear_signal, woken))

    def _hear_signal(self, woken: int) -> None:
        numbers = os.read(woken, 4096)
        if signal.SIGTERM in numbers:
            self._end(0)
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                any(task.exited(*found) for task in self.tasks.values())

    def _patience_s(self) -> float:
        now_ns = time.monotonic_ns()
        wakes = [wake_ns for task in self.tasks.values() if (wake_ns := task.wake_ns(now_ns)) is not None]
        if min(wakes, default=now_ns + 1) <= now_ns:
            return _SOONEST_S
        wakes.append(self._due_ns["premises"])
        if self.talks:   # without anybody to tell it to there is no hurry
            wakes.append(self._due_ns["alive"])
            if self.tasks:
                wakes.append(self._due_ns["beats"])
        return max(0.0, (min(wakes) - now_ns) / 1e9)

    def _settle(self) -> None:
        now_ns = time.monotonic_ns()
        for task in list(self.tasks.values()):
            wake_ns = task.wake_ns(now_ns)
            if wake_ns is not None and wake_ns <= now_ns:
                task.settle({pid for other in self.tasks.values() if other is not task for pid in other.living()},
                            now_ns)
            if task.over:
                del self.tasks[task.order.attempt]
                self._keep(task.seen())

    def _keep(self, task: TaskSeen) -> None:
        self.ended[task.attempt] = task
        self._write(task)
        self._tell({"task": task_words(task)})

    def _write(self, task: TaskSeen) -> None:
        try:
            self.files.write_ended(task)
        except OSError as error:
            self._note(f"what becomes of an attempt is not kept where it outlives this agent: {error}")

    def _without_ranks(self, attempt: AttemptId, phase: Phase, error: str = "") -> TaskSeen:
        return TaskSeen(attempt=attempt, node=self.files.node, incarnation=self.incarnation, phase=phase, error=error)

    def _on_time(self) -> None:
        now_ns = time.monotonic_ns()
        for what, period_ns, act in (("alive", _ALIVE_NS, self._say_alive), ("beats", _BEATS_NS, self._look_at_beats),
                                     ("premises", _PREMISES_NS, self._look_at_premises)):
            if now_ns >= self._due_ns[what]:
                self._due_ns[what] = now_ns + period_ns
                act(now_ns)

    def _say_alive(self, now_ns: int) -> None:
        self._tell({"alive": now_ns})

    def _look_at_beats(self, now_ns: int) -> None:
        for task in self.tasks.values():
            told = [[one.rank, one.beat.step, one.beat.heard_ns, one.beat.busy_s] for one in task.watch(now_ns)
                    if one.beat]
            if told:
                self._tell({"beats": [list(task.order.attempt), told]})

    def _look_at_premises(self, now_ns: int) -> None:
        if not self.files.holds(self.lock):   # another agent may come up where this one's lock was taken away
            self._end(0)

    def _tell(self, words: dict[str, object]) -> None:
        line = line_of(words)
        for talk in list(self.talks):
            talk.say(line)

    def _welcome(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        if not is_ours(connection) or len(self.talks) >= _MOST_TALKS:
            connection.close()
            return
        talk = Conversation(connection, self.selector, heard=self._hear, closed=self.talks.discard)
        self.talks.add(talk)
        for seen in [*self.ended.values(), *(task.seen() for task in self.tasks.values())]:
            talk.say(line_of({"task": task_words(seen)}))
        talk.say(line_of({"hello": PROTOCOL, "node": self.files.node, "incarnation": self.incarnation}))

    def _hear(self, talk: Conversation, line: bytes) -> None:
        try:
            order = read_order(line)
        except BadOrder as error:
            self._refuse(talk, error)
            return
        if isinstance(order, Start):
            self._start(order)
        elif isinstance(order, Stop):
            self._stop(order, time.monotonic_ns())
        elif isinstance(order, Forget):
            self._forget(order)
        elif isinstance(order, End):
            self._end(order.grace_ns)

    def _known(self, attempt: AttemptId) -> bool:
        return attempt in self.tasks or attempt in self.ended

    def _refuse(self, talk: Conversation, order: BadOrder) -> None:
        if order.attempt is None:
            talk.say(line_of({"refused": str(order)}))
            talk.close()
        elif order.incarnation == self.incarnation and not self._known(order.attempt):
            self._keep(self._without_ranks(order.attempt, Phase.EXITED, str(order)))

    def _start(self, order: Start) -> None:
        if self.ending or order.incarnation != self.incarnation or self._known(order.attempt):
            return
        if order.attempt in self.barred:
            self._keep(self._without_ranks(order.attempt, Phase.GONE))
            return
        name = str(order.attempt)
        told: Callable[[], None] = lambda: self._tell({"task": task_words(task.seen())})  # noqa: E731
        beats = self.files.beats / name
        with contextlib.suppress(OSError):   # a rank that cannot write its heartbeat says so itself
            beats.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            cage = Cage(self.files.mark(name), self.group / name if self.group else None)
        except OSError as error:
            self._keep(self._without_ranks(order.attempt, Phase.EXITED, (
                f"the node cannot confine another row: {error}. Stop something on it, or raise its limit of cgroups.")))
            return
        task = Task(order, node=self.files.node, state=self.files.state, beats=beats, cage=cage,
                    selector=self.selector, changed=told)
        self._write(self._without_ranks(order.attempt, Phase.GONE))   # what became of it, should this agent die now
        self.tasks[order.attempt] = task
        task.start(self.base_environment, self.home)
        told()

    def _stop(self, order: Stop, now_ns: int) -> None:
        if order.attempt in self.tasks:
            self.tasks[order.attempt].stop(order.grace_ns, now_ns)
        elif order.attempt not in self.ended and order.attempt not in self.barred:
            self._keep(self._without_ranks(order.attempt, Phase.GONE))

    def _forget(self, order: Forget) -> None:
        if order.attempt in self.tasks:   # it is not over: whoever says so is wrong
            return
        self.ended.pop(order.attempt, None)
        self.barred[order.attempt] = None
        while len(self.barred) > _REMEMBERED:
            self.barred.popitem(last=False)
        with contextlib.suppress(OSError):
            self.files.forget(order.attempt)
        self._tell({"forgotten": list(order.attempt)})

    def _end(self, grace_ns: int) -> None:
        self.ending = True
        now_ns = time.monotonic_ns()
        for task in self.tasks.values():
            task.stop(grace_ns, now_ns)


def main() -> int:
    """Hold the node until ended; 3 where another agent does. The third argument says how, as JSON: `python_path`, what
    PYTHONPATH was before it had to lead here (null = nothing), and whether `cgroups` are used where permitted."""
    how = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    if "python_path" in how:
        os.environ.pop("PYTHONPATH", None)
        if how["python_path"] is not None:
            os.environ["PYTHONPATH"] = how["python_path"]
    files = NodeFiles(Path(sys.argv[1]), sys.argv[2])
    patience_s = time.monotonic() + _LOCK_PATIENCE_S
    while (lock := files.try_lock()) is None:   # whoever looks whether it is free holds it for a moment
        if time.monotonic() > patience_s:
            return 3
        time.sleep(_SOONEST_S)
    agent = Agent(files, lock, cgroups=how.get("cgroups", True))
    agent.take_over()
    agent.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
