"""A fleet from what is known node by node: nodes are put in the order of their switches, and what is wrong is said."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serried.errors import BadInput
from serried.fleet.spec import Fleet, Tenant

__all__ = ["check_tenants", "fleet_of"]

_MOST_CHIPS = 64   # one bit each


def fleet_of(*, kinds: Sequence[str], kind_N: ArrayLike, chip_count_N: ArrayLike, cpu_milli_N: ArrayLike | int = 0,
             memory_bytes_N: ArrayLike | int = 0, switches: Mapping[str, Sequence[Hashable]] | None = None,
             node_names: Sequence[str] = (), tenants: Sequence[Tenant] = (Tenant(name="all"),),
             usage_half_life_ns: int = 0, file: str = "") -> Fleet:
    """A Fleet, its nodes sorted so that each switch's stand side by side.

    switches: level -> the switch of each node, innermost level first; any labels will do. Raises BadInput when columns
    differ in length, a node has no chips or more than 64, a kind is not known, or a switch hangs on two others.
    """
    kind = np.asarray(kind_N, dtype=np.int64)
    count = len(kind)
    columns = {"chip_count": np.asarray(chip_count_N), "cpu_milli": np.broadcast_to(cpu_milli_N, (count,)),
               "memory_bytes": np.broadcast_to(memory_bytes_N, (count,))}
    for name, column in columns.items():
        if len(column) != count:
            raise _bad(file, name, len(column), f"one entry for each of {count} nodes", "Give every node one.")
    chips = columns["chip_count"]
    if count == 0 or chips.min() < 0 or chips.max() > _MOST_CHIPS:
        raise _bad(file, "chip_count", chips[:8].tolist(), f"nodes of 0 to {_MOST_CHIPS} chips",
                   "Describe a larger machine as several nodes under one innermost switch.")
    if kind.min() < 0 or kind.max() >= len(kinds):
        raise _bad(file, "kind", int(kind.max()), f"0 to {len(kinds) - 1}", "List every kind of chip.")
    check_tenants(tenants, len(kinds), file=file)
    order, switch_LN = _sorted_switches(switches or {}, count, file)
    return Fleet(kinds=tuple(kinds), levels=tuple(switches or {}), kind_N=kind[order].astype(np.int16),
                 chip_count_N=chips[order].astype(np.int16), cpu_milli_N=columns["cpu_milli"][order].astype(np.int64),
                 memory_bytes_N=columns["memory_bytes"][order].astype(np.int64), switch_LN=switch_LN,
                 node_names=tuple(node_names[place] for place in order) if node_names else (),
                 tenants=tuple(tenants), usage_half_life_ns=usage_half_life_ns)


def _sorted_switches(switches: Mapping[str, Sequence[Hashable]], count: int,
                     file: str) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The order of nodes, outermost switch first, and each level's switches numbered along it."""
    numbers_LN = []
    for level, labels in switches.items():
        if len(labels) != count:
            raise _bad(file, f"switches.{level}", len(labels), f"a switch for each of {count} nodes", "Name them all.")
        known: dict[Hashable, int] = {}
        numbers_LN.append(np.array([known.setdefault(label, len(known)) for label in labels], dtype=np.int64))
    order = np.lexsort(numbers_LN) if numbers_LN else np.arange(count)
    sorted_LN = [numbers_N[order] for numbers_N in numbers_LN]
    for level, inner_N, outer_N in zip(list(switches)[:-1], sorted_LN, sorted_LN[1:], strict=False):
        split = np.flatnonzero(np.bincount(inner_N) > np.bincount(inner_N, weights=_same_outer(inner_N, outer_N)))
        if len(split):
            raise _bad(file, f"switches.{level}", int(split[0]), "each switch under one switch of the next level",
                       "A tree is needed; give switches of different parents different names.")
    switch_LN = np.array([np.cumsum(np.diff(numbers_N, prepend=numbers_N[0]) != 0) for numbers_N in sorted_LN],
                         dtype=np.int32).reshape(len(sorted_LN), count)
    return order, switch_LN


def _same_outer(inner_N: NDArray[np.int64], outer_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each node hangs on the same outer switch as the first node of its inner switch."""
    _, first, back = np.unique(inner_N, return_index=True, return_inverse=True)
    same: NDArray[np.bool_] = outer_N == outer_N[first][back]
    return same


def check_tenants(tenants: Sequence[Tenant], kind_count: int, *, file: str = "") -> None:
    """BadInput for a tree of tenants that is none, a weight that divides nothing, a quota of the wrong length."""
    if not tenants:
        raise _bad(file, "tenant", [], "at least one tenant", "Add one.")
    for number, tenant in enumerate(tenants):
        where = f"tenant[{number}]"
        if not -1 <= tenant.parent < len(tenants) or _leads_back(tenants, number):
            raise _bad(file, f"{where}.parent", tenant.parent, "another tenant, in a tree", "Use -1 at the top.")
        if not 0 < tenant.weight < np.inf:
            raise _bad(file, f"{where}.weight", tenant.weight, "a number above 0", "Equal tenants weigh the same.")
        if tenant.quota_chips_K and (len(tenant.quota_chips_K) != kind_count or min(tenant.quota_chips_K) < 0):
            raise _bad(file, f"{where}.quota_chips", list(tenant.quota_chips_K),
                       f"a count of chips for each of {kind_count} kinds", "Use 0 for kinds that it has no right to.")


def _leads_back(tenants: Sequence[Tenant], number: int) -> bool:
    seen, above = {number}, tenants[number].parent
    while above >= 0:
        if above in seen or above >= len(tenants):
            return True
        seen.add(above)
        above = tenants[above].parent
    return False


def _bad(file: str, field: str, value: Any, expected: str, remedy: str) -> BadInput:
    return BadInput(file=file, field=field, value=value, expected=expected, remedy=remedy)
