"""Requests made up, scaled, cut and repeated. Pure: the same seed gives the same columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serried.errors import BadInput
from serried.traffic.arrivals import gamma, poisson
from serried.traffic.lengths import lognormal
from serried.traffic.spec import Ints, Requests

__all__ = ["Client", "closed_loop", "cut", "mix", "open_loop", "refuse_beyond", "scaled", "sessions", "stream",
           "taken", "within"]

#: Streams of chance, so that one more of anything leaves the others' draws alone.
_ARRIVALS, _INPUT, _OUTPUT, _TURNS = range(4)


def stream(seed: int, *what: int) -> np.random.Generator:
    """The generator of one stream of chance."""
    return np.random.default_rng(np.random.SeedSequence([seed, *what]))


def open_loop(arrival_ns_R: Ints, input_tokens_R: Ints, output_tokens_R: Ints) -> Requests:
    """Requests that arrive whatever becomes of the others."""
    return Requests(arrival_ns_R=arrival_ns_R, input_tokens_R=input_tokens_R, output_tokens_R=output_tokens_R,
                    class_R=np.zeros(len(arrival_ns_R), dtype=np.int64))


def closed_loop(in_flight: int, input_tokens_R: Ints, output_tokens_R: Ints) -> Requests:
    """So many requests at a time: the next arrives when one ends."""
    if in_flight < 1:
        raise BadInput(field="concurrency", value=in_flight, expected="1 or more", remedy="Say how many at a time.")
    return replace(open_loop(np.zeros(len(input_tokens_R), dtype=np.int64), input_tokens_R, output_tokens_R),
                   in_flight=in_flight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One of many who ask: rate, burstiness, lengths (medians and the deviation of their logarithms), class."""

    rate_per_s: float
    variation: float = 1.0
    input_median: float
    input_sigma: float = 0.0
    output_median: float
    output_sigma: float = 0.0
    longest: int = 100_000
    name: str = "all"


def mix(clients: Sequence[Client], duration_s: float, seed: int) -> Requests:
    """All clients' requests in a window, as ServeGen composes workloads: each client keeps its own rate, burstiness and
    lengths, and the sum has the bursts and the drift that one process lacks."""
    if not clients:
        raise BadInput(field="clients", value=0, expected="at least one client", remedy="Write one [[client]].")
    names = tuple(dict.fromkeys(client.name for client in clients))
    columns: list[tuple[Ints, Ints, Ints, Ints]] = []
    for number, client in enumerate(clients):
        most = round(client.rate_per_s * duration_s * 1.5 + 10 * np.sqrt(client.rate_per_s * duration_s + 1)
                     * max(client.variation, 1.0))
        arrival_ns = gamma(client.rate_per_s, max(most, 1), stream(seed, number, _ARRIVALS),
                           variation=client.variation)
        arrival_ns = arrival_ns[arrival_ns < duration_s * 1e9]
        inputs, outputs = (
            lognormal(median, len(arrival_ns), stream(seed, number, what), sigma=sigma, longest=client.longest)
            for what, median, sigma in ((_INPUT, client.input_median, client.input_sigma),
                                        (_OUTPUT, client.output_median, client.output_sigma)))
        columns.append((arrival_ns, inputs, outputs,
                        np.full(len(arrival_ns), names.index(client.name), dtype=np.int64)))
    arrival_ns, inputs, outputs, classes = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.argsort(arrival_ns, kind="stable")
    return Requests(arrival_ns_R=arrival_ns[order], input_tokens_R=inputs[order], output_tokens_R=outputs[order],
                    class_R=classes[order], class_names=names)


def sessions(rate_per_s: float, count: int, *, turns: float, think_s: float, input_tokens_R: Ints,
             output_tokens_R: Ints, seed: int) -> Requests:
    """Conversations: Poisson beginnings, a geometric number of turns with that mean, exponential thinking between. Each
    turn's prompt is everything said before and its own tokens; count is of requests, and so are the columns."""
    random = stream(seed, _TURNS)
    if turns < 1:
        raise BadInput(field="turns", value=turns, expected="1 or more", remedy="It is the mean turns of a session.")
    lengths = random.geometric(1.0 / turns, count)
    first = np.concatenate([[0], np.cumsum(lengths)])
    first = first[:np.searchsorted(first, count)]
    session_R = np.repeat(np.arange(len(first)), np.diff(np.append(first, count)))
    is_first = np.zeros(count, dtype=bool)
    is_first[first] = True
    begins_ns = poisson(rate_per_s / turns, len(first), stream(seed, _ARRIVALS))[session_R]
    said = np.cumsum(input_tokens_R + output_tokens_R)
    before = said - (input_tokens_R + output_tokens_R)   # of all sessions; less what was said before this one began
    before -= before[first][session_R]
    think_ns = np.round(random.exponential(think_s, count) * 1e9).astype(np.int64) if think_s else np.zeros(
        count, dtype=np.int64)
    order = np.argsort(begins_ns, kind="stable")
    position = np.empty(count, dtype=np.int64)
    position[order] = np.arange(count)
    previous = np.where(is_first, -1, position[np.maximum(np.arange(count) - 1, 0)])
    return Requests(arrival_ns_R=begins_ns[order], input_tokens_R=(input_tokens_R + before)[order],
                    output_tokens_R=output_tokens_R[order], class_R=np.zeros(count, dtype=np.int64),
                    previous_R=previous[order], think_ns_R=np.where(is_first, 0, think_ns)[order])


def scaled(requests: Requests, *, rate: float = 1.0, length: float = 1.0) -> Requests:
    """The same trace, `rate` times as dense and with prompts and answers `length` times as long.

    Longer prompts keep their hashes where a prompt's blocks are shared; hashes of a shortened one are cut with it.
    """
    for name, value in (("rate", rate), ("length", length)):
        if not 0.0 < value < 1e6:
            raise BadInput(field=name, value=value, expected="a factor above zero", remedy="1 changes nothing.")
    if rate == 1.0 and length == 1.0:
        return requests
    grown = [np.maximum(np.round(column * length).astype(np.int64), 1)
             for column in (requests.input_tokens_R, requests.output_tokens_R)]
    made = replace(requests, arrival_ns_R=np.round(requests.arrival_ns_R / rate).astype(np.int64),
                   input_tokens_R=grown[0], output_tokens_R=grown[1])
    if length < 1.0 and requests.hash_block_tokens:
        return _hashes_within(made)
    return made


def _hashes_within(requests: Requests) -> Requests:
    """Keep of each prompt's hashes those that its tokens reach."""
    counts = np.diff(requests.block_start_R)
    kept = np.minimum(counts, -(-requests.input_tokens_R // requests.hash_block_tokens))
    within = np.arange(len(requests.block_hash_H)) - np.repeat(requests.block_start_R[:-1], counts)
    return replace(requests, block_hash_H=requests.block_hash_H[within < np.repeat(kept, counts)],
                   block_start_R=np.concatenate([[0], np.cumsum(kept)]))


def cut(requests: Requests, *, begin_s: float = 0.0, end_s: float = float("inf"), count: int = 0) -> Requests:
    """The part of a trace between two times, from its beginning; at most `count` requests, 0 = all."""
    time_s = requests.arrival_ns_R * 1e-9
    chosen = np.flatnonzero((time_s >= begin_s) & (time_s < end_s))
    chosen = chosen[:count] if count else chosen
    if not len(chosen):
        raise BadInput(field="window", value=f"{begin_s:g} to {end_s:g} s", expected="a window with requests in it",
                       remedy=f"The trace lasts {time_s[-1] if len(time_s) else 0:g} s.")
    found = taken(requests, chosen)
    return replace(found, arrival_ns_R=found.arrival_ns_R - round(begin_s * 1e9))


def taken(requests: Requests, rows: NDArray[np.intp]) -> Requests:
    """The requests at `rows`, in that order. A turn whose earlier turn is left out stands alone."""
    changes: dict[str, Any] = {name: getattr(requests, name)[rows]
                               for name in ("arrival_ns_R", "input_tokens_R", "output_tokens_R", "class_R")}
    if len(requests.previous_R):
        position = np.full(len(requests), -1, dtype=np.int64)
        position[rows] = np.arange(len(rows))
        before = requests.previous_R[rows]
        changes["previous_R"] = np.where(before >= 0, position[np.maximum(before, 0)], -1)
        changes["think_ns_R"] = requests.think_ns_R[rows]
    if requests.hash_block_tokens:
        counts = np.diff(requests.block_start_R)[rows]
        begins = np.concatenate([[0], np.cumsum(counts)])
        flat = np.repeat(requests.block_start_R[:-1][rows] - begins[:-1], counts) + np.arange(begins[-1])
        changes["block_hash_H"], changes["block_start_R"] = requests.block_hash_H[flat], begins
    return replace(requests, **changes)


def within(requests: Requests, context_tokens: int) -> Requests:
    """The requests that a model's context holds; all of them when it is not known (0)."""
    if not context_tokens:
        return requests
    return taken(requests, np.flatnonzero(requests.input_tokens_R + requests.output_tokens_R <= context_tokens))


def refuse_beyond(requests: Requests, context_tokens: int, *, file: str = "requests") -> None:
    """BadInput when a request is longer than the model's context, naming the first and how many there are."""
    total = requests.input_tokens_R + requests.output_tokens_R
    beyond = np.flatnonzero(total > context_tokens) if context_tokens else np.empty(0, dtype=np.int64)
    if len(beyond):
        first = int(beyond[0])
        raise BadInput(
            file=file, field=f"request {first + 1}",
            value=f"{int(requests.input_tokens_R[first]):,} + {int(requests.output_tokens_R[first]):,} tokens",
            expected=f"at most the {context_tokens:,} tokens of the model's context ({len(beyond):,} of "
                     f"{len(requests):,} requests are longer)",
            remedy="Leave these out with --drop-longer, shorten the trace with --scale-length, or take a model with a "
                   "longer context.")
