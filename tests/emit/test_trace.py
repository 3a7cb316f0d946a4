import json

from serried.emit.trace import trace_json
from serried.planner import Span


def test_a_trace_says_every_span_in_microseconds():
    spans = [Span(stage=0, stream="compute", name="F0", cause="forward", start_s=0.0, duration_s=0.5),
             Span(stage=1, stream="network", name="activations 0", cause="send", start_s=0.5, duration_s=1e-3)]
    trace = json.loads(trace_json(spans, title="a step"))
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert [(event["pid"], event["tid"], event["ts"], event["dur"]) for event in events] == [
        (0, 0, 0.0, 500000.0), (1, 1, 500000.0, 1000.0)]
    names = {(event["pid"], event["tid"]): event["args"]["name"] for event in trace["traceEvents"]
             if event["name"] == "thread_name"}
    assert names[0, 0] == "compute"
    assert names[1, 1] == "network"
    assert sum(event["name"] == "process_name" for event in trace["traceEvents"]) == 2
