"""Why is it slower, what can be recovered, what to do next, and which layer is missing on my stack?

In: two fleets with their stacks and a job; or measured points. Out: a `Waterfall` (every subset of layers simulated,
order-free attribution, intervals), or a `Diagnosis` (layer settings ranked by likelihood).
"""

from serried.insight.diagnosis import diagnose, stack_found
from serried.insight.measured import read_measured
from serried.insight.serving_gap import gap_serving
from serried.insight.spec import (
    LAYERS,
    Action,
    Bar,
    Diagnosis,
    Explanation,
    Interval,
    MeasuredPoint,
    Parity,
    Physical,
    Side,
    Waterfall,
)
from serried.insight.traffic_gap import TrafficGap, gap_traffic
from serried.insight.training_gap import gap_training
from serried.serving import serving_machine

__all__ = ["LAYERS", "Action", "Bar", "Diagnosis", "Explanation", "Interval", "MeasuredPoint", "Parity", "Physical",
           "Side", "TrafficGap", "Waterfall", "diagnose", "gap_serving", "gap_traffic", "gap_training", "read_measured",
           "serving_machine", "stack_found"]
