"""How a silent node is cut off, when that is certain, and how the node comes back.

A fence first raises the node's incarnation in the shared directory: from then on no launcher of the old one starts, and
each that can read it ends its ranks. Then the node is set DOWN, so that Slurm ends what it knows there. It counts as
fenced once Slurm holds no job of ours on it and one of these holds:

- nothing was running there: every launcher that claimed a row has said that it ended;
- the node is this very machine (a cluster on loopback): every process that bears the node's mark was killed here;
- the site's own command (power, management controller) ended well;
- the lease has passed: a launcher that could not reach the directory since then has killed its ranks by itself.

The last of these is as good as the node's clock and kernel: a machine that was frozen whole, or a rank whose launcher
was killed and that had first escaped into a session of a child of its own, is not covered; who needs that gives the
command. Before its first rank, a launcher of the new incarnation kills whatever bears an older mark.

Where Slurm itself gave up a node on which something of ours ran, or a launcher was killed and Slurm does not track
processes so that none can escape (proctrack/cgroup), the fence is raised without being asked for.

The node comes back once Slurm hears it again. Where it was we who set it DOWN, that is once its daemon was started
anew, or has answered for `return_s`; what an operator set down or drained is the operator's to resume.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serried.runners.slurm_commands import NodeHeld, Refused, Slurm, Unreachable
from serried.runners.slurm_files import AttemptFiles, StateFiles
from serried.runners.slurm_rank import sweep
from serried.runners.slurm_view import View
from serried.runners.spec import AttemptId

__all__ = ["Fences", "Terms"]

_REASON = "serried-fence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How often and how long. look_s: between looks at the files; ask_s: between questions to Slurm; beat_s: between a
    launcher's words; lease_s: so long a launcher lives without reaching the directory, and so long a fence takes where
    nothing better is known; margin_s: that it may need to kill; launcher_silence_s: after it a node on which a launcher
    is silent is silent; return_s: see above. fence_command: cuts the node off by other means, {node} in it is the
    node's name; it answers 0 only when the node is off."""

    look_s: float = 0.1
    ask_s: float = 0.5
    beat_s: float = 1.0
    lease_s: float = 15.0
    margin_s: float = 5.0
    launcher_silence_s: float = 6.0
    return_s: float = 300.0
    fence_command: tuple[str, ...] = ()


@dataclass(slots=True)
class _Fence:
    began_s: float
    slurmd_start: str
    silent_s: float = 0.0
    downed_s: float = 0.0          # when Slurm was told, or was found to know already
    command: subprocess.Popen[bytes] | None = None


class Fences:
    """The fences that stand, and those that are being raised."""

    def __init__(self, files: StateFiles, slurm: Slurm, nodes: Sequence[str],
                 attempts: Mapping[AttemptId, AttemptFiles], terms: Terms) -> None:
        self._files, self._slurm, self._nodes = files, slurm, nodes
        self._attempts, self._terms = attempts, terms
        self._fences: dict[str, _Fence] = {}
        self._running: Mapping[str, Sequence[AttemptFiles]] = {}

    def begin(self, node: str, heard_s: float) -> None:
        """Raise a fence around what runs on a node now; once it stands, or is being raised, this changes nothing."""
        life = self._files.life(node)
        if life.returned == life.current:
            self._files.begin_life(node)
            self._fences[node] = _Fence(began_s=time.monotonic(), slurmd_start="", silent_s=heard_s)

    def silent_s(self, node: str) -> float:
        """When a node that is cut off was heard last."""
        return self._fences[node].silent_s if node in self._fences else 0.0

    def advance(self, view: View, running: Mapping[str, Sequence[AttemptFiles]]) -> None:
        """One more step of every fence and of every return. running: node -> attempts whose launcher there has not
        said that it ended."""
        self._running = running
        for node in self._nodes:
            life = self._files.life(node)
            held = view.nodes.get(node)
            if held is not None and life.returned == life.current and self._is_lost(node, held, view):
                self.begin(node, view.heard_s.get(node, 0.0))
                continue   # what claims there are is to be read after the incarnation was raised
            if life.returned == life.current or held is None:
                continue
            # after a restart of ours nobody knows when it began: the lease runs anew
            fence = self._fences.setdefault(node, _Fence(began_s=time.monotonic(), slurmd_start=held.slurmd_start))
            fence.slurmd_start = fence.slurmd_start or held.slurmd_start
            with contextlib.suppress(Unreachable, Refused, TimeoutError):   # the next look tries again
                if life.fenced < life.current - 1:
                    self._raise(node, held, fence, view)
                else:
                    self._lower(node, held, fence, view)

    def _is_lost(self, node: str, held: NodeHeld, view: View) -> bool:
        """Slurm has given up the node, or a row on it whose launcher fell silent: what ran there may run still."""
        left = self._running.get(node, ())
        if "DOWN" in held.flags:
            return bool(left)
        return not view.kills_all and any(
            time.monotonic() - files.heard_s.get(node, 0.0) > self._terms.launcher_silence_s
            and view.ended(files, node) is not None for files in left)

    def _raise(self, node: str, held: NodeHeld, fence: _Fence, view: View) -> None:
        if not fence.downed_s:
            if "DOWN" not in held.flags and not (held.drained and not self._unended(node)):
                self._slurm.set_down(node, _REASON)
            fence.downed_s = time.monotonic()
        for files in self._attempts.values():
            if node in files.rows and node not in files.claims:
                files.bar(node, "")
        settled = view.answered_s > fence.downed_s and not view.held(node)
        if self._is_certain(node, held, fence) and settled:
            self._files.end_life(node)

    def _is_certain(self, node: str, held: NodeHeld, fence: _Fence) -> bool:
        if _is_here(held):
            identity = self._files.identity
            sweep((f"SERRIED_IDENTITY={identity}".encode(), f"SLURMD_NODENAME={node}".encode()))
            sweep((f"SERRIED_HERE={identity}:{node}".encode(),))
            return True
        if self._terms.fence_command:
            return self._command_ended_well(node, fence)
        passed_s = time.monotonic() - fence.began_s
        return not self._unended(node) or passed_s > self._terms.lease_s + self._terms.margin_s

    def _command_ended_well(self, node: str, fence: _Fence) -> bool:
        if fence.command is None or fence.command.poll() not in (None, 0):
            argv = [word.replace("{node}", node) for word in self._terms.fence_command]
            fence.command = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                             stderr=subprocess.DEVNULL, start_new_session=True)
        return fence.command.poll() == 0

    def _unended(self, node: str) -> bool:
        return bool(self._running.get(node))

    def _lower(self, node: str, held: NodeHeld, fence: _Fence, view: View) -> None:
        if view.answered_s <= fence.began_s:
            return
        if held.responds and not held.drained:
            self._files.return_life(node)
            del self._fences[node]
            return
        anew = held.slurmd_start not in ("", "None", fence.slurmd_start)
        answers = "NOT_RESPONDING" not in held.flags
        if "DOWN" in held.flags and held.reason.startswith(_REASON) and answers and (
                anew or time.monotonic() - fence.began_s > self._terms.return_s):
            self._slurm.resume(node)


def _is_here(held: NodeHeld) -> bool:
    """The node's daemon runs on this machine, so that its processes can be seen and killed from here."""
    own = os.uname().nodename
    return held.address.startswith("127.") or held.address in (own, "localhost") or held.host in (own, socket.getfqdn())
