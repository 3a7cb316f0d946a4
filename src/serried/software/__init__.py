"""What software runs the job, and what does it cost or win?

In: a stack file. Out: a `Stack`: how well each kernel family is tuned on a chip family, what is fused, what is
overlapped, what the host costs per operator; each parameter with its spread. An unknown stack is the population.
"""

from serried.software.spec import STACK_FACTS, STACK_PARAMETERS, Stack, StackParameter
from serried.software.stack import (
    StackKind,
    find_stack_name,
    perfect_stack,
    population_stack,
    read_stack,
    stack_for,
    stack_names,
)

__all__ = ["STACK_FACTS", "STACK_PARAMETERS", "Stack", "StackKind", "StackParameter", "find_stack_name",
           "perfect_stack", "population_stack", "read_stack", "stack_for", "stack_names"]
