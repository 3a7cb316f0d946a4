"""A second set of books: what was granted, kept apart from the state, so that the state can be checked against it."""

from __future__ import annotations

from collections.abc import Sequence

from serried.fleet.columns import bits_of, slots_of
from serried.fleet.spec import WHOLE_MILLI, Event, EventKind, Fleet
from serried.fleet.state import State

__all__ = ["Ledger"]


class Ledger:
    """Free shares, CPU and memory per node in plain numbers, moved by what jobs ask and not by what the state says."""

    def __init__(self, fleet: Fleet) -> None:
        self._chips = [[WHOLE_MILLI] * count for count in fleet.chip_count_N.tolist()]
        self._cpu_milli = fleet.cpu_milli_N.tolist()
        self._memory_bytes = fleet.memory_bytes_N.tolist()
        self._whole_milli = int(fleet.chip_count_N.sum()) * WHOLE_MILLI
        self.used_milli = 0
        self.checks = 0

    def follow(self, state: State, event: Event) -> None:
        """Book a PLACE."""
        placement, shape = event.placement, state.jobs[event.job].shape
        assert event.kind == EventKind.PLACE, "jobs arrive and stay"
        assert placement is not None, "a placed job stands somewhere"
        for node, chips, workers in zip(placement.node_R.tolist(), placement.chips_R.tolist(),
                                        placement.workers_R.tolist(), strict=True):
            for chip in bits_of(chips):
                self._chips[node][chip] -= shape.share_milli
                self.used_milli += shape.share_milli
            self._cpu_milli[node] -= workers * shape.cpu_milli
            self._memory_bytes[node] -= workers * shape.memory_bytes

    def check(self, state: State, events: Sequence[Event]) -> None:
        """Nothing is overdrawn on the nodes that events touched, both books agree there, and no share was lost."""
        self.checks += 1
        for event in events:
            if event.placement is not None:
                for node in event.placement.node_R.tolist():
                    self._check_node(state, node)

    def check_everything(self, state: State) -> None:
        """The same for every node, and the counts by switch from scratch."""
        for node in range(state.fleet.node_count):
            self._check_node(state, node)
        free_milli = int(state.columns.free_milli_NC.sum())
        assert free_milli + self.used_milli == self._whole_milli, "shares are conserved"
        for kept, counted in zip(state.columns.slots_KSG, slots_of(state.fleet, state.columns.open_chips_N),
                                 strict=True):
            assert (kept == counted).all(), "counts by switch follow their nodes"

    def _check_node(self, state: State, node: int) -> None:
        columns, chips = state.columns, self._chips[node]
        assert min(*chips, self._cpu_milli[node], self._memory_bytes[node], 0) == 0, "nothing is overdrawn"
        assert columns.free_milli_NC[node].tolist()[:len(chips)] == chips, "chips: state and ledger agree"
        assert columns.cpu_free_milli_N[node] == self._cpu_milli[node], "CPU: state and ledger agree"
        assert columns.memory_free_bytes_N[node] == self._memory_bytes[node], "memory: state and ledger agree"
        assert columns.open_sum_milli_N[node] == sum(chips), "sums follow chips"
