"""What a node has on disk, for its agent and for whoever has to do without it.

    STATE/identity            what tells the processes of this state directory from those of another one
    STATE/owner               whose orders these are, where the engine was told
    STATE/logs/J.E/R.log      output of rank R of attempt J.E
    STATE/nodes/N/lock        held by the agent of node N while it lives: where it is free, no agent lives
    STATE/nodes/N/agent.json  who that is
    STATE/nodes/N/socket      where it listens
    STATE/nodes/N/agent.log   what it has to say when there is nobody to say it to
    STATE/nodes/N/beats/J.E/R heartbeat of rank R
    STATE/nodes/N/ended/J.E   what became of an attempt, until it is forgotten; it outlives the agent, and until the
                              attempt has ended it says what its death makes of it: gone
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from serried.runners.containment import process_start
from serried.runners.orders import BadOrder, line_of, read_task, task_words
from serried.runners.spec import AttemptId, TaskSeen

__all__ = ["AgentRecord", "NodeFiles", "node_names"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRecord:
    """The agent that holds, or held, a node. started: in ticks of that boot. groups: cgroups in which its rows may be
    or those of its predecessors."""

    pid: int
    started: int
    boot: str
    incarnation: str
    groups: tuple[str, ...] = ()

    @property
    def lives(self) -> bool:
        """Whether that very process is still there."""
        return self.boot == boot_id() and self.started > 0 and process_start(self.pid) == self.started


def boot_id() -> str:
    """Changes whenever the machine starts."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def node_names(state: Path) -> list[str]:
    """Nodes that ever had an agent here."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(entry.name for entry in os.scandir(state / "nodes") if entry.is_dir(follow_symlinks=False))
    return []


class NodeFiles:
    """The files of one node; its directories are made for their owner alone."""

    def __init__(self, state: Path, node: str) -> None:
        self.state, self.node = state.absolute(), node
        self.directory = self.state / "nodes" / node
        self.ended, self.beats = self.directory / "ended", self.directory / "beats"
        for folder in (self.state, self.directory.parent, self.directory, self.state / "logs"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.parent.chmod(0o700)   # the state's own directory may be somebody's whom others may look at

    def mark(self, attempt: str = "") -> str:
        """What the environment of this node's processes says, or the beginning of it for all of them."""
        return f"{self._identity()}/{self.node}/{attempt}"

    def _identity(self) -> str:
        path = self.state / "identity"
        with contextlib.suppress(FileNotFoundError):
            return path.read_text().strip()
        drafted = path.with_name(f"identity.{os.getpid()}")
        drafted.write_text(secrets.token_hex(8))
        with contextlib.suppress(FileExistsError):   # somebody was faster
            os.link(drafted, path)
        drafted.unlink()
        return path.read_text().strip()

    def try_lock(self) -> int | None:
        """A handle that keeps every agent of the node away until it is closed; None where one lives."""
        handle = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        return handle

    def holds(self, handle: int) -> bool:
        """Whether a lock is still the lock of this node: its directory may have been taken away or made anew."""
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(handle), os.stat(self.directory / "lock"))
        return False

    def record(self) -> AgentRecord | None:
        """Who holds or held the node; None where nobody ever did."""
        try:
            words = json.loads((self.directory / "agent.json").read_bytes())
            return AgentRecord(pid=int(words["pid"]), started=int(words["started"]), boot=str(words["boot"]),
                               incarnation=str(words["incarnation"]), groups=tuple(map(str, words["groups"])))
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def write_record(self, record: AgentRecord) -> None:
        """Say who holds the node."""
        self._replace(self.directory / "agent.json", json.dumps(asdict(record)).encode())

    def write_ended(self, task: TaskSeen) -> None:
        """Keep what became of an attempt."""
        self.ended.mkdir(mode=0o700, exist_ok=True)
        self._replace(self.ended / str(task.attempt), line_of(task_words(task)))

    def read_ended(self) -> Iterator[TaskSeen]:
        """What became of attempts that nobody forgot."""
        with contextlib.suppress(FileNotFoundError):
            for entry in sorted(self.ended.iterdir()):
                with contextlib.suppress(OSError, ValueError, BadOrder):
                    yield read_task(json.loads(entry.read_bytes()))

    def forget(self, attempt: AttemptId) -> None:
        """Remove what is kept of an attempt, but for its output."""
        (self.ended / str(attempt)).unlink(missing_ok=True)
        shutil.rmtree(self.beats / str(attempt), ignore_errors=True)

    def listen(self) -> socket.socket:
        """The agent's end; whoever held it before is dead, or the lock would not be ours."""
        (self.directory / "socket").unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        with self._short_path() as path:
            listener.bind(path)
        (self.directory / "socket").chmod(0o600)
        listener.listen(64)
        listener.setblocking(False)
        return listener

    def connect(self) -> socket.socket:
        """The engine's end. Raises OSError where nobody listens; never waits."""
        speaker = socket.socket(socket.AF_UNIX)
        speaker.setblocking(False)
        try:
            with self._short_path() as path:
                speaker.connect(path)
        except OSError:
            speaker.close()
            raise
        return speaker

    @contextlib.contextmanager
    def _short_path(self) -> Iterator[str]:
        """A name of the socket that fits into the 107 bytes there are, wherever the state directory lies."""
        handle = os.open(self.directory, os.O_PATH | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{handle}/socket"
        finally:
            os.close(handle)

    @staticmethod
    def _replace(path: Path, data: bytes) -> None:
        drafted = path.with_name(f".{path.name}.{os.getpid()}")
        drafted.write_bytes(data)
        os.replace(drafted, path)
