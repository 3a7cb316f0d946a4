"""What a Slurm job of ours runs on each of its nodes: it forks the ranks of one row and writes down how they fare.

    python3 launcher.py DIRECTORY-OF-THE-ATTEMPT

It needs the standard library and the state directory alone (`slurm` puts a copy there), so a node need not know of
serried. It runs nothing unless it wins the row's claim, a file that exactly one can link: another launcher, or the
tombstone of a stop, may have been first. It holds a lease: when it has not reached the state directory for `lease_s`,
or reads there that its node was fenced, it kills what it started. Ranks die with it, and it outlives all that they
leave behind: it adopts their orphans, and says that the row has ended only when none is alive.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import selectors
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

__all__ = ["claim", "incarnation_of", "sweep", "write_whole"]

_PARENT_DEATH_SIGNAL, _CHILD_SUBREAPER = 1, 36   # prctl(2)
_AWAITED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCONT}
#: Told of the job's steps, not of the ranks: programs that find them would take Slurm for their launcher.
_KEPT = {"SLURM_JOB_ID", "SLURM_CONF", "SLURM_CLUSTER_NAME"}
LOG_BYTES, LOG_PARTS = 64 << 20, 3


def write_whole(path: Path, text: str) -> None:
    """A file that is there with all of its text or not at all, also after a crash."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(path)


def claim(path: Path, text: str) -> bool:
    """Be the one who decides about a row, for ever: link(2) succeeds once, on shared file systems too."""
    draft = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.{time.monotonic_ns()}")
    write_whole(draft, text)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def incarnation_of(state: Path, node: str) -> int:
    """The life of a node that is current: whatever belongs to an earlier one must not run."""
    try:
        return int((state / "nodes" / f"{node}.incarnation").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 1


def sweep(marks: tuple[bytes, ...], spare: bytes = b"") -> int:
    """Kill every process of this machine whose environment has all marks (and not `spare`), and what these started,
    until a look finds none. Returns how many were killed."""
    killed: set[int] = set()
    for _ in range(200):
        found = _marked(marks, spare) - {os.getpid()}
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return len(killed)
        killed |= found
        time.sleep(0.01)
    raise TimeoutError(f"processes {sorted(found)} do not die")


def _marked(marks: tuple[bytes, ...], spare: bytes) -> set[int]:
    parents: dict[int, int] = {}
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError):
            words = set((entry / "environ").read_bytes().split(b"\0"))
            status = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            if status[0] in b"ZX":
                continue
            parents[int(entry.name)] = int(status[1])
            if words.issuperset(marks) and not (spare and spare in words):
                found.add(int(entry.name))
    grown = True
    while grown:   # children may have been given an empty environment
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found


class _Row:
    """The ranks of one row: started once, watched until nothing of them is left."""

    def __init__(self, attempt: Path, node: str, order: dict[str, Any]) -> None:
        self.attempt, self.node, self.order = attempt, node, order
        self.seen_path = attempt / f"{node}.seen"
        self.local = Path(os.devnull)           # the node's own directory for heartbeats
        self.pids: dict[int, int] = {}          # rank -> pid
        self.codes: dict[int, int] = {}         # rank -> exit code
        self.pipes: dict[int, int] = {}         # rank -> reading end of its output
        self.error, self.stopped, self.ended = "", False, False
        self.grace_s: float | None = None       # set by an order to stop
        self.cut_off = False                    # the node was fenced, or the lease ran out
        self.reached_s = time.monotonic()
        self.changed = threading.Event()
        self.told = 0

    def start(self) -> None:
        """Fork every rank; if one cannot run, none shall."""
        try:
            self.local = Path(tempfile.mkdtemp(prefix="serried-"))
        except OSError as full:
            self.error = f"node {self.node} has no room for temporary files: {full}. Make room, or set TMPDIR."
            return
        for place in self.order["ranks"]:
            error = self._fork(place)
            if error:
                self.error = error
                return

    def _fork(self, place: dict[str, Any]) -> str:
        rank, parent = place["rank"], os.getpid()
        reading, writing = os.pipe()
        trouble_in, trouble_out = os.pipe()   # closed by a successful exec
        pid = os.fork()
        if pid == 0:
            try:
                self._become(place, writing, parent)
            except BaseException as error:   # whatever it is, a copy of the launcher must not go on
                os.write(trouble_out, str(error).encode())
            finally:
                os._exit(127)
        os.close(writing)
        os.close(trouble_out)
        self.pids[rank], self.pipes[rank] = pid, reading
        with os.fdopen(trouble_in, "rb") as words:
            return words.read().decode(errors="replace")

    def _become(self, place: dict[str, Any], writing: int, parent: int) -> None:
        """Between fork and exec: a session of its own, limits, output, environment."""
        os.setsid()
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:   # it died before it could be noticed that it would
            os._exit(127)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)   # what Python ignores would stay ignored
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        for name, key in (("open_files", resource.RLIMIT_NOFILE), ("memory_bytes", resource.RLIMIT_DATA),
                          ("core_bytes", resource.RLIMIT_CORE)):
            if self.order["limits"][name]:
                resource.setrlimit(key, (self.order["limits"][name],) * 2)
        for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (writing, 1), (writing, 2)):
            os.dup2(source, target)
        directory, program = self.order["directory"] or str(Path.home()), self.order["argv"][0]
        environment = {name: value for name, value in os.environ.items()
                       if name in _KEPT or not name.startswith(("SLURM", "SRUN", "PMI", "SBATCH"))}
        environment |= place["environment"]
        environment["SERRIED_HEARTBEAT"] = str(self.local / f"beat.{place['rank']}")
        try:
            os.chdir(directory)
        except OSError as error:
            raise OSError(f"directory = {directory!r}: expected a directory that node {self.node} has "
                          f"({error.strerror}). Make it on every node, or name another one.") from error
        try:
            os.execvpe(program, self.order["argv"], environment)
        except OSError as error:
            where = "" if "/" in program else f" on PATH = {environment.get('PATH', os.defpath)!r}"
            raise OSError(f"argv[0] = {program!r}: expected a program that can be run{where} ({error.strerror}). Check "
                          f"its name and that it is executable on every node, or give its full path.") from error

    def watch(self) -> None:
        """Until every rank and every orphan of them has ended."""
        deadline_s = 0.0 if self.error else float("inf")
        while self._reap():
            heard = signal.sigtimedwait(_AWAITED, 0.1)
            now_s = time.monotonic()
            if heard and heard.si_signo in (signal.SIGTERM, signal.SIGINT) and self.grace_s is None:
                self.grace_s = stop_grace_s(self.attempt, self.node, self.order["grace_s"])
            if heard and heard.si_signo == signal.SIGCONT:   # there is an order to read
                self.changed.set()
            if now_s - self.reached_s > self.order["lease_s"]:
                self.cut_off = True
            if self.grace_s is not None and not self.stopped:
                self.stopped = True
                deadline_s = min(deadline_s, now_s + self.grace_s)
                self._signal_groups(signal.SIGTERM)
            if self.cut_off:
                self.stopped, deadline_s = True, 0.0
            if now_s >= deadline_s or len(self.codes) == len(self.pids):
                self._kill_children()
        if -signal.SIGTERM in self.codes.values() and signal.sigtimedwait({signal.SIGTERM}, 0.1):
            self.stopped = True   # Slurm signals ranks beside us: they were asked to end, they did not by themselves

    def _reap(self) -> bool:
        """Take every child that has ended. False: there are none left."""
        by_pid = {pid: rank for rank, pid in self.pids.items()}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid in by_pid:
                self.codes[by_pid[pid]] = os.waitstatus_to_exitcode(status)
                self.changed.set()

    def _signal_groups(self, number: int) -> None:
        for rank, pid in self.pids.items():
            if rank not in self.codes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, number)

    def _kill_children(self) -> None:
        """Everything below us: killing a child makes its children ours, so a few rounds take the whole tree."""
        own = os.getpid()
        for task in Path(f"/proc/{own}/task").iterdir():
            with contextlib.suppress(OSError):
                for pid in (task / "children").read_text(encoding="ascii").split():
                    os.kill(int(pid), signal.SIGKILL)

    def report(self) -> None:
        """Write what is known, read what is ordered: once a beat, at once when something changed."""
        while True:
            final = self.ended   # read before everything that it speaks for
            began_s = time.monotonic()
            try:
                if not self.attempt.exists():   # forgotten: nobody wants it any more
                    self.cut_off = True
                    if final:
                        return
                self._tell(final)
                self._listen()
                self.reached_s = began_s
                if final:
                    return
            except OSError:
                time.sleep(0.2)   # the state directory is away: the lease is running
                continue
            self.changed.wait(self.order["beat_s"])
            self.changed.clear()

    def _tell(self, final: bool) -> None:
        self.told += 1
        if final and (self.attempt / f"{self.node}.stop").exists():
            self.stopped = True   # they ended before we came to end them
        ranks = [[rank, pid, self.codes.get(rank)] for rank, pid in self.pids.items()]
        beats = {str(rank): beat for rank in self.pids if (beat := self._beat(rank))}
        write_whole(self.seen_path, json.dumps({
            "told": self.told, "ranks": ranks, "beats": beats, "ended": final, "stopped": self.stopped,
            "error": self.error}))

    def _beat(self, rank: int) -> list[Any] | None:
        """When the rank's file was last written, and its last whole line."""
        try:
            with (self.local / f"beat.{rank}").open("rb") as lines:
                written = os.fstat(lines.fileno())
                lines.seek(max(0, written.st_size - 256))
                whole = lines.read().split(b"\n")[:-1]
        except OSError:
            return None
        return [written.st_mtime_ns, whole[-1].decode(errors="replace")] if whole else None

    def _listen(self) -> None:
        if incarnation_of(self.attempt.parent.parent, self.node) != self.order["incarnation"]:
            self.cut_off = True
        if (self.attempt / f"{self.node}.stop").exists() and self.grace_s is None:
            self.grace_s = stop_grace_s(self.attempt, self.node, self.order["grace_s"])
        if self.cut_off or self.grace_s is not None:
            os.kill(os.getpid(), signal.SIGUSR1)   # wakes `watch`

    def pump(self) -> None:
        """Output of the ranks into their logs, which outlive the attempt, until the last holder of every pipe is
        gone."""
        logs = self.attempt.parent.parent / "logs" / self.attempt.name
        with contextlib.suppress(OSError):
            logs.mkdir(parents=True, exist_ok=True)
        chooser = selectors.DefaultSelector()
        for rank, pipe in self.pipes.items():
            chooser.register(pipe, selectors.EVENT_READ, rank)
        while chooser.get_map():
            for key, _ in chooser.select():
                block = os.read(key.fd, 1 << 16)
                if not block:
                    chooser.unregister(key.fd)
                    continue
                with contextlib.suppress(OSError):   # a full disk loses output, not the run
                    append_log(logs / f"rank.{key.data}.log", block)


def append_log(path: Path, block: bytes) -> None:
    """One more piece of a log; where it grew too long, its parts move on by one."""
    with path.open("ab") as log:
        log.write(block)
        grown = log.tell() > LOG_BYTES
    if grown:
        for part in range(LOG_PARTS, 0, -1):
            older = path.with_name(f"{path.name}.{part - 1}") if part > 1 else path
            if older.exists():
                older.replace(path.with_name(f"{path.name}.{part}"))


def stop_grace_s(attempt: Path, node: str, default_s: float) -> float:
    """How long an order to stop leaves the ranks; where Slurm alone signals, what the job asked for."""
    try:
        return float((attempt / f"{node}.stop").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return default_s


def main(attempt: Path) -> None:
    """Claim the row of this node, run it, and say how it ended."""
    state, node = attempt.parent.parent, os.environ["SLURMD_NODENAME"]
    try:
        order = json.loads((attempt / f"{node}.row").read_text(encoding="utf-8"))
        if not claim(attempt / f"{node}.claim", f"run {os.environ.get('SLURM_JOB_ID', '')}"):
            return
    except FileNotFoundError:   # forgotten: nobody wants it any more
        return
    # The claim stands before the incarnation is read, and a fence raises the incarnation before it looks for claims:
    # so either this launcher sees that it is too late, or the fence sees that it has to wait for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    ctypes.CDLL(None).prctl(_CHILD_SUBREAPER, 1)
    row = _Row(attempt, node, order)
    if incarnation_of(state, node) == order["incarnation"]:
        here = order["here"]   # what marks ranks of this node, whatever their incarnation, and of this one
        sweep((f"SERRIED_HERE={here}".encode(),), f"SERRIED_LIFE={order['incarnation']}".encode())
        row.start()
    else:
        row.stopped = True
    reporter = threading.Thread(target=row.report)
    pump = threading.Thread(target=row.pump)
    reporter.start()
    pump.start()
    row.watch()
    pump.join()
    row.ended = True
    row.changed.set()
    reporter.join()
    shutil.rmtree(row.local, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
