"""Does every rank end with exactly the right data, whatever the timing? Symbolic execution says so, or where not.

A slot holds a value: which chunk of the question it is, and the set of ranks that have contributed. Adding two values
is right when they are the same chunk and nobody has contributed to both. Values are followed level by level of the
order in which events must happen; that no timing can change them is proven separately, as the absence of races.

Axes: K = step, U = one chunk of a step, S = slot over all ranks, W = word of 64 ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from serried.errors import BadInput
from serried.weave.legality import RULES, Fault, message_pairs, step_name
from serried.weave.order import level_K, unordered
from serried.weave.spec import OUTPUT, RECEIVE_REDUCE, REDUCE, SEND, Schedule, place, slot_K, spans

__all__ = ["check", "faults"]

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
_EMPTY, _MIXED, _TWICE = -1, -2, -3
_REASONS = {_EMPTY: "nothing has been put there", _MIXED: "different chunks were added to each other",
            _TWICE: "a rank's contribution was added twice"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """Chunk by chunk: target = source, or target = operand + source where operand is not -1."""

    level_U: Ints
    step_U: Ints
    source_U: Ints
    operand_U: Ints
    target_U: Ints


def check(schedule: Schedule, *, file: str = "") -> None:
    """Raise BadInput with the place and the reason when the schedule is wrong."""
    found = faults(schedule)
    if found:
        raise BadInput(file=file, field=found[0].place, value=schedule.name or schedule.operation,
                       expected=f"a schedule that does {schedule.operation} on {schedule.rank_count} ranks, but here "
                       f"it {found[0].reason}", remedy=f"{len(found)} such places; mend the first one and verify again."
                       if len(found) > 1 else "Mend it and verify again.")


def faults(schedule: Schedule, *, most: int = 20) -> list[Fault]:
    """What is wrong with a schedule, empty when it is proven right; of the first law that is broken, at most `most`."""
    share, ragged = divmod(schedule.chunk_count, schedule.rank_count)
    if schedule.operation in ("all_gather", "reduce_scatter", "all_to_all"):
        if ragged or not share:
            return [Fault(place="chunks", reason=f"cuts the buffer into {schedule.chunk_count} chunks, which "
                          f"{schedule.rank_count} ranks cannot share alike")]
        if len(np.unique(schedule.chunk_weight_C.reshape(-1, share), axis=0)) > 1:
            return [Fault(place="chunk weights", reason="cuts the shares of the ranks in different proportions")]
    for rule in RULES:
        broken = rule.broken(schedule)
        if len(broken):
            return [Fault(place=step_name(schedule, int(step)), reason=rule.reason(schedule, int(step)))
                    for step in broken[:most]]
    level_of_K = level_K(schedule)
    if (level_of_K < 0).any():
        return _deadlock(schedule, level_of_K, most)
    work = _work(schedule, level_of_K)
    return _races(schedule, work, level_of_K, most) or _wrong_data(schedule, work, most)


def _deadlock(schedule: Schedule, level_of_K: Ints, most: int) -> list[Fault]:
    """The steps that stand first in their lane and can never be done."""
    stuck = np.flatnonzero(level_of_K < 0)
    steps = schedule.steps
    head = (level_of_K[stuck - 1] >= 0) | (steps.lane_K[stuck - 1] != steps.lane_K[stuck]) | (
        steps.rank_K[stuck - 1] != steps.rank_K[stuck]) | (stuck == 0)
    return [Fault(place=step_name(schedule, int(step)), reason="is never done: it waits in a circle (deadlock), with "
                  f"{len(stuck)} steps of {len(np.unique(steps.rank_K[stuck]))} ranks")
            for step in stuck[head][:most]]


def _work(schedule: Schedule, level_of_K: Ints) -> _Work:
    steps = schedule.steps
    source_K = slot_K(schedule, steps.rank_K, steps.source_buffer_K, steps.source_chunk_K)
    target_K = slot_K(schedule, steps.rank_K, steps.target_buffer_K, steps.target_chunk_K)
    operand_K = np.where(steps.kind_K == REDUCE, target_K, -1)
    operand_K = np.where(steps.kind_K == RECEIVE_REDUCE, source_K, operand_K)
    sends, receives = message_pairs(schedule)
    source_K[receives] = source_K[sends]
    done = np.flatnonzero(steps.kind_K != SEND)
    done = done[np.argsort(level_of_K[done], kind="stable")]
    count = steps.count_K[done]
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    step_U = np.repeat(done, count)
    operand_U = operand_K[step_U]
    return _Work(level_U=level_of_K[step_U], step_U=step_U, source_U=source_K[step_U] + within,
                 operand_U=np.where(operand_U < 0, -1, operand_U + within), target_U=target_K[step_U] + within)


def _races(schedule: Schedule, work: _Work, level_of_K: Ints, most: int) -> list[Fault]:
    """Pairs of a write and another access to one slot that nothing keeps apart."""
    steps = schedule.steps
    sends, receives = message_pairs(schedule)
    reader_K = np.arange(len(steps))
    reader_K[receives] = sends
    own = work.operand_U >= 0
    slot = np.concatenate([work.source_U, work.operand_U[own], work.target_U])
    step = np.concatenate([reader_K[work.step_U], work.step_U[own], work.step_U])
    writes = np.repeat([False, False, True], [len(work.step_U), int(own.sum()), len(work.step_U)])
    order = np.lexsort((writes, step, level_of_K[step], slot))
    slot, step, writes = slot[order], step[order], writes[order]
    number = np.arange(len(slot))
    fresh = np.diff(slot, prepend=-1) != 0
    start = np.maximum.accumulate(np.where(fresh, number, 0))
    last = np.maximum.accumulate(np.where(writes, number, -1))
    earlier = np.concatenate([[-1], last[:-1]])            # the write before this access
    has = earlier >= start
    later = np.minimum.accumulate(np.where(writes, number, len(slot))[::-1])[::-1]   # the write after this read
    end = np.append(later, len(slot))[:-1]
    reads = ~writes & (end < len(slot))
    reads[reads] = slot[end[reads]] == slot[reads]
    first = np.concatenate([step[earlier[has]], step[reads]])
    then = np.concatenate([step[has], step[end[reads]]])
    pairs = np.unique(np.stack([first, then])[:, first != then], axis=1)
    bad = unordered(schedule, level_of_K, pairs[0], pairs[1])
    return [Fault(place=step_name(schedule, int(pairs[1][pair])), reason="may run before or after "
                  f"{step_name(schedule, int(pairs[0][pair]))}, which touches the same chunk (race)")
            for pair in bad[:most]]


def _wrong_data(schedule: Schedule, work: _Work, most: int) -> list[Fault]:
    """Slots of the output that end with something else than the operation asks for."""
    chunk_S, ranks_SW, origin_S = _execute(schedule, work)
    slot_O, chunk_O, ranks_OW = _expected(schedule)
    wrong = np.flatnonzero((chunk_S[slot_O] != chunk_O) | (ranks_SW[slot_O] != ranks_OW).any(axis=1))
    found = []
    for position in wrong[:most]:
        slot = int(slot_O[position])
        rank, inside = divmod(slot, schedule.slot_count)
        output = inside - int(place(schedule, rank)[OUTPUT])
        held = int(chunk_S[slot])
        if held < 0:
            after = f" at {step_name(schedule, int(origin_S[slot]))}" if origin_S[slot] >= 0 else ""
            reason = f"ends without the answer: {_REASONS[held]}{after}"
        elif held != chunk_O[position]:
            reason = f"ends with chunk {held} of the question instead of {chunk_O[position]}"
        else:
            reason = (f"ends with contributions of {_members(ranks_SW[slot])} instead of "
                      f"{_members(ranks_OW[position])}")
        found.append(Fault(place=f"rank {rank}, output chunk {output}", reason=reason))
    return found


def _execute(schedule: Schedule, work: _Work) -> tuple[Ints, Words, Ints]:
    """(chunk, contributors, step that spoilt it) of every slot at the end."""
    slots = (schedule.rank_count + schedule.switch_count) * schedule.slot_count
    chunk_S = np.full(slots, _EMPTY)
    origin_S = np.full(slots, -1)
    ranks_SW = np.zeros((slots, (schedule.rank_count + 63) // 64), dtype=np.uint64)
    for rank in range(schedule.rank_count) if schedule.operation != "broadcast" else [schedule.root]:
        given = spans(schedule)[0]
        begin = rank * schedule.slot_count + int(place(schedule, rank)[0])
        chunk_S[begin:begin + given] = np.arange(given)
        ranks_SW[begin:begin + given, rank // 64] = np.uint64(1 << (rank % 64))
    bounds = np.flatnonzero(np.diff(work.level_U, prepend=-1, append=-1))
    for first, end in pairwise(bounds.tolist()):
        source, operand, target = work.source_U[first:end], work.operand_U[first:end], work.target_U[first:end]
        chunk, ranks, origin = chunk_S[source], ranks_SW[source], origin_S[source]
        adds = operand >= 0
        if adds.any():
            had, with_ranks = chunk_S[operand], ranks_SW[operand]
            verdict = np.where(chunk < 0, chunk, np.where(had < 0, had, np.where(
                chunk != had, _MIXED, np.where((ranks & with_ranks).any(axis=1), _TWICE, chunk))))
            fresh = adds & (verdict < 0)
            origin = np.where(fresh, np.where(chunk < 0, origin, np.where(had < 0, origin_S[operand],
                                                                          work.step_U[first:end])), origin)
            chunk = np.where(adds, verdict, chunk)
            ranks = np.where(adds[:, None], ranks | with_ranks, ranks)
        empty = (chunk == _EMPTY) & (origin < 0)
        chunk_S[target], ranks_SW[target] = chunk, ranks
        origin_S[target] = np.where(empty, work.step_U[first:end], np.where(chunk < 0, origin, -1))
    return chunk_S, ranks_SW, origin_S


def _expected(schedule: Schedule) -> tuple[Ints, Ints, Words]:
    """(slot, chunk, contributors) of every chunk of every rank's output."""
    ranks = schedule.rank_count
    taken = spans(schedule)[1]
    share = schedule.chunk_count // ranks
    rank_O = np.repeat(np.arange(ranks), taken)
    within_O = np.tile(np.arange(taken), ranks)
    slot_O = rank_O * schedule.slot_count + place(schedule, rank_O)[OUTPUT] + within_O
    words = (ranks + 63) // 64
    everybody = np.packbits(np.arange(64 * words) < ranks, bitorder="little").view(np.uint64)
    if schedule.operation in ("all_reduce", "reduce_scatter"):
        chunk_O = within_O + (rank_O * share if schedule.operation == "reduce_scatter" else 0)
        return slot_O, chunk_O, np.broadcast_to(everybody, (len(slot_O), words))
    owner_O = np.full(len(slot_O), schedule.root) if schedule.operation == "broadcast" else within_O // share
    chunk_O = within_O if schedule.operation == "broadcast" else within_O % share + (
        rank_O * share if schedule.operation == "all_to_all" else 0)
    ranks_OW = np.zeros((len(slot_O), words), dtype=np.uint64)
    ranks_OW[np.arange(len(slot_O)), owner_O // 64] = np.uint64(1) << (owner_O % 64).astype(np.uint64)
    return slot_O, chunk_O, ranks_OW


def _members(ranks_W: Words) -> str:
    found = np.flatnonzero(np.unpackbits(ranks_W.view(np.uint8), bitorder="little"))
    if len(found) > 12:
        return f"{len(found)} ranks"
    return f"ranks {' '.join(map(str, found))}" if len(found) else "nobody"
