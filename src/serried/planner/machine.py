"""A machine from a pool of chips and the software that drives it."""

from __future__ import annotations

from dataclasses import replace

from serried.compiler import profile_for
from serried.fabric import Pool
from serried.planner.spec import Machine
from serried.software import Stack, StackKind, read_stack, stack_for

__all__ = ["machine_of", "with_stack"]


def machine_of(pool: Pool, *, stack: Stack | str | None = None, framework: str | None = None,
               kind: StackKind = "training", library: str | None = None) -> Machine:
    """The pool with the chip's kernel profile and a stack.

    stack: a Stack, or the name or path of one; without it, the stack of `framework` (as people print it), else the best
    known one for the chip's family. library: a kernel profile to use instead of the chip's own.
    """
    if isinstance(stack, str):
        stack = read_stack(stack, pool.chip.family)
    chosen = stack_for(pool.chip.family, kind, framework) if stack is None else stack
    return Machine(chip=pool.chip, profile=profile_for(pool.chip, library), fabric=pool.fabric, stack=chosen,
                   chip_count=pool.chip_count)


def with_stack(machine: Machine, stack: Stack) -> Machine:
    """The same chips under other software."""
    return replace(machine, stack=stack)
