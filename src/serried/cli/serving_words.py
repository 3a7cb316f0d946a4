"""Words of the command line for serving: layouts, traffic, and files of clients."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serried.cli.arguments import check_format
from serried.errors import BadInput
from serried.fabric import Fleet, Pool
from serried.planner.spec import FORMATS
from serried.serving import Deployments, deployment, serving_machine
from serried.serving.cluster import PoolPlan
from serried.serving.legality import LEGALITY
from serried.serving.profile import EngineProfile
from serried.software import read_stack, stack_for
from serried.traffic import (
    Requests,
    bursts,
    closed_loop,
    constant,
    cut,
    diurnal,
    gamma,
    mix,
    open_loop,
    poisson,
    read_clients,
    read_trace,
    refuse_beyond,
    repeated,
    scaled,
    sessions,
    within,
)
from serried.traffic.chance import ARRIVALS, INPUT, OUTPUT, stream
from serried.traffic.compose import MOST_REQUESTS
from serried.traffic.lengths import empirical, fixed, lognormal, uniform
from serried.traffic.spec import Ints
from serried.workload import Model
from serried.workload.spec import Serving

__all__ = ["TraceChanges", "TrafficWords", "length_columns", "parse_layout", "pool_plans", "requests_of_words",
           "traffic_of_words"]

_DEGREES = {"tp": "tp", "pp": "pp", "ep": "ep", "attention_dp": "attention_dp", "dp": "attention_dp",
            "replicas": "replicas", "max_batch": "max_batch"}
_LENGTH = re.compile(r"(\d{1,9})(?:-(\d{1,9})|:(\d{1,2}(?:\.\d{1,6})?))?")
_LONGEST_DRAWN = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficWords:
    """What was said of traffic; exactly one of the sources. Lengths as `length_columns` reads them."""

    trace: str | None = None
    poisson: float | None = None
    constant: float | None = None
    gamma: str | None = None
    burst: str | None = None
    diurnal: str | None = None
    sessions: str | None = None
    concurrency: int | None = None
    clients: Path | None = None
    input_tokens: str | int = 1024
    output_tokens: str | int = 256
    lengths_of: str | None = None
    shortest_ratio: float = 1.0
    requests: int = 1000
    duration_s: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceChanges:
    """What is done to the requests before they are served, in this order."""

    rate: float = 1.0
    length: float = 1.0
    window: str | None = None
    first: int = 0
    repeat: int = 0
    drop_longer: bool = False


_SOURCES = ("trace", "poisson", "constant", "gamma", "burst", "diurnal", "sessions", "concurrency", "clients")


def requests_of_words(words: TrafficWords, seed: int, *, context_tokens: int = 0) -> Requests:
    """The requests that the words ask for; BadInput when no source, or more than one, is named, and when a trace holds
    a request of more than `context_tokens` (0 = any length will do)."""
    said = [name for name in _SOURCES if getattr(words, name) is not None]
    if len(said) != 1:
        listed = ", ".join(f"--{name}" for name in _SOURCES)
        raise BadInput(field="traffic", value=", ".join(said) or None, expected="exactly one source of requests",
                       remedy=f"Give one of {listed}.")
    if words.trace is not None:
        return read_trace(words.trace, context_tokens=context_tokens)
    if words.clients is not None:
        return mix(read_clients(words.clients), words.duration_s, seed)
    if not 1 <= words.requests <= MOST_REQUESTS:
        raise BadInput(field="--requests", value=words.requests, expected=f"1 to {MOST_REQUESTS:,}",
                       remedy="Send fewer.")
    lengths = length_columns(words, seed)
    if words.concurrency is not None:
        return closed_loop(words.concurrency, *lengths)
    if words.sessions is not None:
        rate, turns, think_s = _numbers(words.sessions, "--sessions", "RATE:TURNS:THINK_S", 3)
        return sessions(rate, words.requests, turns=turns, think_s=think_s, input_tokens_R=lengths[0],
                        output_tokens_R=lengths[1], seed=seed)
    return open_loop(_arrivals(words, said[0], seed), *lengths)


def traffic_of_words(words: TrafficWords, changes: TraceChanges, seed: int, *, context_tokens: int = 0) -> Requests:
    """The same, scaled, cut and repeated; none is longer than the model's context (0 = it is not known).

    A trace that is neither shortened nor thinned is refused by the line that is too long."""
    any_length = changes.drop_longer or changes.length != 1.0
    load = requests_of_words(words, seed, context_tokens=0 if any_length else context_tokens)
    load = scaled(load, rate=changes.rate, length=changes.length)
    if changes.window is not None:
        begin_s, end_s = _numbers(changes.window, "--window", "BEGIN_S:END_S", 2)
        load = cut(load, begin_s=begin_s, end_s=end_s)
    load = cut(load, count=changes.first) if changes.first else load
    load = repeated(load, changes.repeat) if changes.repeat else load
    load = within(load, context_tokens) if changes.drop_longer else load
    refuse_beyond(load, context_tokens, file=words.trace or "requests")
    return load


def length_columns(words: TrafficWords, seed: int) -> tuple[Ints, Ints]:
    """Tokens of prompts and of answers: drawn in pairs from a trace, or each as its word says.

    1024: all alike (with a shortest ratio: between that share of it and it). 512-1024: evenly between.
    1024:0.8: lognormal, median and deviation of the logarithm.
    """
    if words.lengths_of is not None:
        return empirical(read_trace(words.lengths_of), words.requests, stream(seed, INPUT))
    inputs, outputs = (_lengths(str(text), field, words, stream(seed, side)) for text, field, side in (
        (words.input_tokens, "--input", INPUT), (words.output_tokens, "--output", OUTPUT)))
    return inputs, outputs


def _lengths(text: str, field: str, words: TrafficWords, random: np.random.Generator) -> Ints:
    found, count = _LENGTH.fullmatch(text.strip()), words.requests
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last <= 100_000_000 or found is None:
        raise BadInput(field=field, value=text, expected="TOKENS, SHORTEST-LONGEST, or MEDIAN:SIGMA",
                       remedy="Write for example 1024, 512-1024 or 1024:0.8.")
    if found[3]:
        return lognormal(first, count, random, sigma=float(found[3]), longest=_LONGEST_DRAWN)
    if words.shortest_ratio != 1.0:
        return uniform(last, count, random, shortest_ratio=words.shortest_ratio)
    return fixed(first, count) if first == last else uniform(last, count, random, shortest_ratio=first / last)


def _arrivals(words: TrafficWords, source: str, seed: int) -> Ints:
    count, random = words.requests, stream(seed, ARRIVALS)
    if source == "constant":
        return constant(float(words.constant or 0.0), count)
    if source == "poisson":
        return poisson(float(words.poisson or 0.0), count, random)
    if source == "gamma":
        rate, variation = _numbers(words.gamma, "--gamma", "RATE:VARIATION", 2)
        return gamma(rate, count, random, variation=variation)
    if source == "diurnal":
        rate, swing = _numbers(words.diurnal, "--diurnal", "RATE:SWING", 2)
        return diurnal(rate, count, random, swing=swing)
    rate, ratio, on_s, off_s = _numbers(words.burst, "--burst", "RATE:RATIO:ON_S:OFF_S", 4)
    return bursts(rate, count, random, ratio=ratio, on_s=on_s, off_s=off_s)


def _numbers(text: str | None, field: str, form: str, count: int) -> list[float]:
    try:
        found = [float(part) for part in (text or "").split(":")]
    except ValueError:
        found = []
    if len(found) != count or not all(np.isfinite(found)):
        raise BadInput(field=field, value=text, expected=form, remedy="Use numbers, separated by colons.")
    return found


def parse_layout(text: str, *, weight_format: str, cache_format: str) -> tuple[Deployments | None, Deployments,
                                                                              Mapping[str, str]]:
    """`tp=2,replicas=4`, or `prefill:tp=4;decode:tp=8,replicas=2`: prefill pool (or None), the pool that serves, and
    the chip that each pool is to stand on where it is named (`on=CHIP`)."""
    parts = dict(_pool_words(piece) for piece in text.split(";") if piece.strip())
    if set(parts) not in ({""}, {"prefill", "decode"}):
        raise BadInput(field="--layout", value=text, expected="one pool, or prefill:... and decode:...",
                       remedy="Write tp=2,replicas=4 or prefill:tp=4;decode:tp=8,replicas=2.")
    rows = {name: deployment(weight_format=weight_format, cache_format=cache_format, **degrees)
            for name, (degrees, _) in parts.items()}
    chips = {name: chip for name, (_, chip) in parts.items() if chip}
    return (None, rows[""], chips) if "" in rows else (rows["prefill"], rows["decode"], chips)


def _pool_words(piece: str) -> tuple[str, tuple[dict[str, Any], str]]:
    name, colon, listed = piece.partition(":")
    degrees: dict[str, Any] = {}
    chip = ""
    for word in (listed if colon else piece).split(","):
        key, equals, value = (part.strip() for part in word.partition("="))
        if key == "on" and equals:
            chip = value
        elif key not in _DEGREES or not re.fullmatch(r"\d{1,7}", value) or int(value) < 1:
            raise BadInput(field="--layout", value=word.strip(), expected="NAME=COUNT",
                           remedy=f"Names: {', '.join(_DEGREES)}; on=CHIP chooses a pool of a mixed fleet.")
        else:
            degrees[_DEGREES[key]] = int(value)
    return (name.strip() if colon else ""), (degrees, chip)


def pool_plans(model: Model, fleet: Fleet, layout: tuple[Deployments | None, Deployments, Mapping[str, str]],
               profile: EngineProfile, *, stack: str | None, router: str) -> list[PoolPlan]:
    """The pools of a deployment on a fleet, prefill first; BadInput where a layout breaks a rule or chips lack."""
    prefill, serve, chips = layout
    rows = {"": serve} if prefill is None else {"prefill": prefill, "decode": serve}
    used: dict[str, int] = {}
    plans = []
    for name, row in rows.items():
        pool = _pool_on(fleet, chips.get(name, ""), name)
        used[pool.chip.name] = used.get(pool.chip.name, 0) + int(row.chip_count[0])
        if used[pool.chip.name] > pool.chip_count:
            raise BadInput(field="--layout", value=f"{used[pool.chip.name]} chips", expected=f"at most the "
                           f"{pool.chip_count} {pool.chip.name} of the fleet", remedy="Use fewer replicas.")
        _refuse_format(row, pool)
        family = pool.chip.family
        chosen = read_stack(stack, family) if stack else stack_for(family, "serving", profile.stack)
        machine = serving_machine(pool, chosen)
        for rule in LEGALITY:
            if rule.name not in ("chips", "requests") and not rule.holds(
                    Serving(model=model, input_tokens=1, output_tokens=1, concurrency=1), machine, row)[0]:
                degrees = {key: value for key, value in row.row(0).items() if key in _DEGREES}
                raise BadInput(field="--layout", value=", ".join(f"{key}={value}" for key, value in degrees.items()),
                               expected=f"a layout that keeps the rule {rule.name!r}", remedy=rule.sentence)
        plans.append(PoolPlan(machine=machine, row=row, profile=profile, router=router))
    return plans


def _refuse_format(row: Deployments, pool: Pool) -> None:
    check_format(pool, FORMATS[int(row.weight_format[0])], "--weights")


def _pool_on(fleet: Fleet, chip: str, name: str) -> Pool:
    found = [pool for pool in fleet.pools if not chip or pool.chip.name == chip]
    if len(found) != 1:
        names = ", ".join(pool.chip.name for pool in fleet.pools)
        raise BadInput(field="--layout", value=f"{name}: on={chip}" if chip else name or None,
                       expected=f"the chip that the pool stands on, one of {names}",
                       remedy=f"Write {name + ':' if name else ''}on={fleet.pools[0].chip.name},tp=...")
    return found[0]
