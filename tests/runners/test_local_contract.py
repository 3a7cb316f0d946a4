"""The local engine keeps the promises of every engine, with and without cgroups."""

import os
import signal

import pytest

from serried.runners import Node
from serried.runners.local import LocalEngine
from serried.runners.local_nodes import LocalNode
from serried.runners.node_files import NodeFiles
from tests.runners.contract import EngineContract


class LocalBench:
    """Two virtual nodes of this machine."""

    patience_s = 60.0

    def __init__(self, directory, *, cgroups: bool) -> None:
        self.cgroups = cgroups
        self.state, self.scratch = directory / "state", directory / "scratch"
        self.scratch.mkdir()
        self.engine = self.open()

    def open(self) -> LocalEngine:
        nodes = [LocalNode(node=Node(name=f"node-{place}", kind="cpu", chip_count=4)) for place in range(2)]
        return LocalEngine(self.state, nodes, respawn_ns=10_000_000, cgroups=self.cgroups)

    def reopen(self) -> None:
        self.engine.close()
        self.engine = self.open()

    def agent(self, node: str) -> int:
        return NodeFiles(self.state, node).record().pid

    def silence(self, node: str) -> None:
        os.kill(self.agent(node), signal.SIGSTOP)

    def kill(self, node: str) -> None:
        os.kill(self.agent(node), signal.SIGKILL)


@pytest.fixture(params=[True, False], ids=["cgroups", "no cgroups"])
def bench(tmp_path, request):
    made = LocalBench(tmp_path, cgroups=request.param)
    yield made
    made.engine.shutdown(0)


class TestLocalEngine(EngineContract):
    pass
