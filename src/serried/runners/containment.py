"""Which processes belong to a row or a node, however they tried to get away, and how all of them are ended.

Where the machine permits, a row is a cgroup of version 2: whatever its ranks start is born in it, and one write kills
the lot. Elsewhere every process whose environment carries the row's mark is of the row, and so is whatever lost the
mark and was left to the agent, which is the reaper of all its descendants.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

__all__ = ["MARK", "Cage", "cgroup_home", "end_cgroup", "end_marked", "end_node", "permits_cgroup",
           "process_start"]

MARK = "SERRIED_MARK"   # the variable that every process of a row inherits
_PAUSE_S = 0.002


def process_start(pid: int) -> int:
    """When a living process started, in ticks since the machine did: with its number, what it is called by for good.
    0 where there is none, or only its remains are left."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def cgroup_home() -> Path | None:
    """Where this process may have groups of its own below its own one; None without cgroups of version 2."""
    try:
        own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            place, _, kind = line.partition(" - ")
            if kind.startswith("cgroup2 "):
                root, point = place.split()[3:5]
                below = os.path.relpath(own, root)
                return None if below.startswith("..") else Path(point) / below
    except (OSError, StopIteration):
        return None
    return None


def permits_cgroup(group: Path) -> bool:
    """Try it: make the group, let a child enter it. A group that cannot be entered or killed is of no use."""
    try:
        group.mkdir(parents=True, exist_ok=True)
        if not (group / "cgroup.kill").exists():
            return False
        child = os.fork()
        if child == 0:
            with contextlib.suppress(OSError):
                (group / "cgroup.procs").write_bytes(b"0")
                os._exit(0)
            os._exit(1)
        return os.waitpid(child, 0)[1] == 0
    except OSError:
        return False


def end_cgroup(group: Path) -> bool:
    """Kill everything in a group and below; True once nothing lives there and the group is gone."""
    try:
        if b"populated 1" in (group / "cgroup.events").read_bytes():
            (group / "cgroup.kill").write_bytes(b"1")
            if b"populated 1" in (group / "cgroup.events").read_bytes():
                return False
        for inner, _, _ in os.walk(group, topdown=False):
            os.rmdir(inner)
    except FileNotFoundError:
        return True
    except OSError:
        return not group.exists()
    return True


def _processes() -> Iterator[tuple[int, int, bytes]]:
    """All other processes whose environment may be read: number, file descriptor of the process, environment."""
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            handle = os.pidfd_open(int(name))   # held while its environment is read: the number cannot change hands
        except OSError:
            continue
        try:
            yield int(name), handle, Path("/proc", name, "environ").read_bytes()
        except OSError:
            continue
        finally:
            os.close(handle)


def _is_stray(pid: int, environment: bytes) -> bool:
    """Whether it is a child of this process that belongs to no row by its own account."""
    if f"\0{MARK}=".encode() in environment:
        return False
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return False
    return fields[0] not in (b"Z", b"X") and int(fields[1]) == os.getpid()


def end_marked(mark: str, *, own: Collection[int] | None = None) -> bool:
    """Kill every process that carries a mark; one that ends in "/" means all that begin with it. True when there was
    none. own: the caller is an agent and these are its living ranks: any other child of it that lost the mark is
    killed too, since it cannot be told which row left it behind."""
    needle = f"\0{MARK}={mark}".encode() + (b"" if mark.endswith("/") else b"\0")
    found = False
    for pid, handle, environment in _processes():
        surrounded = b"\0" + environment
        if needle in surrounded or (own is not None and pid not in own and _is_stray(pid, surrounded)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                found = True
    return not found


def end_node(groups: Collection[str], mark: str, given_up: Callable[[], bool] = lambda: False) -> bool:
    """Kill whatever a node has started, until nothing is left or until it is given up; whether nothing is left.

    Two passes have to find nothing: one could miss a process that was born behind its back.
    """
    clean_passes = 0
    while clean_passes < 2:
        dead = all(end_cgroup(Path(group)) for group in groups) and end_marked(mark)
        clean_passes = clean_passes + 1 if dead else 0
        if not dead:
            if given_up():
                return False
            time.sleep(_PAUSE_S)
    for group in groups:
        with contextlib.suppress(OSError):   # other nodes of this state still have theirs in it
            Path(group).parent.rmdir()
    return True


class Cage:
    """What holds the processes of one row. mark: what their environment says; group: their cgroup, None without."""

    def __init__(self, mark: str, group: Path | None) -> None:
        self.mark, self.group = mark, group
        self._clean_passes = 0
        if group is not None:
            group.mkdir(exist_ok=True)

    def enter(self) -> None:
        """Called by a rank before it becomes its program."""
        if self.group is not None:
            (self.group / "cgroup.procs").write_bytes(b"0")

    def end(self, own: Collection[int]) -> bool:
        """Kill what is left; True once nothing is. own: living ranks of other rows of this agent.

        Without a group it takes two passes that find nothing: one could miss a process that was born behind its back.
        """
        if self.group is not None:
            return end_cgroup(self.group)
        self._clean_passes = self._clean_passes + 1 if end_marked(self.mark, own=own) else 0
        return self._clean_passes >= 2
