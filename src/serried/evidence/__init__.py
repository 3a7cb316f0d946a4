"""Is it true? Predicted beside measured, with intervals.

In: measured cases, shipped or a user's. Out: predictions beside them, with errors, 80 % intervals and their coverage.
"""

from serried.evidence.harness import run_evidence

__all__ = ["run_evidence"]
