"""The books of chip-time: every chip is, at every moment, in exactly one account.

Amounts are whole thousandths of a chip times nanoseconds, in Python's unbounded integers, so that the accounts add up
to the fleet exactly. What jobs hold is booked when a stint closes; what nobody holds is booked as time passes.

Axes: N = node, K = kind of chip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from serried.clock import HOUR_NS
from serried.fleet import Job, State
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
#: Accounts of what no node answers for by itself.
_NOT_FILED = frozenset(ACCOUNTS[:3])


class Books:
    """Accounts of one run. `total` in units of the books; `held_total` is a second count of what jobs hold."""

    def __init__(self, state: State, fault_names: Sequence[str], down_fault_N: NDArray[np.int16]) -> None:
        self._state, self._down_fault_N = state, down_fault_N
        self._fault_names = [f"down: {name}" for name in fault_names]
        self.total: dict[str, int] = dict.fromkeys([*self._fault_names, *ACCOUNTS], 0)
        self.capacity_milli = int(state.fleet.chip_count_N.sum()) * WHOLE_MILLI
        self.held_total = 0
        self.held_milli = self.asked_milli = 0   # asked: by jobs that wait, on their first alternative
        self._tops = [number for number, tenant in enumerate(state.fleet.tenants) if tenant.parent < 0]
        self._since_ns = self._version = 0
        self._open_milli = self.capacity_milli
        self._unheld: dict[str, int] = {"nobody asked": self.capacity_milli}
        self._filed: dict[int, tuple[tuple[str, int], ...]] = {}   # node -> what nobody may take of it, by account
        self._filed_N = np.zeros(state.fleet.node_count, dtype=bool)

    def settle(self, now_ns: int) -> None:
        """Book what nobody held since the last time."""
        gone_ns = now_ns - self._since_ns
        if gone_ns:
            total = self.total
            for account, milli in self._unheld.items():
                if milli:
                    total[account] += milli * gone_ns
            self.held_total += self.held_milli * gone_ns
            self._since_ns = now_ns

    def recount(self) -> None:
        """Who holds what from now on, after everything that happened at this instant."""
        state, unheld = self._state, self._unheld
        touched = [nodes for nodes in state.touched[self._version:] if len(nodes)]
        self._version = state.version
        if touched:
            for nodes in touched:
                self._file(nodes)
            self.held_milli = sum([state.usage.held_milli_T[top] for top in self._tops])
            self._open_milli = sum(state.columns.slots_KSG[-1][:, 0, 0].tolist()) * WHOLE_MILLI
            unheld["scraps of shared chips"] = self.capacity_milli - self.held_milli - self._open_milli - sum(
                [milli for account, milli in unheld.items() if account not in _NOT_FILED])
            assert unheld["scraps of shared chips"] >= 0, "no chip is counted twice"
        unheld["waiting jobs do not fit"] = unfit_milli = min(self._open_milli, self.asked_milli)
        unheld["nobody asked"] = self._open_milli - unfit_milli

    def _file(self, nodes: Sequence[int] | NDArray[np.int32]) -> None:
        """Nodes changed: what nobody may take of them now, and no longer."""
        columns = self._state.columns
        if len(nodes) > 1:
            node_R = np.asarray(nodes)
            marked_R = columns.flags_N[node_R] | self._filed_N[node_R] | (columns.broken_chips_N[node_R] != 0)
            marked = node_R[marked_R != 0].tolist() if np.count_nonzero(marked_R) else ()
        else:
            node = int(nodes[0])
            marked = (node,) if columns.flags_N[node] or self._filed_N[node] or columns.broken_chips_N[node] else ()
        unheld = self._unheld
        for node in marked:
            for account, milli in self._filed.pop(node, ()):
                unheld[account] -= milli
            withheld = tuple(self._withheld(node))
            self._filed_N[node] = bool(withheld)
            if withheld:
                self._filed[node] = withheld
                for account, milli in withheld:
                    unheld[account] = unheld.get(account, 0) + milli

    def _withheld(self, node: int) -> Iterator[tuple[str, int]]:
        """Free shares of a node that nobody may take, by reason: the node, its broken chips, its sound ones."""
        columns = self._state.columns
        flags, broken = columns.flags_N.item(node), columns.broken_chips_N.item(node)
        free_C: list[int] = columns.free_milli_NC[node].tolist()
        lost_milli = sum(free_C) if flags & DOWN else sum(free_C[chip] for chip in bits_of(broken))
        if lost_milli:
            yield self._fault_names[self._down_fault_N.item(node)], lost_milli
        for flag, account in _FLAGGED if not flags & DOWN else ():
            if flags & flag:
                yield account, sum(free_C) - lost_milli
                return

    def book(self, stint: Stint, phases: Phases, *, by_failure: bool) -> None:
        """Book a closed stint."""
        total, milli = self.total, stint.milli
        total["starting" if stint.first else "restarting"] += milli * phases.restart_ns
        total["useful"] += milli * phases.saved_ns   # of a service until `split_service`
        total["writing checkpoints"] += milli * phases.write_ns
        total["lost to failures" if by_failure else "lost to preemption and moves"] += milli * phases.lost_ns
        total["behind slow nodes"] += milli * phases.slow_ns
        total["hanging on unknown faults"] += milli * phases.hung_ns
        total["broken, waiting for nodes"] += milli * phases.broken_ns

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
