"""Which steps, on which wires, make a collective; are they right; how fast could any be on this fabric?

In: an operation, a number of ranks, an algorithm or an explicit topology; or a schedule from elsewhere. Out: a chunked
`Schedule` (docs/schedule.md), proven by symbolic execution to do what the operation asks for on every rank, without
deadlock or race.
"""

from serried.weave.legality import Fault
from serried.weave.schedule_file import read_schedule, schedule_of_json, schedule_to_json
from serried.weave.spec import OPERATIONS, Operation, Schedule, Steps
from serried.weave.stock import ALGORITHMS, stock_schedule
from serried.weave.synthesis import Synthesis, stock_times_s, synthesise
from serried.weave.timing import schedule_time_s
from serried.weave.verify import check, faults
from serried.weave.wires import Wires, read_wires

__all__ = ["ALGORITHMS", "OPERATIONS", "Fault", "Operation", "Schedule", "Steps", "Synthesis", "Wires", "check",
           "faults", "read_schedule", "read_wires", "schedule_of_json", "schedule_time_s", "schedule_to_json",
           "stock_schedule", "stock_times_s", "synthesise"]
