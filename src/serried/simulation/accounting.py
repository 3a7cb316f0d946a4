"""The books of chip-time: every chip is, at every moment, in exactly one account.

Amounts are whole thousandths of a chip times nanoseconds, in Python's unbounded integers, so that the accounts add up
to the fleet exactly. What jobs hold is booked when a stint closes; what nobody holds is booked as time passes.

Axes: N = node, K = kind of chip.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from serried.clock import HOUR_NS
from serried.fleet import Job, State
from serried.fleet.columns import DOWN, DRAINING, RESERVED, SPARE, chip_bits
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
_FLAGGED = (("draining", DRAINING, DOWN), ("kept as spares", SPARE, DOWN | DRAINING),
            ("kept for a waiting job", RESERVED, DOWN | DRAINING | SPARE))


class Books:
    """Accounts of one run. `total` in units of the books; `held_total` is a second count of what jobs hold."""

    def __init__(self, state: State, fault_names: Sequence[str], down_fault_N: NDArray[np.int16]) -> None:
        self._state, self._down_fault_N = state, down_fault_N
        self._fault_names = [f"down: {name}" for name in fault_names]
        self.total: dict[str, int] = dict.fromkeys([*self._fault_names, *ACCOUNTS], 0)
        self.capacity_milli = int(state.fleet.chip_count_N.sum()) * WHOLE_MILLI
        self.held_total = 0
        self.held_milli = self.asked_milli = 0   # asked: by jobs that wait, on their first alternative
        self._widest = int(state.fleet.chip_count_N.max())
        self._tops = [number for number, tenant in enumerate(state.fleet.tenants) if tenant.parent < 0]
        self._since_ns = 0
        self._unheld: dict[str, int] = {"nobody asked": self.capacity_milli}
        self._rest_milli = 0
        self.failed_nodes: dict[int, None] = {}     # nodes that are down
        self.lame_nodes: dict[int, None] = {}       # nodes with failed chips

    def settle(self, now_ns: int) -> None:
        """Book what nobody held since the last time."""
        gone_ns = now_ns - self._since_ns
        if gone_ns:
            for account, milli in self._unheld.items():
                self.total[account] += milli * gone_ns
            self.held_total += self.held_milli * gone_ns
            self._since_ns = now_ns

    def recount(self, *, flags_changed: bool) -> None:
        """Who holds what from now on, after everything that happened at this instant."""
        state = self._state
        self.held_milli = int(state.usage.held_milli_TK[self._tops].sum())
        open_milli = int(state.columns.slots_KSG[-1][:, 0, 0].sum()) * WHOLE_MILLI
        rest_milli = self.capacity_milli - self.held_milli - open_milli
        if flags_changed or rest_milli != self._rest_milli:
            self._rest_milli = rest_milli
            flagged = self._flagged()
            self._unheld = flagged | {"scraps of shared chips": rest_milli - sum(flagged.values())}
        unfit_milli = min(open_milli, self.asked_milli)
        self._unheld["waiting jobs do not fit"] = unfit_milli
        self._unheld["nobody asked"] = open_milli - unfit_milli
        assert self._unheld.get("scraps of shared chips", 0) >= 0, "no chip is counted twice"

    def _flagged(self) -> dict[str, int]:
        """What nobody holds and nobody may take, by reason."""
        columns, found = self._state.columns, {}
        if self.failed_nodes:
            nodes = _array(self.failed_nodes)
            by_fault = np.bincount(self._down_fault_N[nodes], weights=columns.free_milli_NC[nodes].sum(axis=1))
            found = {self._fault_names[fault]: int(milli) for fault, milli in enumerate(by_fault.tolist())}
        if self.lame_nodes:
            nodes = _array(self.lame_nodes)
            nodes = nodes[columns.flags_N[nodes] & DOWN == 0]
            free_RC = columns.free_milli_NC[nodes] * chip_bits(columns.broken_chips_N[nodes], self._widest)
            by_fault = np.bincount(self._down_fault_N[nodes], weights=free_RC.sum(axis=1))
            for fault in np.flatnonzero(by_fault).tolist():
                name = self._fault_names[fault]
                found[name] = found.get(name, 0) + int(by_fault[fault])
        kept: tuple[Collection[int], ...] = self._state.draining, self._state.spares, self._state.reserver
        for (account, flag, before), nodes_kept in zip(_FLAGGED, kept, strict=True):
            if nodes_kept:
                flagged = _array(nodes_kept)
                flags = columns.flags_N[flagged]
                found[account] = self._sound(flagged[(flags & flag != 0) & (flags & before == 0)])
        return found

    def _sound(self, nodes: NDArray[np.int64]) -> int:
        """Free shares of the healthy chips of some nodes."""
        columns = self._state.columns
        free_RC = columns.free_milli_NC[nodes]
        broken_R = columns.broken_chips_N[nodes]
        if broken_R.any():
            free_RC[chip_bits(broken_R, self._widest)] = 0
        return int(free_RC.sum())

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


def _array(nodes: Collection[int]) -> NDArray[np.int64]:
    return np.fromiter(nodes, dtype=np.int64)


def asked_milli(job: Job) -> int:
    """Thousandths of chips that a job asks for, the first way."""
    return job.shape.alternatives[0].chip_count * job.shape.share_milli
