"""A fleet that changes while its ledger lives: nodes come and go, tenants and the policy change.

What was written before still holds. Node numbers in records are those of the fleet as it then was; they are read as
numbers of the fleet as it is now (`Numbering`), in which the old nodes stand in the same order and new ones between
them. A node that has not come yet, or has left, is down: failures and repairs that follow from the charters
(`comings`). So the books of a ledger need no memory of how the fleet grew, and every law is checked on every record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from serried.control.charter import Charter
from serried.errors import BadInput
from serried.fleet import Event, EventKind, Fleet
from serried.runners import Node

if TYPE_CHECKING:
    from serried.control.books import Books

__all__ = ["Numbering", "check_follows", "comings", "followed"]

#: So much less than when it joined a node may have: an update of its system takes a little for itself.
_SLACK = 0.01
_ELSEWHERE = "Start as before, or name another state directory (--state)."


def followed(kept: Charter | None, declared: Sequence[Node]) -> tuple[tuple[Node, ...], tuple[str, ...]]:
    """(nodes, names of those that are absent) of the charter that follows `kept` when these nodes are declared now.

    Nodes keep their places, new ones come behind. Raises BadInput for a node that is another machine than it was.
    """
    by_name = {node.name: node for node in declared}
    if kept is None or len(by_name) < len(declared):   # names that come twice are refused by the fleet
        return tuple(declared), ()
    known = {node.name for node in kept.nodes}
    if known.isdisjoint(by_name):
        raise BadInput(field="--nodes", value=list(by_name)[:8], expected="nodes of this state, which began with "
                       f"{', '.join(node.name for node in kept.nodes[:8])}", remedy=_ELSEWHERE)
    nodes = [_grown(node, by_name.get(node.name, node)) for node in kept.nodes]
    return ((*nodes, *(node for node in declared if node.name not in known)),
            tuple(node.name for node in kept.nodes if node.name not in by_name))


def _grown(was: Node, now: Node) -> Node:
    """A node as it was when it joined, with how it is reached now: placements of that time count on its figures."""
    for name in ("kind", "chip_count", "switches"):
        if getattr(was, name) != getattr(now, name):
            raise _another(was.name, name, getattr(now, name), getattr(was, name))
    for name in ("cpu_milli", "memory_bytes"):
        if getattr(now, name) < getattr(was, name) * (1 - _SLACK):
            raise _another(was.name, name, getattr(now, name), f"{getattr(was, name)} or more")
    return replace(was, address=now.address, device_variables=now.device_variables)


def _another(node: str, field: str, value: object, was: object) -> BadInput:
    return BadInput(field=f"node {node}: {field}", value=value, expected=f"{was}, as when it joined this state",
                    remedy="Another machine needs another name; the old one may then be left out.")


def check_follows(books: Books, charter: Charter) -> None:
    """Whether a charter may follow that of the books. Raises BadInput for nodes that moved or are still needed, and for
    tenants that are gone."""
    kept = books.charter
    if [node.name for node in charter.nodes[:len(kept.nodes)]] != [node.name for node in kept.nodes]:
        raise BadInput(field="--nodes", value=[node.name for node in charter.nodes][:8], expected="the nodes of this "
                       f"state, {', '.join(node.name for node in kept.nodes[:8])}, and perhaps more behind them",
                       remedy=_ELSEWHERE)
    for was, now in zip(kept.nodes, charter.nodes, strict=False):
        _grown(was, now)
    for number, tenant in enumerate(kept.tenants):
        same = charter.tenants[number:number + 1]
        if not same or (same[0].name, same[0].parent) != (tenant.name, tenant.parent):
            raise BadInput(field=f"--tenants: {tenant.name}", value=same[0].name if same else None,
                           expected="every tenant that this state knows, under the same one and in the same place",
                           remedy="Put new tenants behind the old ones; a tenant without quota gets nothing.")
    held = {node for attempt in books.attempts.values() for node in attempt.placement.node_R.tolist()}
    for number, name in enumerate(books.fleet.node_names):
        jobs = books.state.jobs_on(number)
        if name in charter.absent and (jobs or number in held):
            raise BadInput(field=f"node {name}", value=None, expected="a node that is declared, since "
                           + (f"job {jobs[0]} runs there" if jobs else "what ran there may still run"),
                           remedy=f"Declare it again; `serried drain {name}`, and leave it out once it is empty.")


class Numbering:
    """From the node numbers of one charter to those of a later fleet, which has all of its nodes."""

    def __init__(self, charter: Charter, fleet: Fleet) -> None:
        number = {name: place for place, name in enumerate(fleet.node_names)}
        self._node_N = np.array([number[name] for name in charter.fleet().node_names], dtype=np.int32)
        self._is_same = bool((self._node_N == np.arange(len(self._node_N))).all())

    def event(self, event: Event) -> Event:
        """The same event in the later numbers."""
        if self._is_same or (not event.nodes and event.placement is None):
            return event
        rows = event.placement
        return replace(event, nodes=tuple(self._node_N[list(event.nodes)].tolist()) if event.nodes else (),
                       placement=None if rows is None else replace(rows, node_R=self._node_N[rows.node_R]))


def comings(before: Charter | None, charter: Charter, fleet: Fleet, time_ns: int) -> list[Event]:
    """What a charter changes in a later fleet: who comes is repaired; who is not there, yet or any more, has failed."""
    was = set(fleet.node_names) if before is None else _there(before)
    now = _there(charter)
    found = [(EventKind.FAIL, was - now, "undeclared"), (EventKind.REPAIR, now - was, "declared")]
    return [Event(time_ns=time_ns, kind=kind, cause=cause, nodes=tuple(
        number for number, name in enumerate(fleet.node_names) if name in names)) for kind, names, cause in found
        if names]


def _there(charter: Charter) -> set[str]:
    return {node.name for node in charter.nodes} - set(charter.absent)
