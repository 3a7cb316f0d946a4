"""Policies by name: a set of rules, a rule of placement, or both ("full+fragmentation")."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from serried.errors import BadInput, nearest
from serried.fleet.fragmentation import Fragmentation, typical_of
from serried.fleet.measures import BestFit, Clustering, DotProduct, Measure, Packing, Random
from serried.fleet.rules import POLICIES, Rules
from serried.fleet.scheduler import Scheduler
from serried.fleet.spec import Fleet, Job

__all__ = ["MEASURES", "policy_named"]

#: Name -> rule of placement for single workers, made from the fleet, jobs that tell of its workload, and a seed.
MEASURES: dict[str, Callable[[Fleet, Sequence[Job], int], Measure]] = {
    "random": lambda fleet, jobs, seed: Random(seed),
    "dot-product": lambda fleet, jobs, seed: DotProduct(fleet),
    "clustering": lambda fleet, jobs, seed: Clustering(fleet),
    "packing": lambda fleet, jobs, seed: Packing(fleet),
    "best-fit": lambda fleet, jobs, seed: BestFit(fleet),
    "fragmentation": lambda fleet, jobs, seed: Fragmentation(fleet, typical_of(fleet, (job.shape for job in jobs))),
}


def policy_named(name: str, fleet: Fleet, jobs: Sequence[Job], *, seed: int = 0,
                 rules: Rules | None = None) -> Scheduler:
    """The policy of a name: rules and a rule of placement joined by "+", either alone with the other's default (the
    rules given, else "fair"; best fit).

    Raises BadInput for a part that is not known.
    """
    chosen, measure = rules or POLICIES["fair"], "best-fit"
    for part in name.lower().replace("_", "-").split("+"):
        if part in POLICIES:
            chosen = POLICIES[part]
        elif part in MEASURES:
            measure = part
        else:
            known = [*POLICIES, *MEASURES]
            near = nearest(part, known, count=1)
            raise BadInput(field="policy", value=name, expected=f"one of {', '.join(POLICIES)}, and with a + one of "
                           f"{', '.join(MEASURES)}", remedy=f"Perhaps {near[0]!r} is meant." if near else
                           "Choose from these.")
    return Scheduler(fleet, MEASURES[measure](fleet, jobs, seed), chosen, name=name)
