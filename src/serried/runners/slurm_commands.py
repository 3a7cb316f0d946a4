"""What is asked of Slurm's commands, and what their answers say.

Everything goes as an argument list to sbatch, squeue, scancel and scontrol, and comes back in formats that have been
the same for many versions (`squeue -o`, `scontrol -o`); their JSON has changed from version to version, and needs
plug-ins. Where Slurm could not be reached, `Unreachable` says so: nothing is known then, not even whether an order
arrived.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from serried.errors import NoAnswer

__all__ = ["JobHeld", "NodeHeld", "Refused", "Slurm", "Unreachable", "host_names"]

_UP = frozenset({"IDLE", "MIXED", "ALLOCATED", "COMPLETING"})
_DRAINED = frozenset({"DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "MAINT", "POWERED_DOWN", "POWERING_DOWN",
                      "POWERING_UP", "REBOOT_ISSUED", "REBOOT_REQUESTED", "INVAL", "INVALID_REG"})
_OVER = frozenset({"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
                   "PREEMPTED", "TIMEOUT"})
#: What sbatch says when the fault is not the order's: it is given again.
_PASSING = re.compile(r"contact|connect|timed out|timeout|transmitted|temporarily|try again|munge|authentication|"
                      r"credential|socket|backlog|shutting down|standby", re.I)


class Unreachable(Exception):
    """Slurm did not answer: the order may have arrived or not."""


class Refused(Exception):
    """Slurm answered no, in its own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobHeld:
    """One job as Slurm has it. nodes: those that it still holds, or held when it ended."""

    number: int
    name: str
    state: str
    nodes: frozenset[str] = frozenset()

    @property
    def over(self) -> bool:
        """It ended, and Slurm has cleaned every node that answers: COMPLETING is not over."""
        return self.state in _OVER


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHeld:
    """One node as Slurm has it. flags: every word of its state, `NOT_RESPONDING` for the star. slurmd_start: when the
    daemon on it came up, as Slurm prints it."""

    name: str
    address: str
    host: str
    flags: frozenset[str]
    reason: str = ""
    slurmd_start: str = ""
    gres: str = ""
    features: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    cpu_count: int = 0
    memory_bytes: int = 0

    @property
    def responds(self) -> bool:
        """Slurm hears it and lets it work."""
        return "NOT_RESPONDING" not in self.flags and bool(self.flags & _UP) and "DOWN" not in self.flags

    @property
    def drained(self) -> bool:
        """Somebody keeps new work off it."""
        return bool(self.flags & _DRAINED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slurm:
    """The commands of one cluster. environment: of the commands, and so of every job that they submit: nothing of the
    caller's own goes to a node that is not named here."""

    environment: dict[str, str] = field(default_factory=dict)
    timeout_s: float = 10.0

    def run(self, argv: Sequence[str], text: str = "") -> str:
        """One command's answer. Raises Unreachable or Refused."""
        try:
            done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=self.timeout_s, check=False,
                                  env=self.environment, start_new_session=True)
        except FileNotFoundError as error:
            raise NoAnswer(f"{argv[0]} is not installed.", remedy="Install Slurm's client commands on this machine, or "
                           "name another engine.") from error
        except subprocess.TimeoutExpired as error:
            raise Unreachable(f"{argv[0]} did not answer within {self.timeout_s:g} s") from error
        if done.returncode:
            words = " ".join(done.stderr.split())[:500]
            raise (Unreachable if _PASSING.search(words) else Refused)(f"{argv[0]}: {words}")
        return done.stdout

    def jobs(self) -> list[JobHeld]:
        """Every job of this user that Slurm remembers."""
        answer = self.run(["squeue", "--noheader", "--all", "--states=all", f"--user={os.getuid()}",
                           "--format=%A|%j|%T|%N"])
        found = []
        for line in answer.splitlines():
            number, name, state, nodes = line.strip().split("|", 3)
            found.append(JobHeld(number=int(number), name=name, state=state, nodes=frozenset(host_names(nodes))))
        return found

    def nodes(self) -> list[NodeHeld]:
        """Every node of the cluster."""
        answer = self.run(["scontrol", "--oneliner", "show", "node"])
        return [_node(line) for line in answer.splitlines() if line.strip()]

    def switches(self) -> dict[str, dict[str, str]]:
        """node -> level -> switch, innermost level first; empty where no topology is configured."""
        try:
            answer = self.run(["scontrol", "--oneliner", "show", "topology"])
        except Refused:
            return {}
        found: dict[str, dict[str, str]] = {}
        lines = [_fields(line) for line in answer.splitlines() if "SwitchName=" in line]
        for words in sorted(lines, key=lambda words: int(words.get("Level", "0"))):
            for node in host_names(words.get("Nodes", "")):
                found.setdefault(node, {})[f"level{words.get('Level', '0')}"] = words["SwitchName"]
        return found

    def settings(self) -> dict[str, str]:
        """The cluster's configuration, as `scontrol show config` prints it."""
        pairs = (line.partition("=") for line in self.run(["scontrol", "show", "config"]).splitlines())
        return {name.strip(): value.strip() for name, _, value in pairs}

    def submit(self, script: str, options: Sequence[str]) -> int:
        """Hand a batch script in; the number of its job."""
        return int(self.run(["sbatch", "--parsable", *options], script).strip().partition(";")[0])

    def cancel(self, numbers: Sequence[int], *options: str) -> None:
        """scancel; that a job is over already is no fault."""
        if numbers:
            try:
                self.run(["scancel", "--quiet", *options, *map(str, numbers)])
            except Refused:
                return

    def set_down(self, node: str, reason: str) -> None:
        """Take a node out of service: Slurm ends what it knows to run there."""
        self.run(["scontrol", "update", f"NodeName={node}", "State=DOWN", f"Reason={reason}"])

    def resume(self, node: str) -> None:
        """Put a node back into service."""
        self.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"])


def _fields(line: str) -> dict[str, str]:
    return dict(re.findall(r"(?:^|\s)([A-Za-z]+)=(\S*)", line))


def _node(line: str) -> NodeHeld:
    facts, _, reason = line.partition(" Reason=")   # free text, so nothing after it is read
    words = _fields(facts)
    state = words["State"]
    flags = {flag.rstrip("*~#!%$@^-") for flag in state.split("+")}
    if "*" in state:
        flags.add("NOT_RESPONDING")
    features = words.get("AvailableFeatures", "(null)")
    return NodeHeld(
        name=words["NodeName"], address=words.get("NodeAddr", ""), host=words.get("NodeHostName", ""),
        flags=frozenset(flags), reason=reason.strip(), slurmd_start=words.get("SlurmdStartTime", ""),
        gres=words.get("Gres", "(null)"), features=() if features == "(null)" else tuple(features.split(",")),
        partitions=tuple(words.get("Partitions", "").split(",")), cpu_count=int(words.get("CPUTot", "0")),
        memory_bytes=int(words.get("RealMemory", "0")) << 20)


def host_names(text: str) -> Iterator[str]:
    """The names in a host list such as "a[1-3,07],b": Slurm's short form, written out."""
    for part in re.findall(r"(?:[^,\[\]]+|\[[^\]]*\])+", text):
        yield from _unfolded(part)


def _unfolded(part: str) -> Iterator[str]:
    head, bracket, rest = part.partition("[")
    if not bracket:
        yield part
        return
    ranges, _, tail = rest.partition("]")
    for one in ranges.split(","):
        first, _, last = one.partition("-")
        for number in range(int(first), int(last or first) + 1):
            for end in _unfolded(tail):
                yield f"{head}{number:0{len(first)}d}{end}"
