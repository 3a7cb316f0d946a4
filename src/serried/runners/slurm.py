"""The engine that has a Slurm cluster run gangs: serried places, Slurm starts, watches and ends.

An attempt is one Slurm job, pinned to exactly the nodes of its rows; on each of them a launcher (`slurm_rank`) forks
the ranks. Which chips they use is serried's decision alone, so the nodes (a partition) are to be serried's own. Slurm
and the engine share a directory (`slurm_files`) with every node.

How the promises of `Engine` are kept:

1. Exactly one party links the claim of a row: a launcher, which then runs it, or we, who then bar it. A second sbatch
   of the same attempt, from a driver that died before it heard of the first, waits behind it (`singleton`) and finds
   every row claimed.
2. `stop` first claims each row itself; where a launcher was first, it is told to end its ranks.
3. The launcher compares the incarnation of its order with that of its node, after its claim.
4. The launcher adopts the orphans of its ranks and says `ended` after the last of them. Where it could not say so,
   Slurm must say that the job is over on a node that answers, and track processes by cgroup; else the node is fenced.
5. `slurm_fences` says when a node counts as fenced.
6. What launchers say is in files, until `forget`.

No call waits: threads run the commands, and `observe` tells what they saw last. While Slurm's controller does not
answer, no node is told to be silent: it is we who are deaf.
"""

from __future__ import annotations

import collections
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from serried.errors import BadInput
from serried.runners.slurm_commands import NodeHeld, Refused, Slurm, Unreachable
from serried.runners.slurm_fences import Fences, Terms
from serried.runners.slurm_files import AttemptFiles, StateFiles
from serried.runners.slurm_view import View, ask, phase_of
from serried.runners.spec import AttemptId, Launch, Node, NodeSeen, Observation, TaskSeen

__all__ = ["SlurmEngine", "Terms", "cluster_nodes"]

_PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SLURM_CONF")


def cluster_nodes(slurm: Slurm, *, partition: str = "", device_variables: tuple[str, ...] = ()) -> tuple[Node, ...]:
    """The machines of a partition (or of the cluster). Chips are what gres counts; the kind is the gres's type, else a
    feature "kind=...", else the gres's name. A node without gres offers its CPUs as virtual chips."""
    switches = slurm.switches()
    found = [_node(held, switches.get(held.name, {}), device_variables) for held in slurm.nodes()
             if not partition or partition in held.partitions]
    if not found:
        raise BadInput(field="partition", value=partition, expected="a partition of the Slurm cluster that has nodes",
                       remedy="`sinfo` lists them.")
    return tuple(found)


def _node(held: NodeHeld, switches: Mapping[str, str], device_variables: tuple[str, ...]) -> Node:
    gres = re.match(r"([^:,(]+)(?::([^:,(]*[^:,(\d][^:,(]*))?(?::(\d+))?", held.gres)
    counted = gres is not None and held.gres != "(null)"
    name, kind, count = (gres[1], gres[2], gres[3]) if gres and counted else ("cpu", None, str(held.cpu_count))
    feature = next((word.partition("=")[2] for word in held.features if word.startswith("kind=")), "")
    return Node(name=held.name, kind=feature or kind or name, chip_count=int(count or 1),
                cpu_milli=held.cpu_count * 1000, memory_bytes=held.memory_bytes, switches=dict(switches),
                address=held.address or held.host or held.name, device_variables=device_variables)


@dataclass(frozen=True, slots=True)
class _Told:
    """What `observe` answers from, in nanoseconds of this process's monotonic clock. looked_ns: when that was so."""

    nodes: tuple[NodeSeen, ...] = ()
    tasks: tuple[TaskSeen, ...] = ()
    looked_ns: int = 0


class SlurmEngine:
    """`Engine` over one Slurm cluster. options: added to every sbatch (account, partition, time limit). on_change:
    called from the engine's thread whenever there is something new to observe."""

    name = "slurm"
    trouble = ""   # why the last order that failed did

    def __init__(self, state: Path, *, partition: str = "", options: Sequence[str] = (), python: str = "",
                 slurm: Slurm | None = None, terms: Terms | None = None, device_variables: tuple[str, ...] = (),
                 on_change: Callable[[], None] | None = None) -> None:
        self.on_change = on_change
        self._files, self._terms = StateFiles(state), terms or Terms()
        passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        base = slurm or Slurm()
        self._slurm = replace(base, environment={
            **passed, **base.environment, "SERRIED_IDENTITY": self._files.identity})
        self._python = python or sys.executable
        self._options = (*([f"--partition={partition}"] if partition else []), *options)
        self._nodes = MappingProxyType({node.name: node for node in cluster_nodes(
            self._slurm, partition=partition, device_variables=device_variables)})
        self._attempts = {files.attempt: files for files in self._files.attempts()}
        settings = self._slurm.settings()
        self._view = View(kills_all=settings.get("ProctrackType") == "proctrack/cgroup")
        self._asks_memory = "MEMORY" in settings.get("SelectTypeParameters", "").upper()
        self._fences = Fences(self._files, self._slurm, tuple(self._nodes), self._attempts, self._terms)
        self._told, self._looked_s = _Told(), 0.0
        self._running: dict[str, list[AttemptFiles]] = {}   # node -> attempts whose launcher there has not ended
        self._offset_ns: int | None = None
        self._beaten: tuple[_Told, tuple[TaskSeen, ...]] | None = None   # tasks in the driver's nanoseconds
        self._orders: dict[tuple[object, ...], Callable[[], None]] = {}
        self._lock, self._wake, self._closed = threading.Lock(), threading.Event(), False
        self._answers, self._ask_now = collections.deque([ask(self._slurm)]), threading.Event()
        self._poll()
        self._threads = [threading.Thread(target=run, name="slurm", daemon=True) for run in (self._work, self._ask)]
        for thread in self._threads:
            thread.start()

    # What a driver calls: nothing here waits for Slurm, or for the directory.

    def nodes(self) -> tuple[Node, ...]:
        """The machines of the partition, as they were when the engine began."""
        return tuple(self._nodes.values())

    def observe(self, now_ns: int) -> Observation:
        """What the last look saw. A node is as silent as it was then: where we cannot look, nobody grows silent by it.
        The driver's clock is told from ours by one offset, so that a beat that was heard once keeps its time."""
        told, own_ns = self._told, time.monotonic_ns()
        if self._offset_ns is None or abs(now_ns - own_ns - self._offset_ns) > 50_000_000:
            self._offset_ns, self._beaten = now_ns - own_ns, None
        if self._beaten is None or self._beaten[0] is not told:
            self._beaten = (told, tuple(_shifted(task, self._offset_ns) for task in told.tasks))
        shift_ns = now_ns - told.looked_ns
        return Observation(tasks=self._beaten[1], nodes=tuple(
            replace(node, heard_ns=node.heard_ns and max(1, node.heard_ns + shift_ns)) for node in told.nodes))

    def start(self, launch: Launch, nodes: Sequence[str]) -> None:
        """Have Slurm run the rows of an attempt that stand on these nodes."""
        self._give(("start", launch.attempt, tuple(nodes)), lambda: self._start(launch, nodes))

    def stop(self, attempt: AttemptId, nodes: Sequence[str], grace_ns: int) -> None:
        """Bar the rows on these nodes, and end those that run."""
        self._give(("stop", attempt, tuple(nodes)), lambda: self._stop(attempt, nodes, grace_ns / 1e9))

    def fence(self, node: str) -> None:
        """Cut a node off; `slurm_fences` says how, and when it is done."""
        told = next((seen.incarnation for seen in self._told.nodes if seen.name == node), "")
        self._give(("fence", node, told), lambda: self._fence(node, told))

    def forget(self, attempt: AttemptId) -> None:
        """Remove what is known of an attempt, as soon as Slurm has no job of it."""
        self._give(("forget", attempt), lambda: self._forget(attempt))

    def log_path(self, attempt: AttemptId, rank: int) -> str:
        """Where a rank's output is, in the shared directory."""
        return str(self._files.root / "logs" / str(attempt) / f"rank.{rank}.log")

    def drains(self) -> Mapping[str, str]:
        """Nodes that an operator keeps new work off, with the reason given: node -> reason. As long as something of
        ours runs on one it is heard; afterwards it is told as silent."""
        return {name: held.reason for name, held in self._view.nodes.items() if held.drained and name in self._nodes}

    def close(self) -> None:
        """End the thread; orders that were given are carried out first. Jobs go on."""
        self._closed = True
        self._wake.set()
        self._ask_now.set()
        for thread in self._threads:
            thread.join()

    def _give(self, key: tuple[object, ...], order: Callable[[], None]) -> None:
        with self._lock:
            self._orders.setdefault(key, order)   # what is said again before it was done is said once
        self._wake.set()

    # What the threads do: one asks Slurm how things stand, the other does all the rest.

    def _ask(self) -> None:
        while not self._closed:
            self._answers.append(ask(self._slurm))
            self._wake.set()
            self._ask_now.wait(self._terms.ask_s)
            self._ask_now.clear()

    def _work(self) -> None:
        while True:
            closing = self._closed
            self._wake.clear()
            with self._lock:
                orders, self._orders = self._orders, {}
            for order in orders.values():
                try:
                    order()
                except (Unreachable, Refused, OSError) as error:   # the driver says it again
                    self.trouble = str(error)
            if closing:
                return
            try:
                self._poll()
            except OSError as error:   # the directory is away: nothing new is known
                self.trouble = str(error)
            self._wake.wait(self._terms.look_s)

    def _poll(self) -> None:
        """Take what Slurm answered, look at the files, and tell what changed."""
        late_s = time.monotonic() - self._looked_s - 1.0
        while self._answers:
            self._view.take(self._answers.popleft())
        for files in self._attempts.values() if late_s > 0 else ():
            files.heard_s = {node: heard_s + late_s for node, heard_s in files.heard_s.items()}   # we did not listen
        self._looked_s = time.monotonic()
        for files in list(self._attempts.values()):
            if not files.forgotten:
                files.read()
            elif not self._view.unfinished(files):
                files.remove()
                del self._attempts[files.attempt]
        self._running = {}
        for files in self._attempts.values():
            for node in files.rows:
                if files.runs(node):
                    self._running.setdefault(node, []).append(files)
        self._fences.advance(self._view, self._running)
        told = _Told(nodes=tuple(self._node_seen(name) for name in self._nodes), tasks=tuple(self._tasks_seen()),
                     looked_ns=time.monotonic_ns())
        known, self._told = self._told, told
        if self.on_change is not None and (known.tasks != told.tasks or any(
                (before.incarnation, before.fenced) != (now.incarnation, now.fenced)
                for before, now in zip(known.nodes, told.nodes, strict=False))):
            self.on_change()

    def _tasks_seen(self) -> list[TaskSeen]:
        found = []
        for files in self._attempts.values():
            for node, (incarnation, _) in () if files.forgotten else list(files.rows.items()):
                lost = incarnation <= self._files.life(node).fenced
                phase, error = phase_of(files, node, self._view, fenced=lost)
                if phase is not None:
                    found.append(files.seen(node, phase, error))
        return found

    def _node_seen(self, name: str) -> NodeSeen:
        life, now_s = self._files.life(name), time.monotonic()
        if life.returned < life.current:
            return NodeSeen(name=name, incarnation=str(life.current - 1), fenced=life.fenced == life.current - 1,
                            heard_ns=round(self._fences.silent_s(name) * 1e9))
        running = self._running.get(name, [])
        silence_s = self._view.silence_s(name, usable=not running)
        for files in running:   # a launcher that is silent on a node that Slurm hears: its ranks may do anything
            launcher_s = now_s - files.heard_s.get(name, now_s)
            if silence_s is not None and launcher_s > self._terms.launcher_silence_s:
                silence_s = max(silence_s, launcher_s)
        return NodeSeen(name=name, incarnation=str(life.current),
                        heard_ns=0 if silence_s is None else round((now_s - silence_s) * 1e9))

    def _incarnation(self, node: str) -> str:
        return str(self._files.life(node).current)

    def _start(self, launch: Launch, nodes: Sequence[str]) -> None:
        files = self._attempts.setdefault(launch.attempt, self._files.attempt(launch.attempt))
        if files.forgotten:
            return
        files.read()
        asked = set(nodes)
        rows = [row for row in launch.rows if row.node in asked and row.node not in files.claims
                and self._view.jobless(files, row.node) and row.node in self._nodes
                and row.incarnation == self._incarnation(row.node)
                and self._files.life(row.node).returned == self._files.life(row.node).current]
        if not rows:
            return
        files.order(launch, rows, self._nodes, {"lease_s": self._terms.lease_s, "beat_s": self._terms.beat_s})
        self._submit(files, launch, [row.node for row in rows])

    def _submit(self, files: AttemptFiles, launch: Launch, nodes: list[str]) -> None:
        part = "" if len(nodes) == len(launch.rows) else f".{'_'.join(nodes)}"[:80]
        name = f"serried-{launch.attempt}-{self._files.identity}{part}"
        self._must_hear()
        files.name_job(name, tuple(nodes))
        shape = [f"--nodes={len(nodes)}", f"--ntasks={len(nodes)}", "--ntasks-per-node=1", *self._shares(launch, nodes)]
        step = ["srun", *shape, "--no-kill", "--kill-on-bad-exit=0", "--wait=0", "--input=none", "--label",
                self._python, "-I", str(self._files.launcher), str(files.path)]
        script = "#!/bin/sh\nexec " + " ".join(_quoted(word) for word in step) + "\n"
        try:
            number = self._slurm.submit(script, [
                f"--job-name={name}", f"--nodelist={','.join(nodes)}", *shape, "--no-requeue", "--no-kill",
                "--dependency=singleton", "--chdir=/", "--input=/dev/null", "--export=ALL",
                f"--output={files.path}/{name}.out", *self._options])
        except Refused as error:
            for node in nodes:
                files.bar(node, str(error))
            return
        files.submitted[name] = (number, time.monotonic())

    def _shares(self, launch: Launch, nodes: Sequence[str]) -> list[str]:
        """Of each node's CPUs, and of its memory where Slurm deals it out, as much as of its chips; where the rows
        differ, the least, for Slurm gives every node of a job the same."""
        cpus, memories = [], []
        for row in launch.rows:
            if row.node in nodes:
                node = self._nodes[row.node]
                milli = len(row.chips) * launch.share_milli // node.chip_count
                cpus.append(max(1, node.cpu_milli * milli // 1_000_000))
                memories.append(max(1, node.memory_bytes * milli // 1000 >> 20))
        return [f"--cpus-per-task={min(cpus)}", *([f"--mem={min(memories)}M"] if self._asks_memory else [])]

    def _stop(self, attempt: AttemptId, nodes: Sequence[str], grace_s: float) -> None:
        files = self._attempts.setdefault(attempt, self._files.attempt(attempt))
        if files.forgotten:
            return
        for node in nodes:
            if not files.bar(node, "") and not files.ended(node) and node not in files.stops:
                files.stop(node, grace_s)
        pending, running = [], []
        for name, rows in files.jobs.items():
            if all(files.claims.get(node, "").startswith("stop") for node in rows):
                pending += self._view.numbers(files, name)
            elif all(node in files.stops or not files.runs(node) for node in rows):
                running += self._view.numbers(files, name)
        if pending or running:
            self._must_hear()
        self._slurm.cancel(pending)
        self._slurm.cancel(running, "--signal=CONT")   # the launchers' cue to look; it reaches the ranks, too

    def _fence(self, node: str, told: str) -> None:
        if told == self._incarnation(node):   # an order that was repeated too often must not hit the node's next life
            self._fences.begin(node, self._view.heard_s.get(node, 0.0))

    def _must_hear(self) -> None:
        """Where Slurm did not answer just now, an order would only keep everything else waiting."""
        if self._view.trouble:
            raise Unreachable(self._view.trouble)

    def _forget(self, attempt: AttemptId) -> None:
        files = self._attempts.get(attempt)
        if files is None:
            return
        files.forget()
        if self._view.unfinished(files):
            self._must_hear()
            self._slurm.cancel([number for name in files.jobs for number in self._view.numbers(files, name)])


def _shifted(task: TaskSeen, offset_ns: int) -> TaskSeen:
    ranks = tuple(replace(rank, beat=replace(rank.beat, heard_ns=rank.beat.heard_ns + offset_ns)) if rank.beat else rank
                  for rank in task.ranks)
    return replace(task, ranks=ranks)


def _quoted(word: str) -> str:
    """A word of the batch script, which a shell on the node reads."""
    return "'" + word.replace("'", "'\\''") + "'"

