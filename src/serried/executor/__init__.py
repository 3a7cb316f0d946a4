"""How does a verified schedule become real messages?

In: a schedule that the verifier has proven, a number of bytes, a Python that has PyTorch. Out: every rank as a process
of its own on point-to-point operations of `torch.distributed`, every element of the result checked, and the time.
"""

from serried.executor.launch import Outcome, run_schedule, run_schedules
from serried.executor.program import rank_programs

__all__ = ["Outcome", "rank_programs", "run_schedule", "run_schedules"]
