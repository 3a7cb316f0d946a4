"""What must hold of a schedule before anybody follows it: steps that name what exists, messages that meet.

Each rule gives the steps that break it; the first broken rule is the answer, since later rules lean on earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serried.weave.spec import BUFFERS, COPY, KINDS, RECEIVE, RECEIVE_REDUCE, REDUCE, SEND, Schedule, spans

__all__ = ["RULES", "Fault", "Rule", "message_pairs", "step_name"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Where a schedule goes wrong, and how."""

    place: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A law: `broken` gives the steps that break it, `reason` says what is wrong with one of them."""

    name: str
    broken: Callable[[Schedule], Ints]
    reason: Callable[[Schedule, int], str]


def step_name(schedule: Schedule, step: int) -> str:
    """A step in words: rank 2, lane 1, step 4 (send to 3, channel 0)."""
    steps = schedule.steps
    rank, lane = int(steps.rank_K[step]), int(steps.lane_K[step])
    order = int(((steps.rank_K[:step] == rank) & (steps.lane_K[:step] == lane)).sum())
    kind = int(steps.kind_K[step])
    peer = {SEND: " to", RECEIVE: " from", RECEIVE_REDUCE: " from"}.get(kind)
    told = f"{peer} {steps.peer_K[step]}, channel {steps.channel_K[step]}" if peer else ""
    return f"rank {rank}, lane {lane}, step {order} ({KINDS[kind]}{told})"


def message_pairs(schedule: Schedule) -> tuple[Ints, Ints]:
    """(sends, receives): the n-th send of a channel beside the n-th receive; call it when they are as many."""
    steps = schedule.steps
    sends, receives = _sends(schedule), _receives(schedule)
    sent = np.lexsort((sends, steps.channel_K[sends], steps.peer_K[sends], steps.rank_K[sends]))
    got = np.lexsort((receives, steps.channel_K[receives], steps.rank_K[receives], steps.peer_K[receives]))
    return sends[sent], receives[got]


def _sends(schedule: Schedule) -> Ints:
    return np.flatnonzero(schedule.steps.kind_K == SEND)


def _receives(schedule: Schedule) -> Ints:
    return np.flatnonzero(np.isin(schedule.steps.kind_K, (RECEIVE, RECEIVE_REDUCE)))


def _unknown_peers(schedule: Schedule) -> Ints:
    steps = schedule.steps
    message = steps.kind_K <= RECEIVE_REDUCE
    ranks = schedule.rank_count + schedule.switch_count
    alone = (steps.peer_K < 0) | (steps.peer_K >= ranks) | (steps.peer_K == steps.rank_K) | (steps.channel_K < 0)
    return np.flatnonzero(message & alone)


def _beyond_buffers(schedule: Schedule) -> Ints:
    steps = schedule.steps
    given, taken = spans(schedule)
    limits = np.asarray([given, taken, schedule.scratch_count])
    switch_K = steps.rank_K >= schedule.rank_count
    bad_K = steps.count_K < 1
    reads = np.isin(steps.kind_K, (SEND, RECEIVE_REDUCE, COPY, REDUCE))
    writes = steps.kind_K != SEND
    for used, buffer_K, chunk_K in ((reads, steps.source_buffer_K, steps.source_chunk_K),
                                    (writes, steps.target_buffer_K, steps.target_chunk_K)):
        known_K = (buffer_K >= 0) & (buffer_K < len(BUFFERS))
        limit_K = np.where(switch_K & (buffer_K < 2), schedule.chunk_count, limits[np.where(known_K, buffer_K, 0)])
        fits_K = known_K & (chunk_K >= 0) & (chunk_K <= limit_K - steps.count_K)
        bad_K |= used & ~fits_K
    return np.flatnonzero(bad_K)


def _split_channels(schedule: Schedule) -> Ints:
    """Steps that use an end of a channel from another lane than its first step does."""
    steps = schedule.steps
    message = np.flatnonzero(steps.kind_K <= RECEIVE_REDUCE)
    columns = np.stack([steps.rank_K, steps.kind_K == SEND, steps.peer_K, steps.channel_K])[:, message]
    _, first, which = np.unique(columns, axis=1, return_index=True, return_inverse=True)
    split: Ints = message[steps.lane_K[message] != steps.lane_K[message[first]][which.ravel()]]
    return split


def _unmatched(schedule: Schedule) -> Ints:
    """Sends beyond the receives of their channel, and receives beyond its sends."""
    steps = schedule.steps
    sends, receives = _sends(schedule), _receives(schedule)
    ends = np.concatenate([np.stack([steps.rank_K, steps.peer_K, steps.channel_K])[:, sends],
                           np.stack([steps.peer_K, steps.rank_K, steps.channel_K])[:, receives]], axis=1)
    if not ends.size:
        return sends
    _, which = np.unique(ends, axis=1, return_inverse=True)
    which = which.ravel()
    sent, got = (_occurrence(part) for part in (which[:len(sends)], which[len(sends):]))
    send_count, receive_count = (np.bincount(part, minlength=which.max() + 1)
                                 for part in (which[:len(sends)], which[len(sends):]))
    return np.concatenate([sends[sent >= receive_count[which[:len(sends)]]],
                           receives[got >= send_count[which[len(sends):]]]])


def _occurrence(keys: Ints) -> Ints:
    """How many equal keys stand before each."""
    order = np.argsort(keys, kind="stable")
    found = np.empty(len(keys), dtype=np.int64)
    found[order] = np.arange(len(keys)) - np.searchsorted(keys[order], keys[order])
    return found


def _unequal(schedule: Schedule) -> Ints:
    """Receives of another length than the message that arrives."""
    steps = schedule.steps
    sends, receives = message_pairs(schedule)
    short: Ints = receives[steps.count_K[sends] != steps.count_K[receives]]
    return short


def _unequal_reason(schedule: Schedule, step: int) -> str:
    sends, receives = message_pairs(schedule)
    send = sends[np.flatnonzero(receives == step)[0]]
    return (f"takes {schedule.steps.count_K[step]} chunks, but the message that arrives there has "
            f"{schedule.steps.count_K[send]}: {step_name(schedule, int(send))}")


def _foreign_waits(schedule: Schedule) -> Ints:
    """Steps that wait for a step of another rank, or for one that does not exist."""
    steps = schedule.steps
    waiting = np.repeat(np.arange(len(steps)), np.diff(steps.after_first_K))
    inside = (steps.after_D >= 0) & (steps.after_D < len(steps))
    known = np.where(inside, steps.after_D, 0)
    return waiting[~inside | (steps.rank_K[known] != steps.rank_K[waiting])] if len(steps) else waiting


def _span_reason(schedule: Schedule, step: int) -> str:
    given, taken = spans(schedule)
    steps = schedule.steps
    told = [f"{BUFFERS[buffer]} from {chunk} on" for buffer, chunk in (
        (int(steps.source_buffer_K[step]), int(steps.source_chunk_K[step])),
        (int(steps.target_buffer_K[step]), int(steps.target_chunk_K[step]))) if 0 <= buffer < len(BUFFERS)]
    return (f"touches {steps.count_K[step]} chunks of {' and '.join(told) or 'no buffer'}; a rank has {given} of "
            f"input, {taken} of output, {schedule.scratch_count} of scratch")


RULES: tuple[Rule, ...] = (
    Rule(name="peers", broken=_unknown_peers,
         reason=lambda schedule, step: f"speaks with rank {schedule.steps.peer_K[step]}; a peer is another one of the "
         f"{schedule.rank_count + schedule.switch_count} ranks, a channel counts from 0"),
    Rule(name="buffers", broken=_beyond_buffers, reason=_span_reason),
    Rule(name="waits", broken=_foreign_waits,
         reason=lambda schedule, step: "waits for a step that is none of its own rank's"),
    Rule(name="one lane per channel end", broken=_split_channels,
         reason=lambda schedule, step: "shares its channel with another lane of its rank, so that the order of the "
         "messages is left to chance"),
    Rule(name="every message is sent and received", broken=_unmatched,
         reason=lambda schedule, step: "sends a message that nobody receives" if schedule.steps.kind_K[step] == SEND
         else "waits for a message that nobody sends: deadlock"),
    Rule(name="messages are as long as expected", broken=_unequal, reason=_unequal_reason),
)
