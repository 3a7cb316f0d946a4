"""What became of every request, as a table file; and what the engines did, as a trace for ui.perfetto.dev."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from serried.engine import SimulationLog
from serried.files import write_whole
from serried.traffic import Requests
from serried.traffic.spec import Ints

__all__ = ["request_table", "spans_json", "write_request_log"]

_REASONS = np.array(["served", "refused"])


def request_table(requests: Requests, log: SimulationLog, *, outside_s: float = 0.0,
                  finished_only: bool = False) -> dict[str, Any]:
    """Columns of the log: times in seconds since the beginning of the traffic, empty where something did not happen.

    outside_s: what a request spends outside the engines before its first token; tokens are seen so much later.
    """
    ended = (log.last_token_ns_R >= 0) | (log.reason_R != 0)
    chosen = np.flatnonzero(ended) if finished_only else np.arange(len(requests))

    def seconds(time_ns_R: Ints, later_s: float = 0.0) -> list[float | None]:
        return [None if time_ns < 0 else round(time_ns * 1e-9 + later_s, 9) for time_ns in time_ns_R[chosen].tolist()]

    names = np.array(requests.class_names)
    return {"request": chosen.tolist(), "class": names[requests.class_R[chosen]].tolist(),
            "input_tokens": requests.input_tokens_R[chosen].tolist(),
            "output_tokens": requests.output_tokens_R[chosen].tolist(), "arrival_s": seconds(log.arrival_ns_R),
            "scheduled_s": seconds(log.scheduled_ns_R), "first_token_s": seconds(log.first_token_ns_R, outside_s),
            "last_token_s": seconds(log.last_token_ns_R, outside_s),
            "cached_tokens": log.cached_tokens_R[chosen].tolist(), "preemptions": log.preemptions_R[chosen].tolist(),
            "engine": log.engine_R[chosen].tolist(), "outcome": _REASONS[np.minimum(log.reason_R[chosen], 1)].tolist()}


def write_request_log(path: Path, columns: dict[str, Any]) -> None:
    """CSV or Parquet by the ending of the name; written beside and renamed, so that nobody sees half of it."""
    if path.suffix == ".parquet":
        import polars as pl

        table = io.BytesIO()
        pl.DataFrame(columns).write_parquet(table)
        write_whole(path, table.getvalue(), field="--log")
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_whole(path, text.getvalue(), field="--log")


def spans_json(log: SimulationLog, *, title: str) -> str:
    """Runs of steps of every engine in the Trace Event Format: prefill, decode, and how many sequences."""
    engines = sorted({span[0] for span in log.spans})
    events: list[dict[str, Any]] = [{"ph": "M", "name": "process_name", "pid": engine, "tid": 0,
                                     "args": {"name": f"engine {engine}"}} for engine in engines]
    for engine, begin_ns, end_ns, prefill, decoding, steps in log.spans:
        events.append({"ph": "X", "name": f"prefill {prefill}" if prefill else f"decode {decoding}", "pid": engine,
                       "cat": "prefill" if prefill else "decode", "tid": 0, "ts": begin_ns * 1e-3,
                       "dur": (end_ns - begin_ns) * 1e-3,
                       "args": {"prefill_tokens": prefill, "decoding_sequences": decoding, "steps": steps}})
        events.append({"ph": "C", "name": "sequences", "pid": engine, "ts": begin_ns * 1e-3,
                       "args": {"decoding": decoding}})
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"title": title}})
