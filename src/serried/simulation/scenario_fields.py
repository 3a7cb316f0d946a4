"""The fields of a scenario file, as data: what each holds, in which range, and what it means.

`docs/fleet-scenario.md` is held to these tables by a test; nothing that is not here is accepted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from serried.errors import BadInput, nearest
from serried.units import parse_quantity

__all__ = ["FAULT", "JOBS", "POOL", "SCHEDULER", "SERVICE", "TABLES", "TENANT", "TOP", "TRACE", "Field", "read_fields"]

Holds = Literal["text", "count", "number", "time", "rate", "flag", "counts", "numbers", "shares", "sizes", "money",
                "table", "tables"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field. default: None = it must be given. Times and rates are texts with a unit ("5 min", "0.002 /day")."""

    holds: Holds
    about: str
    default: Any = None
    low: float = 0.0
    high: float = math.inf
    required: bool = False


def _need(holds: Holds, about: str, low: float = 0.0, high: float = math.inf) -> Field:
    return Field(holds=holds, about=about, low=low, high=high, required=True)


def _may(holds: Holds, about: str, default: Any, low: float = 0.0, high: float = math.inf) -> Field:
    return Field(holds=holds, about=about, default=default, low=low, high=high)


_UNITS = {"time": "s", "rate": "1/s", "money": "usd"}
_YEARS_S = 100 * 365.25 * 86400.0

TOP: Mapping[str, Field] = {
    "schema": _need("text", "serried/fleet-scenario/1"),
    "name": _need("text", "what the scenario is called"),
    "title": _may("text", "a sentence about it", ""),
    "scheduler": _may("table", "the policy and its rules", {}),
    "failures": _may("table", "rates of the catalogue to take over", {}),
    "pool": _need("tables", "chips of one kind, in nodes under switches"),
    "tenant": _may("tables", "who pays", []),
    "fault": _may("tables", "one way in which something breaks; replaces the catalogue's of the same name", []),
    "jobs": _may("tables", "a stream of alike jobs", []),
    "service": _may("tables", "replicas that follow a daily load", []),
    "trace": _may("table", "jobs of a recorded trace", {}),
}
SCHEDULER: Mapping[str, Field] = {
    "policy": _may("text", "a named set of rules", "full"),
    "placement": _may("text", "how single workers are placed", "best-fit"),
    "decide_every": _may("time", "the policy is asked at these steps; 0 = after every event", 0.0, 0, 86400),
    "usage_half_life": _may("time", "how fast fair share forgets; 0 = never", 604800.0, 0, _YEARS_S),
    "spare_ratio": _may("number", "share of the nodes kept as hot spares", None, 0, 0.5),
    "patience": _may("time", "so long a broken gang waits for replacements", None, 0, _YEARS_S),
    "depth": _may("count", "so many waiting jobs are looked at", None, 1, 1_000_000),
    "reservations": _may("count", "so many blocked jobs have nodes kept for them", None, 0, 1000),
    "preemption_budget": _may("count", "chips that may be taken from running jobs in an hour", None, 0, 10**9),
}
FAILURES: Mapping[str, Field] = {
    "rates": _need("text", "a table of `serried catalogue reliability`, or a file of the same form"),
    "scale": _may("number", "all its rates times this", 1.0, 0, 1000),
}
POOL: Mapping[str, Field] = {
    "name": _may("text", "what jobs call it; the chip's name if left out", ""),
    "chip": _need("text", "a chip of the catalogue, or a file"),
    "count": _need("count", "chips", 1, 10**8),
    "node_chips": _may("count", "chips of one node", 8, 1, 64),
    "leaf_nodes": _may("count", "nodes under one leaf switch", 32, 1, 10**6),
    "spine_nodes": _may("count", "nodes under one spine switch", 1024, 1, 10**8),
    "throughput": _may("number", "work of one chip, relative to other pools; its bf16 peak in PFLOP/s if left out",
                       None, 1e-9, 1e9),
    "price": _may("money", "of one chip; the chip's own figure if left out", None, 1, 1e7),
    "fabric": _may("text", "what the planner puts jobs of a model on; the chip's own fabric if left out", ""),
}
TENANT: Mapping[str, Field] = {
    "name": _need("text", "who"),
    "weight": _may("number", "share among siblings", 1.0, 1e-9, 1e9),
    "parent": _may("text", "the tenant above", ""),
    "quota": _may("shares", "pool to chips that are the tenant's by right", {}),
    "borrows": _may("flag", "whether it may hold more while others leave theirs idle", True),
}
FAULT: Mapping[str, Field] = {
    "name": _need("text", "what breaks"),
    "component": _need("text", "chip, link, node, leaf or spine"),
    "rate": _need("rate", "failures of one component per time", 0, 1.0),
    "detection": _may("time", "until the fleet knows; jobs hang meanwhile", 0.0, 0, _YEARS_S),
    "repair": _may("time", "median time of repair", 0.0, 0, _YEARS_S),
    "repair_spread": _may("number", "standard deviation of its logarithm", 0.0, 0, 5),
    "effect": _may("text", "down, or slow", "down"),
    "pace": _may("number", "of a slow node", 1.0, 0.01, 1),
}
_WHERE: dict[str, Field] = {
    "pools": _may("shares", "pool to throughput beside that of its chips, or beside what is predicted of a model; all "
                  "if left out", {}),
    "level": _may("text", "leaf or spine: the switch that a gang should stay under", ""),
    "level_required": _may("flag", "whether it must", False),
    "priority": _may("count", "higher goes first", 0, -100, 100),
}
_MODEL: dict[str, Field] = {
    "model": _may("text", "what runs: the planner then predicts its throughput on each pool, and how long a job takes "
                  "and which pool is taken follow from that and from prices", ""),
    "serve": _may("text", "how the model is served, INPUT/OUTPUT@CONCURRENCY", ""),
    "chips_on": _may("sizes", "pool to sizes of gangs there, where they differ; one for each size", {}, 1, 10**7),
}
JOBS: dict[str, Field] = {
    "name": _need("text", "what the class is called"),
    "per_day": _need("number", "jobs a day, on average", 0, 1e8),
    "chips": _need("counts", "sizes of gangs; beyond one node, whole nodes", 1, 10**7),
    "weights": _may("numbers", "how often each size comes; alike if left out", [], 0, 1e12),
    "median": _need("time", "median duration, on the first of its pools", 1, _YEARS_S),
    "spread": _may("number", "standard deviation of the duration's logarithm", 0.0, 0, 5),
    "longest": _may("time", "the longest duration", 2592000.0, 1, _YEARS_S),
    "backlog": _may("count", "so many wait when the run begins", 0, 0, 10**7),
    "tenants": _may("shares", "tenant to weight; alike if left out", {}),
    "preemptible": _may("flag", "whether higher priorities may push it out", True),
    "checkpoint_every": _may("time", "work between two saves; 0 = the optimum for the gang's failure rate", 0.0, 0,
                             _YEARS_S),
    "checkpoint_write": _may("time", "so long a save stops the gang", 0.0, 0, _YEARS_S),
    "restart": _may("time", "from having its chips to working", 0.0, 0, _YEARS_S),
    "daily_swing": _may("number", "by how much arrivals rise and fall over the day", 0.0, 0, 1),
    "estimate_ratio": _may("number", "what users say of the duration, over the truth", 1.0, 0.01, 100),
    "train": _may("text", "how the model is trained, SEQxGLOBAL_BATCH", ""),
} | _MODEL | _WHERE
SERVICE: dict[str, Field] = {
    "name": _need("text", "what the service is called"),
    "replica_chips": _need("count", "chips of one replica", 1, 10**6),
    "tenant": _may("text", "who pays; the first tenant if left out", ""),
    "base": _need("number", "load at night, in replicas that it would keep busy", 0, 1e7),
    "peak": _need("number", "load at the top of the day", 0, 1e7),
    "peak_hour": _may("number", "when that is", 14.0, 0, 24),
    "noise": _may("number", "standard deviation of the load's logarithm from step to step", 0.0, 0, 2),
    "busy_ratio": _may("number", "how busy replicas should be", 0.7, 0.01, 1),
    "least": _may("count", "replicas at least", 1, 0, 10**7),
    "scale_every": _may("time", "how often replicas follow the load", 900.0, 1, 86400),
    "start": _may("time", "until a replica serves", 0.0, 0, 86400),
} | _MODEL | _WHERE
TRACE: dict[str, Field] = {
    "file": _need("text", "the trace, relative to this file"),
    "format": _may("text", "philly, openb, pai or csv", "csv"),
    "checkpoint_every": JOBS["checkpoint_every"], "checkpoint_write": JOBS["checkpoint_write"],
    "restart": JOBS["restart"],
} | _WHERE
#: Every table of the file, by the name that it has there; "" = the top.
TABLES: Mapping[str, Mapping[str, Field]] = {
    "": TOP, "scheduler": SCHEDULER, "failures": FAILURES, "pool": POOL, "tenant": TENANT, "fault": FAULT,
    "jobs": JOBS, "service": SERVICE, "trace": TRACE}


def read_fields(table: Any, fields: Mapping[str, Field], where: str, file: str) -> dict[str, Any]:
    """Every field of a table, checked, with defaults filled in; times in seconds, rates per second.

    Raises BadInput that names the field and, for one that is not known, the nearest ones.
    """
    if not isinstance(table, dict):
        raise BadInput(file=file, field=where, value=table, expected="a table", remedy=f"Write [{where}].")
    for name, value in table.items():
        if name not in fields:
            near = nearest(name, fields, count=3)
            raise BadInput(file=file, field=_joined(where, name), value=value, expected="a field that is known here",
                           remedy=f"Nearest: {', '.join(near)}." if near else f"Known: {', '.join(fields)}.")
    found = {}
    for name, field in fields.items():
        if name not in table:
            if field.required:
                raise BadInput(file=file, field=_joined(where, name), value=None, expected=field.about,
                               remedy="Give it.")
            found[name] = field.default
        else:
            found[name] = _checked(table[name], field, _joined(where, name), file)
    return found


def _joined(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _checked(value: Any, field: Field, where: str, file: str) -> Any:
    if field.holds in _UNITS:
        number = parse_quantity(value, _UNITS[field.holds], field=where, file=file)
        return _ranged(number, value, field, where, file)
    if field.holds in ("counts", "numbers"):
        if not isinstance(value, list) or not value:
            raise _bad(value, field, where, file, "a list of numbers")
        return [_number(one, field, where, file, whole=field.holds == "counts") for one in value]
    if field.holds == "sizes":
        if not isinstance(value, dict):
            raise _bad(value, field, where, file, "names with whole numbers, { a = 32, b = [32, 64] }")
        return {name: [_number(one, field, f"{where}.{name}", file, whole=True)
                       for one in (sizes if isinstance(sizes, list) else [sizes])] for name, sizes in value.items()}
    if field.holds == "shares":
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return dict.fromkeys(value, 1.0)
        if not isinstance(value, dict):
            raise _bad(value, field, where, file, "names with numbers, { a = 1, b = 2 }")
        return {name: _number(one, field, f"{where}.{name}", file, whole=False) for name, one in value.items()}
    if field.holds in ("count", "number"):
        return _number(value, field, where, file, whole=field.holds == "count")
    kind, words = {"text": (str, "a text"), "flag": (bool, "true or false"), "table": (dict, "a table"),
                   "tables": (list, "tables, each begun by [[...]]")}[field.holds]
    if not isinstance(value, kind):
        raise _bad(value, field, where, file, words)
    return value


def _number(value: Any, field: Field, where: str, file: str, *, whole: bool) -> float:
    wanted = (int,) if whole else (int, float)
    if not isinstance(value, wanted) or isinstance(value, bool) or not math.isfinite(value):
        raise _bad(value, field, where, file, "a whole number" if whole else "a number")
    return _ranged(value, value, field, where, file)


def _ranged(number: float, value: Any, field: Field, where: str, file: str) -> float:
    if not field.low <= number <= field.high:
        raise _bad(value, field, where, file, f"{field.low:g} to {field.high:g}")
    return number


def _bad(value: Any, field: Field, where: str, file: str, expected: str) -> BadInput:
    return BadInput(file=file, field=where, value=value, expected=expected, remedy=f"It says: {field.about}.")
