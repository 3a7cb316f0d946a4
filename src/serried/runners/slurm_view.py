"""What Slurm said last, and what that says of a row together with the files of its launcher."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from serried.runners.slurm_commands import JobHeld, NodeHeld, Refused, Slurm, Unreachable
from serried.runners.slurm_files import AttemptFiles
from serried.runners.spec import Phase

__all__ = ["Answer", "View", "ask", "phase_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What Slurm said to one question. began_s: when it was put; trouble: why there is no answer."""

    began_s: float
    nodes: Sequence[NodeHeld] = ()
    jobs: Sequence[JobHeld] = ()
    trouble: str = ""


def ask(slurm: Slurm) -> Answer:
    """Put the question; this waits."""
    began_s = time.monotonic()
    try:
        return Answer(began_s=began_s, nodes=slurm.nodes(), jobs=slurm.jobs())
    except (Unreachable, Refused) as error:
        return Answer(began_s=began_s, trouble=str(error))


class View:
    """Jobs and nodes as of the last answer. Seconds are of the monotonic clock of this process."""

    def __init__(self, *, kills_all: bool) -> None:
        self.kills_all = kills_all                # a job that is over has left no process, orphans among them
        self.answered_s = 0.0                     # when the question was put to which this is the answer
        self.jobs: dict[str, list[JobHeld]] = {}  # by name
        self.nodes: dict[str, NodeHeld] = {}
        self.heard_s: dict[str, float] = {}       # when Slurm last called a node alive
        self.usable_s: dict[str, float] = {}      # the same, and nobody kept new work off it
        self.trouble = ""                         # why the last question has no answer

    def take(self, answer: Answer) -> None:
        """Know what was answered; without an answer, what was known stays."""
        self.trouble = answer.trouble
        if answer.trouble:
            return
        self.answered_s = answer.began_s
        self.nodes = {node.name: node for node in answer.nodes}
        self.jobs = {}
        for job in answer.jobs:
            self.jobs.setdefault(job.name, []).append(job)
        for node in answer.nodes:
            if node.responds:
                self.heard_s[node.name] = answer.began_s
                if not node.drained:
                    self.usable_s[node.name] = answer.began_s

    def silence_s(self, node: str, *, usable: bool) -> float | None:
        """How long a node had been silent (or not usable) when Slurm answered last; None = it never spoke. While Slurm
        does not answer, nobody grows silent by it."""
        heard_s = (self.usable_s if usable else self.heard_s).get(node)
        return None if heard_s is None else self.answered_s - heard_s

    def numbers(self, files: AttemptFiles, name: str) -> list[int]:
        """Jobs of this name that may not be over, also one that Slurm has taken and not shown yet."""
        shown = {job.number for job in self.jobs.get(name, ()) if not job.over}
        number, answered_s = files.submitted.get(name, (0, 0.0))
        return sorted(shown | ({number} if answered_s > self.answered_s else set()))

    def unfinished(self, files: AttemptFiles) -> bool:
        """Slurm may still have a job of the attempt."""
        return any(self.numbers(files, name) for name in files.jobs)

    def jobless(self, files: AttemptFiles, node: str) -> bool:
        """No job that could start this row is known: it can be submitted (again)."""
        return not any(node in nodes and self.numbers(files, name) for name, nodes in files.jobs.items())

    def held(self, node: str) -> list[JobHeld]:
        """Jobs of ours that Slurm has not let go of on this node."""
        return [job for jobs in self.jobs.values() for job in jobs if not job.over and node in job.nodes]

    def ended(self, files: AttemptFiles, node: str) -> JobHeld | None:
        """The row's last job, if Slurm says that it is over; None where it has one that is not, or knows of none."""
        named = [job for name, nodes in files.jobs.items() if node in nodes for job in self.jobs.get(name, ())]
        return max(named, key=lambda job: job.number) if named and self.jobless(files, node) else None


def phase_of(files: AttemptFiles, node: str, view: View, *, fenced: bool) -> tuple[Phase | None, str]:
    """Where a row stands, and why it could not run; None = it is not known. fenced: nothing of its incarnation runs."""
    decided = files.claims.get(node, "")
    if files.ended(node):
        if not files.words[node]["stopped"]:
            return Phase.EXITED, ""
        job = view.ended(files, node) if node not in files.stops else None
        return Phase.GONE, f"Slurm ended it: {job.state}" if job is not None and job.state != "COMPLETED" else ""
    if decided.startswith("stop"):
        return Phase.GONE, decided.removeprefix("stop").strip()
    if fenced:
        return Phase.GONE, ""
    if decided.startswith("run"):
        return _phase_of_claimed(files, node, view)
    if not view.jobless(files, node):
        return Phase.STARTING, ""
    job = view.ended(files, node)
    if job is not None and files.bar(node, f"the launcher did not start on {node}; Slurm calls the job {job.state}. "
                                           f"{files.output_of(job.name)}"):
        return Phase.GONE, files.claims[node].removeprefix("stop").strip()
    return None, ""


def _phase_of_claimed(files: AttemptFiles, node: str, view: View) -> tuple[Phase, str]:
    """A launcher runs the row, or did: where it was killed before it could say the last word, Slurm's own must do.

    It must be younger than the launcher's, from a node that answers, of a job that still had the node when it ended:
    Slurm gives up a node that it lost, and then says nothing about it.
    """
    job, held = view.ended(files, node), view.nodes.get(node)
    if (job is not None and view.kills_all and held is not None and held.responds and node in job.nodes
            and job.state != "NODE_FAIL" and view.answered_s > files.heard_s.get(node, 0.0)):
        return Phase.GONE, f"Slurm ended it: {job.state}"
    started = bool(files.words.get(node, {}).get("ranks"))
    return (Phase.RUNNING if started else Phase.STARTING), ""
