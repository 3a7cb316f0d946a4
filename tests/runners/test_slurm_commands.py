"""What Slurm's commands print, read without a Slurm."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from serried.runners.slurm import cluster_nodes
from serried.runners.slurm_commands import Refused, Slurm, Unreachable, host_names

NODE = ("NodeName={name} Arch=x86_64 CoresPerSocket=1 CPUAlloc=0 CPUEfctv=8 CPUTot=8 AvailableFeatures={features} "
        "Gres={gres} NodeAddr=10.0.0.1 NodeHostName={name} Port=6818 OS=Linux 6.1 #1 SMP State=6  RealMemory=1000 "
        "State={state} ThreadsPerCore=1 Partitions=main,large BootTime=2026-11-27T13:09:55 "
        "SlurmdStartTime=2026-11-27T13:26:22{reason}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed(Slurm):
    """A Slurm that prints what it is given."""

    nodes_text: str = ""
    jobs_text: str = ""

    def run(self, argv, text=""):
        if argv[0] == "squeue":
            return self.jobs_text
        if "topology" in argv:
            raise Refused("no topology")
        return self.nodes_text


def node_line(name="n1", gres="(null)", state="IDLE", features="(null)", reason="") -> str:
    return NODE.format(name=name, gres=gres, state=state, features=features, reason=reason)


@pytest.mark.parametrize(("text", "names"), [
    ("", []), ("a", ["a"]), ("a,b-1", ["a", "b-1"]), ("n[1-3,07],b", ["n1", "n2", "n3", "n07", "b"]),
    ("n[09-11]", ["n09", "n10", "n11"]), ("c[1-2]x[3-4]", ["c1x3", "c1x4", "c2x3", "c2x4"])])
def test_host_lists(text, names):
    assert list(host_names(text)) == names


@pytest.mark.parametrize(("state", "responds", "drained"), [
    ("IDLE", True, False), ("MIXED+PLANNED", True, False), ("IDLE*", False, False),
    ("IDLE+NOT_RESPONDING", False, False), ("DOWN*", False, False), ("DOWN+DRAIN", False, True),
    ("ALLOCATED+DRAIN", True, True), ("IDLE+COMPLETING", True, False), ("IDLE+REBOOT_ISSUED", True, True),
    ("UNKNOWN", False, False)])
def test_states_of_nodes(state, responds, drained):
    node, = Printed(nodes_text=node_line(state=state)).nodes()
    assert (node.responds, node.drained) == (responds, drained)


def test_a_reason_is_text_and_nothing_else():
    line = node_line(state="DOWN", reason=" Reason=I say State=IDLE NodeName=n9 [root@now]")
    node, = Printed(nodes_text=line).nodes()
    assert (node.name, node.responds, node.reason) == ("n1", False, "I say State=IDLE NodeName=n9 [root@now]")


@pytest.mark.parametrize(("gres", "features", "kind", "count"), [
    ("chip:virtual:4(S:0-1)", "(null)", "virtual", 4), ("chip:4", "(null)", "chip", 4), ("chip", "(null)", "chip", 1),
    ("chip:big:8,net:2", "(null)", "big", 8), ("chip:4", "fast,kind=blue", "blue", 4), ("(null)", "(null)", "cpu", 8)])
def test_chips_are_what_gres_counts(gres, features, kind, count):
    node, = cluster_nodes(Printed(nodes_text=node_line(gres=gres, features=features)), partition="large")
    assert (node.kind, node.chip_count, node.cpu_milli, node.memory_bytes) == (kind, count, 8000, 1000 << 20)


def test_jobs():
    jobs = Printed(jobs_text="7|serried-1.2-ab|COMPLETING|n[1-2]\n8|serried-1.3-ab|CANCELLED|\n").jobs()
    assert [(job.number, job.over, sorted(job.nodes)) for job in jobs] == [(7, False, ["n1", "n2"]), (8, True, [])]


def test_an_order_that_may_have_arrived_is_told_from_one_that_was_refused():
    def saying(words: str) -> Slurm:
        return Slurm(timeout_s=0.3).run(["sh", "-c", f"echo '{words}' >&2; exit 1"])
    with pytest.raises(Unreachable):
        saying("sbatch: error: Unable to contact slurm controller (connect failure)")
    with pytest.raises(Refused, match="Invalid account"):
        saying("sbatch: error: Batch job submission failed: Invalid account or account/partition combination")
    with pytest.raises(Unreachable, match="did not answer"):
        Slurm(timeout_s=0.2).run(["sleep", "5"])
