"""Request-level logs of an engine: every request played through the simulator, predicted beside measured.

Axes: R = request of one run, C = case. A request is two cases: its time to the first token and its whole time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from serried.engine import simulate
from serried.errors import SerriedError
from serried.evidence.cells import Cells, Unusable
from serried.evidence.serving import machine_of
from serried.evidence.spec import CaseResults
from serried.serving import deployment
from serried.serving.cluster import PoolPlan, cluster_of
from serried.serving.profile import read_engine
from serried.traffic import Requests, open_loop
from serried.workload import read_model
from serried.workload.spec import Floats

if TYPE_CHECKING:
    import polars as pl

__all__ = ["COLUMNS", "evaluate", "plan_of", "requests_of"]

COLUMNS = ("run", "chip", "model", "engine", "dtype", "max_sequences", "token_budget", "input_len", "output_len",
           "queued_s", "first_token_s", "last_token_s")
_METRICS = ("ttft", "e2e")


def evaluate(frame: pl.DataFrame) -> CaseResults:
    """Predict every request of every run; a run that cannot be read or does not fit is skipped whole, with the reason.

    Times count from when the engine queued a request, as the logs do: what lies before it is not in them.
    """
    runs = [_run(part) for part in frame.partition_by("run", maintain_order=True)]
    names = ("chip", "model", "engine", "metric", "source")
    return CaseResults(
        area="serving", ids=[name for run in runs for name in run["ids"]],
        predicted=np.concatenate([run["predicted"] for run in runs]),
        measured=np.concatenate([run["measured"] for run in runs]),
        units=["s"] * sum(len(run["ids"]) for run in runs), split=["validate"] * sum(len(run["ids"]) for run in runs),
        evidence_class=[kind for run in runs for kind in run["kind"]],
        skipped=[reason for run in runs for reason in run["skipped"]],
        groups={name: [label for run in runs for label in run[name]] for name in names},
        fold=[label for run in runs for label in run["source"]])


def _run(part: pl.DataFrame) -> Mapping[str, Any]:
    """The cases of one run, request by request."""
    first, count = Cells(part.row(0, named=True)), part.height
    labels = {"chip": first["chip"], "model": first["model"], "engine": first["engine"], "source": first["run"]}
    reason, kind = None, "data sheet only"
    predicted = measured = np.full(count * len(_METRICS), np.nan)
    try:
        requests, times_s = requests_of(part)
        measured = np.stack([times_s["first"], times_s["last"]], axis=1).ravel()
        plan = plan_of(part)
        kind = plan.machine.profile.evidence_class
        log = simulate(requests, cluster_of(read_model(first["model"]), plan))
        predicted = (np.stack([log.first_token_ns_R, log.last_token_ns_R], axis=1)
                     - log.arrival_ns_R[:, None]).ravel() * 1e-9
    except (Unusable, SerriedError) as error:
        reason = str(error)
    return {name: [label] * count * len(_METRICS) for name, label in labels.items()} | {
        "ids": [f"{labels['source']}:{row}:{metric}" for row in range(count) for metric in _METRICS],
        "metric": list(_METRICS) * count, "kind": [kind] * count * len(_METRICS), "predicted": predicted,
        "measured": measured, "skipped": [reason] * count * len(_METRICS)}


def requests_of(part: pl.DataFrame) -> tuple[Requests, Mapping[str, Floats]]:
    """The requests of a run, and when each saw its first and its last token, s since it was queued.

    Raises Unusable on a cell that is no number, a length below one, or times out of order.
    """
    columns = {name: np.array([_number(value, name) for value in part[name]])
               for name in ("input_len", "output_len", "queued_s", "first_token_s", "last_token_s")}
    queued_s = columns["queued_s"]
    first_s, last_s = columns["first_token_s"] - queued_s, columns["last_token_s"] - queued_s
    if (np.diff(queued_s) < 0).any() or (first_s <= 0).any() or (last_s < first_s).any():
        raise Unusable("requests must stand in the order of queued_s, with queued_s < first_token_s <= last_token_s")
    if (columns["input_len"] < 1).any() or (columns["output_len"] < 1).any():
        raise Unusable("input_len and output_len must be at least 1")
    arrival_ns = np.round((queued_s - queued_s[0]) * 1e9).astype(np.int64)
    return (open_loop(arrival_ns, columns["input_len"].astype(np.int64), columns["output_len"].astype(np.int64)),
            {"first": first_s, "last": last_s})


def plan_of(part: pl.DataFrame) -> PoolPlan:
    """The engine that served a run, under its flags."""
    cells = Cells(part.row(0, named=True))
    flags = {name: cells.whole(name) for name in ("max_sequences", "token_budget")}
    profile = read_engine(cells["engine"].split()[0])
    return PoolPlan(machine=machine_of(cells["chip"], 1, cells["engine"]),
                    row=deployment(tp=1, weight_format=cells["dtype"] or "bf16"),
                    profile=profile.with_settings(**{name: value for name, value in flags.items() if value}))


def _number(value: str | None, name: str) -> float:
    try:
        found = float(value or "")
    except ValueError:
        raise Unusable(f"{name} = {value!r} is not a number") from None
    if not np.isfinite(found):
        raise Unusable(f"{name} = {value!r} is not a finite number")
    return found
