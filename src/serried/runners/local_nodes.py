"""Which nodes this machine offers: itself as one, or whatever a file declares."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from serried.runners.spec import Node

__all__ = ["LocalNode", "this_machine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalNode:
    """A node of this machine. cores: those that its chips stand for; empty = its ranks run on any."""

    node: Node
    cores: tuple[int, ...] = ()

    def cores_of(self, chips: tuple[int, ...]) -> tuple[int, ...]:
        """Cores of some of its chips, in equal parts; any where there are fewer cores than chips."""
        per_chip = len(self.cores) // self.node.chip_count if self.node.chip_count else 0
        return tuple(core for chip in chips for core in self.cores[chip * per_chip:(chip + 1) * per_chip])


def this_machine() -> tuple[LocalNode, ...]:
    """One node named after the host, a chip of kind "cpu" for every core that this process may use."""
    cores = tuple(sorted(os.sched_getaffinity(0)))
    name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in socket.gethostname())
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (LocalNode(cores=cores, node=Node(
        name=name.strip("-.") or "localhost", kind="cpu", chip_count=len(cores), cpu_milli=1000 * len(cores),
        memory_bytes=memory_bytes)),)
