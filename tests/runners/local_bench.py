"""The local engine with what can be done to it: two virtual nodes, and hands on their agents."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from serried.runners import Node
from serried.runners.local import LocalEngine
from serried.runners.local_nodes import LocalNode
from serried.runners.node_files import NodeFiles

NODES = tuple(LocalNode(node=Node(name=f"node-{place}", kind="cpu", chip_count=4)) for place in range(2))


class LocalBench:
    """Two virtual nodes of this machine; a `Bench` of the contract."""

    patience_s = 60.0

    def __init__(self, directory: Path, *, nodes: Sequence[LocalNode] = NODES, **options) -> None:
        self.state, self.scratch = directory / "state", directory / "scratch"
        self.scratch.mkdir(exist_ok=True)
        self.nodes, self.options = nodes, {"respawn_ns": 10_000_000, **options}
        self.engine = self.open()

    def open(self) -> LocalEngine:
        return LocalEngine(self.state, self.nodes, **self.options)

    def reopen(self) -> None:
        self.engine.close()
        self.engine = self.open()

    def files(self, node: str) -> NodeFiles:
        return NodeFiles(self.state, node)

    def agent(self, node: str) -> int:
        return self.files(node).record().pid

    def silence(self, node: str) -> None:
        os.kill(self.agent(node), signal.SIGSTOP)

    def kill(self, node: str) -> None:
        os.kill(self.agent(node), signal.SIGKILL)
