"""The rules that a scheduler follows, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from serried.errors import BadInput, nearest

__all__ = ["POLICIES", "Rules", "rules_named"]

_HOUR_NS = 3_600_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """order: of waiting jobs of one priority: by arrival, or by fair share among tenants.

    strict: nobody passes a job that cannot start. depth: else so many that wait are looked at when something changed;
    who comes is always looked at.
    reservations: so many blocked jobs get nodes kept for them, with others let past only if they will be gone by then.
    room_makers: only so many of the first blocked jobs may push others out or have them moved.
    budget_chips: chips that may be taken from running jobs for the sake of others within budget_window_ns; 0 = none.
    most_evictions: after so many a job is left in peace; and a job that was pushed out never pushes others.
    victim_ratio: a victim holds at most so many times the chips that the job asks for.
    reclaims: whether a tenant within its quota takes back what others borrowed, at equal priority too.
    defragments: whether running jobs are moved, from a checkpoint, to make room under one switch (same budget).
    patience_ns: so long a gang with failed nodes holds the others and waits for replacements.
    spare_ratio: share of the nodes kept as hot spares. vacates: whether jobs leave draining nodes at once.
    """

    order: Literal["arrival", "fair"] = "fair"
    strict: bool = False
    depth: int = 64
    reservations: int = 1
    room_makers: int = 4
    budget_chips: int = 0
    budget_window_ns: int = _HOUR_NS
    most_evictions: int = 3
    victim_ratio: float = 4.0
    reclaims: bool = True
    defragments: bool = False
    patience_ns: int = _HOUR_NS // 6
    spare_ratio: float = 0.0
    vacates: bool = True


#: Named sets of rules for comparisons.
POLICIES: dict[str, Rules] = {
    "strict": Rules(order="arrival", strict=True, reservations=0),
    "arrival": Rules(order="arrival"),
    "greedy": Rules(reservations=0),
    "fair": Rules(),
    "preempting": Rules(budget_chips=4096),
    "full": Rules(budget_chips=4096, defragments=True, spare_ratio=0.01),
}


def rules_named(name: str) -> Rules:
    """A set of rules by its name; BadInput for one that is not known."""
    if name not in POLICIES:
        near = nearest(name, POLICIES, count=1)
        raise BadInput(field="policy", value=name, expected=f"one of {', '.join(POLICIES)}",
                       remedy=f"Perhaps {near[0]!r} is meant." if near else "Choose one of these.")
    return POLICIES[name]
