"""The books of chip-time: every chip is, at every moment, in exactly one account.

Amounts are whole thousandths of a chip times nanoseconds, in Python's unbounded integers, so that the accounts add up
to the fleet exactly. What jobs hold is booked when a stint closes; what nobody holds, when it changes.

Axes: N = node, K = kind of chip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from serried.clock import HOUR_NS
from serried.fleet import EventKind, Job, State
from serried.fleet.columns import DOWN, DRAINING, RESERVED, SPARE, bits_of
from serried.fleet.spec import WHOLE_MILLI
from serried.simulation.stint import Phases, Stint

__all__ = ["ACCOUNTS", "CHIP_HOUR", "Books", "asked_milli"]

#: A chip-hour in the unit of the books.
CHIP_HOUR = WHOLE_MILLI * HOUR_NS
#: Accounts in the order of the waterfall; what is down is booked by fault beside them ("down: NAME").
ACCOUNTS = ("nobody asked", "waiting jobs do not fit", "scraps of shared chips", "kept as spares",
            "kept for a waiting job", "draining", "starting", "restarting", "writing checkpoints",
            "lost to failures", "lost to preemption and moves", "behind slow nodes", "hanging on unknown faults",
            "broken, waiting for nodes", "headroom of services", "useful")
#: Why a node that is up takes no work, the first that holds.
_FLAGGED = ((DRAINING, "draining"), (SPARE, "kept as spares"), (RESERVED, "kept for a waiting job"))
#: Events that take no node out of use; PLACE may end a reservation, but makes none.
_KEEP_FLAGS = frozenset({EventKind.SUBMIT, EventKind.PLACE, EventKind.FINISH, EventKind.CANCEL, EventKind.EVICT,
                         EventKind.MOVE, EventKind.REPLACE})


class Books:
    """Accounts of one run. `total` in units of the books; `held_total` is a second count of what jobs hold. Whoever
    keeps the time sets `now_ns`."""

    def __init__(self, state: State, fault_names: Sequence[str], down_fault_N: NDArray[np.int16]) -> None:
        self._state, self._down_fault_N = state, down_fault_N
        self._fault_names = [f"down: {name}" for name in fault_names]
        self.total: dict[str, int] = dict.fromkeys([*self._fault_names, *ACCOUNTS], 0)
        self.capacity_milli = int(state.fleet.chip_count_N.sum()) * WHOLE_MILLI
        self.held_total = 0
        self.held_milli = self.asked_milli = 0   # asked: by jobs that wait, on their first alternative
        self._version = self.now_ns = self._held_since_ns = self._filed_milli = 0
        self._open_milli = self.capacity_milli
        self._unheld: dict[str, int] = {"nobody asked": self.capacity_milli}
        self._since_ns: dict[str, int] = {"nobody asked": 0}
        self._filed: dict[int, tuple[tuple[str, int], ...]] = {}   # node -> what nobody may take of it, by account
        self._filed_N = np.zeros(state.fleet.node_count, dtype=bool)

    def close(self) -> None:
        """Book everything that stands, up to now."""
        for account, milli in self._unheld.items():
            self.total[account] += milli * (self.now_ns - self._since_ns[account])
            self._since_ns[account] = self.now_ns
        self._hold(self.held_milli)

    def _hold(self, milli: int) -> None:
        self.held_total += self.held_milli * (self.now_ns - self._held_since_ns)
        self.held_milli, self._held_since_ns = milli, self.now_ns

    def _stand(self, account: str, milli: int) -> None:
        """From now on, so much of what nobody holds stands in an account."""
        before = self._unheld.get(account, 0)
        if milli != before:
            if before:
                self.total[account] += before * (self.now_ns - self._since_ns[account])
            self._unheld[account], self._since_ns[account] = milli, self.now_ns

    def recount(self) -> None:
        """Who holds what from now on, after everything that happened at this instant."""
        state = self._state
        since, self._version = self._version, state.version
        touched = False
        for version in range(since, self._version):
            nodes = state.touched[version]
            if len(nodes):
                touched = True
                self._file(nodes, already=state.log[version].kind in _KEEP_FLAGS)
        if touched:
            self._hold(state.usage.held_milli)
            self._open_milli = sum(state.columns.slots_KSG[-1][:, 0, 0].tolist()) * WHOLE_MILLI
            scraps_milli = self.capacity_milli - self.held_milli - self._open_milli - self._filed_milli
            assert scraps_milli >= 0, "no chip is counted twice"
            self._stand("scraps of shared chips", scraps_milli)
        unfit_milli = min(self._open_milli, self.asked_milli)
        self._stand("waiting jobs do not fit", unfit_milli)
        self._stand("nobody asked", self._open_milli - unfit_milli)

    def _file(self, nodes: Sequence[int] | NDArray[np.int32], *, already: bool) -> None:
        """Nodes changed: what nobody may take of them now, and no longer. already: none but those filed already can
        have any of that."""
        marked: Sequence[int] = ()
        if not already:
            marked = list(dict.fromkeys(map(int, nodes)))
        elif len(nodes) == 1:
            marked = [node] if (node := int(nodes[0])) in self._filed else ()
        elif np.count_nonzero(filed_R := self._filed_N[node_R := np.asarray(nodes)]):
            marked = node_R[filed_R].tolist()
        for node in marked:
            before, withheld = self._filed.pop(node, ()), tuple(self._withheld(node))
            self._filed_N[node] = bool(withheld)
            if withheld:
                self._filed[node] = withheld
            for account, milli in (*((account, -milli) for account, milli in before), *withheld) if (
                    withheld != before) else ():
                self._stand(account, self._unheld.get(account, 0) + milli)
                self._filed_milli += milli

    def _withheld(self, node: int) -> Iterator[tuple[str, int]]:
        """Free shares of a node that nobody may take, by reason: the node, its broken chips, its sound ones."""
        columns = self._state.columns
        flags, broken = columns.flags_N.item(node), columns.broken_chips_N.item(node)
        free_C: list[int] = columns.free_milli_NC[node].tolist()
        lost_milli = sum(free_C) if flags & DOWN else sum(free_C[chip] for chip in bits_of(broken))
        if broken or flags & DOWN:
            yield self._fault_names[self._down_fault_N.item(node)], lost_milli
        for flag, account in _FLAGGED if not flags & DOWN else ():
            if flags & flag:
                yield account, sum(free_C) - lost_milli
                return

    def book(self, stint: Stint, phases: Phases, *, by_failure: bool) -> None:
        """Book a closed stint."""
        total, milli = self.total, stint.milli
        for account, time_ns in (
                ("starting" if stint.first else "restarting", phases.restart_ns),
                ("useful", phases.saved_ns),   # of a service until `split_service`
                ("writing checkpoints", phases.write_ns),
                ("lost to failures" if by_failure else "lost to preemption and moves", phases.lost_ns),
                ("behind slow nodes", phases.slow_ns), ("hanging on unknown faults", phases.hung_ns),
                ("broken, waiting for nodes", phases.broken_ns)):
            if time_ns:
                total[account] += milli * time_ns

    def split_service(self, served: int, worked: int) -> None:
        """Of the chip-time that a service's replicas worked, what was not served is headroom."""
        headroom = max(worked - served, 0)
        self.total["useful"] -= headroom
        self.total["headroom of services"] += headroom

    def chip_hours(self) -> dict[str, float]:
        """Every account that anything stands in, in chip-hours, in the order of the waterfall."""
        return {account: amount / CHIP_HOUR for account, amount in self.total.items() if amount}


def asked_milli(job: Job) -> int:
    """Thousandths of chips that a job asks for, the first way."""
    return job.shape.alternatives[0].chip_count * job.shape.share_milli
