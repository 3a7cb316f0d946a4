"""The Slurm engine keeps the promises of every engine."""

import contextlib
import os
import signal
import threading
from pathlib import Path

import pytest

from serried.runners.slurm import SlurmEngine
from tests.runners.contract import EngineContract
from tests.runners.slurm_cluster import cluster, environments, wait_until
from tests.runners.test_slurm import TERMS

__all__ = ["cluster"]


class SlurmBench:
    """The two larger nodes of a cluster on loopback. What speaks for a node is its slurmd and the launchers on it."""

    patience_s = 30.0

    def __init__(self, cluster, directory: Path) -> None:
        self.cluster = cluster
        self.state, self.scratch = directory / "state", directory / "scratch"
        self.scratch.mkdir()
        self.engine = self.open()
        self.revivals: list[threading.Thread] = []

    def open(self) -> SlurmEngine:
        return SlurmEngine(self.state, slurm=self.cluster.slurm, terms=TERMS, partition="large")

    def reopen(self) -> None:
        self.engine.close()
        self.engine = self.open()

    def silence(self, node: str) -> None:
        for pid in self.speakers(node):
            os.kill(pid, signal.SIGSTOP)
        self.revive(node)

    def kill(self, node: str) -> None:
        for pid in self.speakers(node):
            os.kill(pid, signal.SIGKILL)
        self.revive(node)

    def speakers(self, node: str) -> list[int]:
        identity = (self.state / "identity").read_text()
        marks = {f"SLURMD_NODENAME={node}".encode(), f"SERRIED_IDENTITY={identity}".encode()}
        return [self.cluster.daemons[node].pid, *(pid for pid, words in environments() if marks <= words)]

    def revive(self, node: str) -> None:
        """Some time after it was given up, the node's daemon is started anew."""
        def later() -> None:
            with contextlib.suppress(AssertionError):
                wait_until(lambda: "DOWN" in self.cluster.nodes()[node].flags, "the node is given up", 20)
            self.cluster.kill(node)
            self.cluster.start_node(node)
        self.revivals.append(threading.Thread(target=later))
        self.revivals[-1].start()

    def end(self) -> None:
        for revival in self.revivals:
            revival.join()
        self.engine.close()
        identity = (self.state / "identity").read_text()
        mine = [job.number for job in self.cluster.slurm.jobs() if identity in job.name and not job.over]
        self.cluster.slurm.cancel(mine)
        wait_until(lambda: all(job.over for job in self.cluster.slurm.jobs() if job.number in mine), "its jobs over")


@pytest.fixture
def bench(cluster, tmp_path):
    made = SlurmBench(cluster, tmp_path)
    yield made
    made.end()


class TestSlurmEngine(EngineContract):
    pass
