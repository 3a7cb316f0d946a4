"""Is it true?

In: measurements, shipped or a user's file of the same columns. Out: predicted beside measured for every case, with an
80 % interval and an evidence class; figures of accuracy over cases that nothing was fitted on; what was skipped and
why; and the page that says all this.
"""

from serried.evidence.cases import Accuracy, accuracy, answer, grouped
from serried.evidence.harness import AREAS, Report, run_evidence
from serried.evidence.intervals import interval
from serried.evidence.spec import EVIDENCE_CLASSES, CaseResults, EvidenceClass

__all__ = ["AREAS", "EVIDENCE_CLASSES", "Accuracy", "CaseResults", "EvidenceClass", "Report", "accuracy", "answer",
           "grouped", "interval", "run_evidence"]
