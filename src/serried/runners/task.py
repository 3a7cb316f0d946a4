"""One row on its way: started whole or not at all, heard until its last process is dead, and only then called over."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from serried.runners.containment import MARK, Cage
from serried.runners.heartbeat import HEARTBEAT, BeatFile
from serried.runners.orders import Start
from serried.runners.output import RotatingLog, rank_log_path
from serried.runners.process import start_process, why_not
from serried.runners.spec import Phase, RankSeen, TaskSeen

__all__ = ["Task"]

_CHUNK_BYTES = 2**16
_CLOSED = -1


@dataclass(slots=True, kw_only=True)
class _Rank:
    rank: int
    log: RotatingLog
    beats: BeatFile
    pid: int = 0
    output: int = _CLOSED
    verdict: int = _CLOSED
    said: bytes = b""
    path: str = ""
    exit_code: int | None = None


class Task:
    """The processes of one start order. changed: called whenever there is something new to tell, but for
    the end, which `over` tells."""

    def __init__(self, order: Start, *, node: str, state: Path, beats: Path, cage: Cage,
                 selector: selectors.BaseSelector, changed: Callable[[], None]) -> None:
        self.order, self.node, self.cage = order, node, cage
        self.phase, self.error, self.stopped = Phase.STARTING, "", False
        self._selector, self._changed = selector, changed
        self._deadline_ns: int | None = None   # from then on it is killed
        self._ranks = [
            _Rank(rank=one.rank, beats=BeatFile(beats / str(one.rank)), log=RotatingLog(
                rank_log_path(state, str(order.attempt), one.rank), limit_bytes=order.log_limit_bytes,
                kept_parts=order.log_kept_parts)) for one in order.ranks]
        self._living: dict[int, _Rank] = {}   # by number of process

    @property
    def over(self) -> bool:
        """Whether nothing of it lives and everything about it is known."""
        return self.phase >= Phase.EXITED

    def living(self) -> Collection[int]:
        """Numbers of the processes of its ranks that have not ended."""
        return self._living.keys()

    def seen(self) -> TaskSeen:
        """What is told of it."""
        return TaskSeen(attempt=self.order.attempt, node=self.node, incarnation=self.order.incarnation,
                        phase=self.phase, error=self.error,
                        ranks=tuple(RankSeen(rank=one.rank, pid=one.pid, exit_code=one.exit_code, beat=one.beats.last)
                                    for one in self._ranks))

    def start(self, base_environment: Mapping[str, str], directory: str) -> None:
        """Fork all ranks; whether they became their programs is heard later."""
        for one, order in zip(self._ranks, self.order.ranks, strict=True):
            environment = {**base_environment, **self.order.environment, **order.environment,
                           MARK: self.cage.mark, HEARTBEAT: str(one.beats.path)}
            one.path = environment.get("PATH", os.defpath)
            try:
                started = start_process(self.order.argv, environment, self.order.directory or directory,
                                        self.order.limits, order.cores, cage=self.cage)
            except OSError as error:
                self._fail(f"the node cannot start another process: {error.strerror}. Stop something on it, or raise "
                           f"its limits of processes and open files.")
                return
            one.pid, one.output, one.verdict = started.pid, started.output, started.verdict
            self._living[one.pid] = one
            self._selector.register(one.verdict, selectors.EVENT_READ, partial(self._hear_verdict, one))
            self._selector.register(one.output, selectors.EVENT_READ, partial(self._hear_output, one))

    def stop(self, grace_ns: int, now_ns: int) -> None:
        """End it: SIGTERM now, SIGKILL after the grace. A later order can only shorten it."""
        if self.over:
            return
        first, self.stopped = not self.stopped, True
        # what does not run yet has nothing to save
        deadline_ns = now_ns + (grace_ns if self.phase == Phase.RUNNING else 0)
        self._deadline_ns = deadline_ns if self._deadline_ns is None else min(self._deadline_ns, deadline_ns)
        if first and self.phase == Phase.RUNNING:
            self._signal(signal.SIGTERM)

    def exited(self, pid: int, status: int) -> bool:
        """A child of the agent ended; whether it was a rank of this row."""
        one = self._living.pop(pid, None)
        if one is None:
            return False
        one.exit_code = os.waitstatus_to_exitcode(status)
        self._changed()
        return True

    def watch(self, now_ns: int) -> list[RankSeen]:
        """Look at the heartbeats; those that are new."""
        return [RankSeen(rank=one.rank, beat=one.beats.last) for one in self._living.values()
                if one.beats.look(now_ns)]

    def wake_ns(self, now_ns: int) -> int | None:
        """When `settle` has to be called next."""
        if self.over:
            return None
        return self._deadline_ns if self._living else now_ns

    def settle(self, own: Collection[int], now_ns: int) -> None:
        """Bring it to its end: all its ranks ended, or its time ran out. own: living ranks of other rows."""
        if self._living:
            self._signal(signal.SIGKILL)   # the cage does not know a rank that has just been forked
        for one in self._ranks:
            while self._hear_verdict(one):
                pass
        if not self.cage.end(own) or self._living:
            return
        for one in self._ranks:
            while self._hear_output(one):   # nobody can write any more: what is there is all there is
                pass
            self._let_go(one, "output")
            self._let_go(one, "verdict")
            one.beats.look(now_ns)
            one.log.close()
        self.phase = Phase.GONE if self.stopped else Phase.EXITED

    def _signal(self, number: int) -> None:
        for pid in self._living:   # not reaped yet, so the number is still theirs
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)   # a rank leads its session, and so its group, once it runs
            if number == signal.SIGKILL:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _fail(self, why: str) -> None:
        self.error = self.error or why
        self._deadline_ns = 0

    def _hear_verdict(self, one: _Rank) -> bool:
        if one.verdict == _CLOSED:
            return False
        try:
            data = os.read(one.verdict, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        one.said += data
        if not data:
            self._let_go(one, "verdict")
            if one.said:
                self._fail(why_not(one.said, self.order.argv, self.order.directory, one.path))
            elif self.phase == Phase.STARTING and not self.error and not any(
                    other.verdict != _CLOSED or not other.pid for other in self._ranks):
                self.phase = Phase.RUNNING
                self._changed()
        return bool(data)

    def _hear_output(self, one: _Rank) -> bool:
        if one.output == _CLOSED:
            return False
        try:
            data = os.read(one.output, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        if data:
            one.log.write(data)
        else:
            self._let_go(one, "output")
        return bool(data)

    def _let_go(self, one: _Rank, which: str) -> None:
        handle = getattr(one, which)
        if handle != _CLOSED:
            self._selector.unregister(handle)
            os.close(handle)
            setattr(one, which, _CLOSED)
