"""A machine for serving: the pool, the chip's kernels, the stack, and the collectives that the stack brings along."""

from __future__ import annotations

from dataclasses import replace

from serried.catalogue import names_of
from serried.compiler import profile_for
from serried.fabric import Fabric, Pool, read_collectives
from serried.planner.spec import Machine
from serried.software import Stack, stack_for

__all__ = ["serving_machine", "with_own_collectives"]


def serving_machine(pool: Pool, stack: Stack | None = None, *, library: str | None = None) -> Machine:
    """The pool as a machine with its kernel profile and `stack`, by default the best known serving stack there.

    library: a kernel profile to use instead of the chip's own, by name or path.
    """
    chosen = stack_for(pool.chip.family, "serving") if stack is None else stack
    return Machine(chip=pool.chip, profile=profile_for(pool.chip, library), chip_count=pool.chip_count, stack=chosen,
                   fabric=with_own_collectives(pool.fabric, chosen))


def with_own_collectives(fabric: Fabric, stack: Stack) -> Fabric:
    """The fabric driven by the stack's own collectives where these were measured on its wires, else as it is.

    A profile of that kind is called "<profile of the wires>-<stack>", and "...-eager" without captured launches.
    """
    eager = "" if stack.facts.get("captured", True) else "-eager"
    own = f"{fabric.profile.name}-{stack.name}{eager}"
    return replace(fabric, profile=read_collectives(own)) if own in names_of("collectives") else fabric
