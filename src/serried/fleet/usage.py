"""What tenants hold and have used: the memory of fair share.

Axes: T = tenant, K = kind of chip.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from serried.fleet.spec import WHOLE_MILLI, Fleet

__all__ = ["Usage"]


class Usage:
    """Chips held now (`held_milli_TK`; `held_milli_T` of all kinds; `held_milli` by anybody) and decayed chip-seconds
    used, each counted for a tenant and all above it.

    A chip-second weighs 1 when it is used and half as much every half-life later:
    u(t + d) = u(t) 2^(-d/h) + held * h/ln 2 * (1 - 2^(-d/h)); without a half-life u(t + d) = u(t) + held * d.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.has_quotas = any(tenant.quota_chips_K for tenant in fleet.tenants)
        #: whether a quota can forbid anything: some tenant has one that it may not exceed
        self.bars = self.has_quotas and not all(tenant.borrows for tenant in fleet.tenants)
        self._lineages = tuple(_lineage(fleet, one) for one in range(len(fleet.tenants)))
        self.held_milli_TK = np.zeros((len(fleet.tenants), len(fleet.kinds)), dtype=np.int64)
        self.held_milli_T = [0] * len(fleet.tenants)
        self.held_milli = 0
        self._used_chip_s_T = [0.0] * len(fleet.tenants)
        self._known_ns_T = [0] * len(fleet.tenants)
        self._changed: set[int] = set()   # tenants whose columns lag behind
        self._columns_3T = np.zeros((3, len(fleet.tenants)))   # used chip-seconds, held chips, known since (s)
        self._half_life_s = fleet.usage_half_life_ns / 1e9
        self._mean_life_s = self._half_life_s / math.log(2)
        self._weight_T = np.array([tenant.weight for tenant in fleet.tenants])
        depth = max(map(len, self._lineages))
        #: from the top down, the tenant itself repeated below its own place
        self._path_DT = np.array([[(*reversed(line), *[line[0]] * depth)[level] for line in self._lineages]
                                  for level in range(depth)])

    def lineage(self, tenant: int) -> tuple[int, ...]:
        """A tenant and all above it, bottom up."""
        return self._lineages[tenant]

    def hold(self, tenant: int, milli_by_kind: Mapping[int, int], time_ns: int) -> None:
        """A tenant takes (or, below zero, gives back) so many shares of each kind."""
        self.held_milli += sum(milli_by_kind.values())
        for one in self._lineages[tenant]:
            self._used_chip_s_T[one] = self.used_chip_s(one, time_ns)
            self._known_ns_T[one] = time_ns
            self._changed.add(one)
            for kind, milli in milli_by_kind.items():
                self.held_milli_TK[one, kind] += milli
                self.held_milli_T[one] += milli

    def used_chip_s(self, tenant: int, time_ns: int) -> float:
        """Decayed chip-seconds of a tenant and all below it, as of `time_ns`."""
        if time_ns == self._known_ns_T[tenant]:   # most take and give back several times at one instant
            return self._used_chip_s_T[tenant]
        gone_s, held = (time_ns - self._known_ns_T[tenant]) / 1e9, self.held_milli_T[tenant] / WHOLE_MILLI
        if self._half_life_s <= 0:
            return self._used_chip_s_T[tenant] + held * gone_s
        kept = math.exp2(-gone_s / self._half_life_s)
        return self._used_chip_s_T[tenant] * kept + held * self._mean_life_s * (1 - kept)

    def claims_DT(self, time_ns: int) -> NDArray[np.float64]:
        """What fair share compares, from the top of the tree down: use over weight. The least served has the least;
        siblings are compared first where their lines part (the order of Slurm's fair tree)."""
        for one in self._changed:
            self._columns_3T[:, one] = (self._used_chip_s_T[one], self.held_milli_T[one] / WHOLE_MILLI,
                                        self._known_ns_T[one] / 1e9)
        self._changed.clear()
        used_chip_s_T, held_T, known_s_T = self._columns_3T
        gone_s_T = time_ns / 1e9 - known_s_T
        if self._half_life_s > 0:
            kept_T = np.exp2(-gone_s_T / self._half_life_s)
            used_chip_s_T = used_chip_s_T * kept_T
            gone_s_T = (1 - kept_T) * self._mean_life_s
        claims: NDArray[np.float64] = ((used_chip_s_T + held_T * gone_s_T) / self._weight_T)[self._path_DT]
        return claims

    def arrays(self) -> Sequence[NDArray[np.generic]]:
        """Everything that is remembered, in a fixed order."""
        return [self.held_milli_TK, np.array(self.held_milli_T), np.array(self._used_chip_s_T),
                np.array(self._known_ns_T)]


def _lineage(fleet: Fleet, tenant: int) -> tuple[int, ...]:
    """The tenant and all above it, bottom up."""
    found: list[int] = []
    while tenant >= 0 and tenant not in found:
        found.append(tenant)
        tenant = fleet.tenants[tenant].parent
    return tuple(found)
