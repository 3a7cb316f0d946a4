"""Requests put together, scaled, cut and repeated. Pure: the same seed gives the same columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serried.errors import BadInput
from serried.traffic.arrivals import poisson
from serried.traffic.chance import ARRIVALS, TURNS, stream
from serried.traffic.spec import Ints, Requests

__all__ = ["MOST_REQUESTS", "closed_loop", "cut", "open_loop", "refuse_beyond", "repeated", "scaled", "sessions",
           "taken", "within"]

#: More than a machine's memory holds.
MOST_REQUESTS = 50_000_000
_NONE: Ints = np.empty(0, dtype=np.int64)


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


def sessions(rate_per_s: float, count: int, *, turns: float, think_s: float, input_tokens_R: Ints,
             output_tokens_R: Ints, seed: int) -> Requests:
    """Conversations: Poisson beginnings, a geometric number of turns with that mean, exponential thinking between. Each
    turn's prompt is everything said before and its own tokens; count is of requests, and so are the columns."""
    random = stream(seed, TURNS)
    if turns < 1:
        raise BadInput(field="turns", value=turns, expected="1 or more", remedy="It is the mean turns of a session.")
    lengths = random.geometric(1.0 / turns, count)
    first = np.concatenate([[0], np.cumsum(lengths)])
    first = first[:np.searchsorted(first, count)]
    session_R = np.repeat(np.arange(len(first)), np.diff(np.append(first, count)))
    is_first = np.zeros(count, dtype=bool)
    is_first[first] = True
    begins_ns = poisson(rate_per_s / turns, len(first), stream(seed, ARRIVALS))[session_R]
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


def repeated(requests: Requests, count: int) -> Requests:
    """The same trace end to end until there are `count` requests; fewer than it has cut it.

    The next round begins a mean gap after the last arrival. Its prompts share blocks with each other as those of the
    first do, and none with another round: what people ask tomorrow is not what they asked today.
    """
    if not 1 <= count <= MOST_REQUESTS:
        raise BadInput(field="repeat", value=count, expected=f"1 to {MOST_REQUESTS:,} requests",
                       remedy="Ask for fewer.")
    own = len(requests)
    if count <= own:
        return taken(requests, np.arange(count))
    rows = np.arange(count) % own
    round_R = np.arange(count) // own
    found = taken(replace(requests, previous_R=_NONE, think_ns_R=_NONE), rows)
    last_ns = int(requests.arrival_ns_R[-1])
    round_ns = last_ns + max(last_ns // max(own - 1, 1), 1)
    if round_ns * (int(round_R[-1]) + 1) >= 2**63:
        raise BadInput(field="repeat", value=count, expected="a trace that ends within 292 years",
                       remedy="Ask for fewer.")
    changes: dict[str, Any] = {"arrival_ns_R": found.arrival_ns_R + round_R * round_ns}
    if requests.hash_block_tokens:
        known, rank_H = np.unique(found.block_hash_H, return_inverse=True)
        changes["block_hash_H"] = rank_H + np.repeat(round_R * len(known), np.diff(found.block_start_R))
    if len(requests.previous_R):
        before = requests.previous_R[rows]
        changes |= {"previous_R": np.where(before >= 0, before + round_R * own, -1),
                    "think_ns_R": requests.think_ns_R[rows]}
    return replace(found, **changes)


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
    rows = np.flatnonzero(requests.input_tokens_R + requests.output_tokens_R <= context_tokens)
    if not len(rows):
        raise BadInput(field="requests", value=f"{len(requests):,} requests", expected="at least one that the model's "
                       f"context of {context_tokens:,} tokens holds", remedy="Take a model with a longer context.")
    return taken(requests, rows)


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
