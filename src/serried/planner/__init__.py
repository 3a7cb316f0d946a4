"""How is one job laid over chips?

In: a job and a machine. Out: every legal layout as columns, its step time by cause, its memory by cause, and the best.
"""

from serried.planner.legality import LEGALITY, Rule, broken_rules, explain, refuse_illegal
from serried.planner.machine import machine_of, with_stack
from serried.planner.memory import MemoryEstimate, estimate_memory, explain_memory
from serried.planner.search import OBJECTIVES, search_training
from serried.planner.space import layout_chunks, layout_space, layouts_of
from serried.planner.spec import (
    FORMATS,
    MEMORY_CAUSES,
    RECOMPUTE,
    SCHEDULES,
    STAGES,
    TIME_CAUSES,
    WORK,
    Layouts,
    Machine,
    SearchResult,
    StepTable,
    StepTime,
    TrainingEstimate,
)
from serried.planner.step import assemble, concatenate_tables, estimate_of, estimate_training, kernel_table
from serried.planner.timeline import Span, timeline

__all__ = [
    "FORMATS", "LEGALITY", "MEMORY_CAUSES", "OBJECTIVES", "RECOMPUTE", "SCHEDULES", "STAGES", "TIME_CAUSES", "WORK",
    "Layouts", "Machine", "MemoryEstimate", "Rule", "SearchResult", "Span", "StepTable", "StepTime", "TrainingEstimate",
    "assemble", "broken_rules", "concatenate_tables", "estimate_memory", "estimate_of", "estimate_training", "explain",
    "explain_memory", "kernel_table", "layout_chunks", "layout_space", "layouts_of", "machine_of", "refuse_illegal",
    "search_training", "timeline", "with_stack",
]
