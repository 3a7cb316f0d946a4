"""The fleet hour by hour, and how long each node was down.

Axes: X = sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from serried.fleet import Fleet, State
from serried.fleet.spec import WHOLE_MILLI
from serried.simulation.accounting import Books

__all__ = ["Samples", "widest_node"]


@dataclass(slots=True)
class Samples:
    """Columns over samples. widest_K: chips of the largest node of each kind. fragmentation_ratio: of chips that are
    free and open, the share on nodes that are not wholly free. down_ns: of each node that ever was down.
    """

    widest_K: Sequence[int]
    time_ns: list[int] = field(default_factory=list)
    held_ratio: list[float] = field(default_factory=list)
    down_ratio: list[float] = field(default_factory=list)
    fragmentation_ratio: list[float] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    down_ns: dict[int, int] = field(default_factory=dict)
    _since_ns: dict[int, int] = field(default_factory=dict)

    def take(self, now_ns: int, state: State, books: Books) -> None:
        """One look at the fleet."""
        whole_KG = state.columns.slots_KSG[-1][:, 0]
        open_chips = int(whole_KG[:, 0].sum())
        in_whole = sum(int(whole_KG[kind, widest - 1]) * widest for kind, widest in enumerate(self.widest_K))
        self.time_ns.append(now_ns)
        self.held_ratio.append(books.held_milli / books.capacity_milli)
        self.down_ratio.append(sum(int(state.fleet.chip_count_N[node]) for node in self._since_ns) * WHOLE_MILLI
                               / books.capacity_milli)
        self.fragmentation_ratio.append(1.0 - in_whole / open_chips if open_chips else 0.0)
        self.pending.append(state.pending_count)

    def down(self, nodes: Iterable[int], now_ns: int) -> None:
        """Nodes went down."""
        self._since_ns.update(dict.fromkeys(nodes, now_ns))

    def up(self, nodes: Iterable[int], now_ns: int) -> None:
        """Nodes work again."""
        for node in nodes:
            self.down_ns[node] = self.down_ns.get(node, 0) + now_ns - self._since_ns.pop(node)

    def close(self, end_ns: int) -> None:
        """Nodes that are still down have been so until now."""
        self.up(list(self._since_ns), end_ns)


def widest_node(fleet: Fleet, kind: int) -> int:
    """Chips of the largest node of a kind."""
    return int(fleet.chip_count_N[fleet.kind_N == kind].max(initial=1))
