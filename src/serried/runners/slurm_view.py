"""What Slurm said last, and what that says of a row together with the files of its launcher."""

from __future__ import annotations

import time

from serried.runners.slurm_commands import JobHeld, NodeHeld, Refused, Slurm, Unreachable
from serried.runners.slurm_files import AttemptFiles
from serried.runners.spec import Phase

__all__ = ["View", "phase_of"]


class View:
    """Jobs and nodes as of the last answer. Seconds are of the monotonic clock of this process."""

    def __init__(self) -> None:
        self.asked_s = 0.0                        # when the last question was put
        self.answered_s = 0.0                     # when the question was put to which this is the answer
        self.jobs: dict[str, list[JobHeld]] = {}  # by name
        self.nodes: dict[str, NodeHeld] = {}
        self.heard_s: dict[str, float] = {}       # when Slurm last called a node alive
        self.usable_s: dict[str, float] = {}      # the same, and nobody kept new work off it
        self.trouble = ""                         # the last thing that went wrong

    def ask(self, slurm: Slurm) -> None:
        """Look again. Where Slurm does not answer, what was known stays, and no node has become more silent by it."""
        began_s, since_s = time.monotonic(), self.asked_s
        self.asked_s = began_s
        try:
            nodes, jobs = slurm.nodes(), slurm.jobs()
        except (Unreachable, Refused) as error:
            self.trouble = str(error)
            for heard_s in (self.heard_s, self.usable_s) if since_s else ():
                for name in heard_s:
                    heard_s[name] += began_s - since_s
            return
        self.answered_s, self.trouble = began_s, ""
        self.nodes = {node.name: node for node in nodes}
        self.jobs = {}
        for job in jobs:
            self.jobs.setdefault(job.name, []).append(job)
        for node in nodes:
            if node.responds:
                self.heard_s[node.name] = began_s
                if not node.drained:
                    self.usable_s[node.name] = began_s

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

    def ended_on(self, files: AttemptFiles, node: str) -> str:
        """How the row's last job ended, as Slurm says it while the node answers; "" = it does not say so.

        A job that Slurm gave up because a node of it was lost says nothing about that node.
        """
        named = [job for name, nodes in files.jobs.items() if node in nodes for job in self.jobs.get(name, ())]
        if not named or not self.jobless(files, node) or node not in self.nodes or not self.nodes[node].responds:
            return ""
        last = max(named, key=lambda job: job.number)
        return last.state if last.state != "NODE_FAIL" else ""


def phase_of(files: AttemptFiles, node: str, view: View, *, fenced: bool) -> tuple[Phase | None, str]:
    """Where a row stands, and why it could not run; None = it is not known. fenced: nothing of its incarnation runs."""
    decided = files.claims.get(node, "")
    if files.ended(node):
        return (Phase.GONE if files.words[node]["stopped"] else Phase.EXITED), ""
    if decided.startswith("stop"):
        return Phase.GONE, decided.removeprefix("stop").strip()
    if fenced:
        return Phase.GONE, ""
    if decided.startswith("run"):
        return _phase_of_claimed(files, node, view)
    if not view.jobless(files, node):
        return Phase.STARTING, ""
    state = view.ended_on(files, node)
    if state and files.bar(node, f"Slurm ended the job before it started: {state}"):
        return Phase.GONE, files.claims[node].removeprefix("stop").strip()
    return None, ""


def _phase_of_claimed(files: AttemptFiles, node: str, view: View) -> tuple[Phase, str]:
    state = view.ended_on(files, node)
    if state and view.answered_s > files.heard_s.get(node, 0.0):   # after the launcher's last word
        held_on = [job for name, nodes in files.jobs.items() if node in nodes
                   for job in view.jobs.get(name, ()) if node in job.nodes]
        if held_on:
            return Phase.GONE, f"Slurm ended it: {state}"
    started = bool(files.words.get(node, {}).get("ranks"))
    return (Phase.RUNNING if started else Phase.STARTING), ""
