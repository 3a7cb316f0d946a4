"""What software runs the job, and what does it cost or win?

In: a stack file. Out: a `Stack`: how well each kernel family is tuned on a chip family, what is fused, what is
overlapped, what the host costs per operator; each parameter with its spread. An unknown stack is the population.
"""

from serried.software.spec import STACK_PARAMETERS, Stack, StackParameter

__all__ = ["STACK_PARAMETERS", "Stack", "StackParameter"]
