"""A predicted step as a Chrome/Perfetto trace: one process a pipeline stage, one thread a stream."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from serried.planner import Span

__all__ = ["trace_json"]

_STREAMS = ("compute", "network")
_MICROSECONDS = 1e6


def trace_json(spans: Sequence[Span], *, title: str) -> str:
    """The spans in the Trace Event Format (complete events; times in microseconds), which ui.perfetto.dev opens."""
    names: list[dict[str, Any]] = []
    for stage in sorted({span.stage for span in spans}):
        names.append({"ph": "M", "name": "process_name", "pid": stage, "tid": 0, "args": {"name": f"stage {stage}"}})
        names += [{"ph": "M", "name": "thread_name", "pid": stage, "tid": tid, "args": {"name": stream}}
                  for tid, stream in enumerate(_STREAMS)]
    events = [{"ph": "X", "name": span.name, "cat": span.cause, "pid": span.stage, "tid": _STREAMS.index(span.stream),
               "ts": span.start_s * _MICROSECONDS, "dur": span.duration_s * _MICROSECONDS} for span in spans]
    return json.dumps({"traceEvents": names + events, "displayTimeUnit": "ms", "otherData": {"title": title}})
