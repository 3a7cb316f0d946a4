"""A schedule as an MSCCL++ execution plan: thread blocks that put into each other's memory and signal.

Fields after src/core/executor/execution_plan.cc of microsoft/mscclpp at 00668b4, limits after execution_common.hpp.
A message is four turns on one channel: the receiver signals that its place is free, the sender waits for that, puts,
and signals; the receiver waits. A reduction is put into scratch and added there by the receiver. What waits for
another block of its chip takes a counting semaphore. A lane that is longer than the loader's operations per block goes
on in a further block.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serried.emit.limits import TooManySteps
from serried.errors import BadInput
from serried.weave import Schedule
from serried.weave.legality import message_pairs
from serried.weave.spec import COPY, RECEIVE, RECEIVE_REDUCE, REDUCE, SEND, Operation, in_equal_chunks, spans

__all__ = ["COLLECTIVES", "write_mscclpp_json"]

COLLECTIVES: dict[Operation, str] = {"all_reduce": "allreduce", "all_gather": "allgather", "broadcast": "broadcast",
                                     "reduce_scatter": "reducescatter", "all_to_all": "alltoall"}
_LETTERS = "ios"
_MOST_OPERATIONS, _MOST_CHANNELS, _MOST_SEMAPHORES = 64, 16, 16
#: Blocks wait for each other, so that all must run at once, one to a core; 104 is what the smallest of the chips that
#: the library is documented for has.
_MOST_BLOCKS = 104
#: Operations of a step of each kind, waits for other blocks and what tells them not counted.
_TURNS = {SEND: 6, RECEIVE: 3, RECEIVE_REDUCE: 5, COPY: 2, REDUCE: 2}
_NOP = {"name": "nop"}           # lets the threads of a block meet


@dataclass(slots=True, kw_only=True)
class _Block:
    """One thread block being written; remote: (rank, letter) of the memories that it puts into."""

    number: int
    operations: list[dict[str, Any]] = field(default_factory=list)
    channels: list[int] = field(default_factory=list)
    remote: list[int] = field(default_factory=list)

    def own(self, held: list[int], number: int) -> int:
        """Number of a channel or memory of the chip among those of this block."""
        if number not in held:
            held.append(number)
        return held.index(number)

    def meet(self) -> None:
        """Threads meet, unless they just have."""
        if self.operations and self.operations[-1] != _NOP:
            self.operations.append(dict(_NOP))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weft:
    """What the blocks of all chips share: block_K of each step; of each message its channel key, by send and receive;
    waits_K: semaphores to take before a step; tells_K: semaphores to give after it."""

    block_K: list[int]
    key_K: list[tuple[int, ...]]
    waits_K: list[list[int]]
    tells_K: list[list[int]]
    semaphores_R: list[int]


def write_mscclpp_json(schedule: Schedule, *, least_bytes: int = 0, most_bytes: int = (1 << 64) - 1,
                       channel_type: str = "memory") -> str:
    """The plan as JSON text. channel_type: memory (load and store) or port (a proxy and its network).

    Raises BadInput for what the loader cannot take.
    """
    if schedule.switch_count or schedule.root:
        raise BadInput(field="--emit", value="mscclpp-json", expected="ranks alone, and root 0",
                       remedy="Switches that add, and other roots, cannot be told in this format.")
    schedule = in_equal_chunks(schedule)
    block_K = _blocks(schedule)
    weft = _Weft(block_K=block_K, key_K=_keys(schedule, block_K), **_semaphores(schedule, block_K))
    slot, scratch = _landing(schedule)
    channels = sorted({key for key in weft.key_K if key})
    given, taken = spans(schedule)
    gpus = []
    for rank in range(schedule.rank_count):
        mine = [key for key in channels if rank in key[:2]]
        peers = [key[1] if key[0] == rank else key[0] for key in mine]
        memories: list[tuple[int, str]] = []
        blocks = _write_rank(schedule, rank, weft, mine, memories, slot, channel_type)
        gpus.append({
            "id": rank, "input_chunks": given, "output_chunks": taken, "scratch_chunks": scratch,
            "threadblocks": [_block_json(block, channel_type) for block in blocks],
            "channels": [{"channel_type": channel_type, "connected_to": peers}] if peers else [],
            "remote_buffers": [{"rank": peer, "type": letter, "access_channel_types": [channel_type]}
                               for peer, letter in memories],
            "semaphores": [{"init_value": 0}] * weft.semaphores_R[rank]})
    return json.dumps({
        "name": schedule.name.replace(" ", "_"), "collective": COLLECTIVES[schedule.operation], "protocol": "Simple",
        "inplace": schedule.in_place, "reuse_resources": False, "gpus": gpus, "num_threads_per_block": 1024,
        "use_double_scratch_buffer": False, "buffer_alignment": 16, "min_message_size": least_bytes,
        "max_message_size": most_bytes}) + "\n"


def _blocks(schedule: Schedule) -> list[int]:
    """Thread block of each step, numbered by rank: a lane, or the next part of one that is too long for a block."""
    steps = schedule.steps
    waits_K = np.diff(steps.after_first_K)
    told = np.zeros(len(steps), dtype=bool)
    told[steps.after_D] = True
    turns = np.asarray([_TURNS[kind] for kind in range(5)])[steps.kind_K] + 2 * (waits_K > 0) + 2 * told
    block_K, number, used, last = [], -1, 0, (-1, -1)
    for rank, lane, needed in zip(steps.rank_K.tolist(), steps.lane_K.tolist(), turns.tolist(), strict=True):
        # Four operations are kept for the semaphores between the parts of a lane.
        if (rank, lane) != last or used + needed > _MOST_OPERATIONS - 4:
            number, used = (number + 1 if rank == last[0] else 0), 0
        if number >= _MOST_BLOCKS:
            raise TooManySteps("mscclpp-json", f"at most {_MOST_BLOCKS} thread blocks of {_MOST_OPERATIONS} "
                               f"operations, but rank {rank} needs more")
        block_K.append(number)
        used, last = used + needed, (rank, lane)
    return block_K


def _keys(schedule: Schedule, block_K: Sequence[int]) -> list[tuple[int, ...]]:
    """Channel of each message: one for each channel of the schedule and pair of blocks, so that an end is one block's;
    nothing for other steps."""
    steps = schedule.steps
    key_K: list[tuple[int, ...]] = [()] * len(steps)
    for send, receive in zip(*(side.tolist() for side in message_pairs(schedule)), strict=True):
        key_K[send] = key_K[receive] = (int(steps.rank_K[send]), int(steps.rank_K[receive]),
                                        int(steps.channel_K[send]), block_K[send], block_K[receive])
    return key_K


def _semaphores(schedule: Schedule, block_K: Sequence[int]) -> dict[str, Any]:
    """One counting semaphore for each pair of a block that waits and one that is waited for.

    A wait for what the lane knows to be over already is dropped; those that stay then come in the order of what they
    wait for, so that counting is enough.
    """
    steps = schedule.steps
    waits: list[list[int]] = [[] for _ in block_K]
    tells: list[list[int]] = [[] for _ in block_K]
    numbers: list[dict[tuple[int, int], int]] = [{} for _ in range(schedule.rank_count)]
    known: dict[tuple[int, int, int], int] = {}
    rank_K, lane_K, first_K = steps.rank_K.tolist(), steps.lane_K.tolist(), steps.after_first_K.tolist()
    for step, (rank, lane) in enumerate(zip(rank_K, lane_K, strict=True)):
        needs = {wait for wait in steps.after_D[first_K[step]:first_K[step + 1]].tolist() if lane_K[wait] != lane}
        if step and (rank_K[step - 1], lane_K[step - 1]) == (rank, lane) and block_K[step - 1] != block_K[step]:
            needs.add(step - 1)
        latest: dict[int, int] = {}
        for wait in needs:
            latest[lane_K[wait]] = max(latest.get(lane_K[wait], -1), wait)
        for other, wait in sorted(latest.items()):
            if known.get((rank, lane, other), -1) < wait:
                known[(rank, lane, other)] = wait
                pair = block_K[step], block_K[wait]
                number = numbers[rank].setdefault(pair, len(numbers[rank]))
                waits[step].append(number)
                tells[wait].append(number)
    most = max((len(each) for each in (*waits, *tells)), default=0)
    if most > _MOST_SEMAPHORES:
        raise TooManySteps("mscclpp-json", f"steps that wait for, or free, at most {_MOST_SEMAPHORES} others, but one "
                           f"has {most}")
    return {"waits_K": waits, "tells_K": tells, "semaphores_R": [len(each) for each in numbers]}


def _landing(schedule: Schedule) -> tuple[dict[tuple[int, int], int], int]:
    """(where in scratch the messages to be added land, by rank and lane; chunks of scratch in all)."""
    steps = schedule.steps
    longest: dict[tuple[int, int], int] = {}
    for step in np.flatnonzero(steps.kind_K == RECEIVE_REDUCE).tolist():
        where = int(steps.rank_K[step]), int(steps.lane_K[step])
        longest[where] = max(longest.get(where, 0), int(steps.count_K[step]))
    slot, ends = {}, dict.fromkeys(range(schedule.rank_count), schedule.scratch_count)
    for (rank, lane), count in sorted(longest.items()):
        slot[(rank, lane)] = ends[rank]
        ends[rank] += count
    return slot, max(ends.values())


def _write_rank(schedule: Schedule, rank: int, weft: _Weft, channels: list[tuple[int, ...]],
                memories: list[tuple[int, str]], slot: dict[tuple[int, int], int], channel_type: str) -> list[_Block]:
    """The blocks of one chip, step by step; `memories` collects what they put into."""
    steps = schedule.steps
    sends, receives = message_pairs(schedule)
    partner = dict(zip(sends.tolist(), receives.tolist(), strict=True))
    blocks: list[_Block] = []
    first, end = steps.rank_K.searchsorted([rank, rank + 1]).tolist()
    for step in range(first, end):
        held: list[dict[str, Any]] = [{"name": "sem_acquire", "semaphore_ids": weft.waits_K[step]}, dict(_NOP)]
        held = held if weft.waits_K[step] else []
        if not blocks or weft.block_K[step] != blocks[-1].number:
            blocks.append(_Block(number=weft.block_K[step]))
        block = blocks[-1]
        kind, count, lane = (int(column[step]) for column in (steps.kind_K, steps.count_K, steps.lane_K))
        source, target = ({"type": _LETTERS[int(buffer[step])], "index": int(chunk[step]), "size": count} for
                          buffer, chunk in ((steps.source_buffer_K, steps.source_chunk_K),
                                            (steps.target_buffer_K, steps.target_chunk_K)))
        turn = {"channel_ids": [block.own(block.channels, channels.index(weft.key_K[step]))] if weft.key_K[step] else
                [], "channel_type": channel_type}
        landed = {"type": "s", "index": slot.get((rank, lane), 0), "size": count}
        if kind != RECEIVE_REDUCE or not block.operations:
            block.operations += held           # what is to be added lands in a place of its lane: only adding must
            held = []                          # wait, unless the lane comes from another block
        if kind == SEND:
            meets = partner[step]
            place = _remote(schedule, meets, slot)
            memory = (int(steps.rank_K[meets]), place.pop("type"))
            if memory not in memories:
                memories.append(memory)
            place = {"buffer_id": block.own(block.remote, memories.index(memory))} | place
            put = {"name": "put", "src_buff": [source], "dst_buff": [place], **turn}
            block.operations += [{"name": "wait", **turn}, dict(_NOP), put, dict(_NOP), {"name": "signal", **turn}]
            if channel_type == "port":            # what is put may be overwritten only when it has left
                block.operations.append({"name": "flush", **turn})
        elif kind in (RECEIVE, RECEIVE_REDUCE):
            block.meet()
            block.operations += [{"name": "signal", **turn}, {"name": "wait", **turn}, dict(_NOP)]
            if kind == RECEIVE_REDUCE:
                block.operations += [*held, {"name": "re", "src_buff": [source, landed], "dst_buff": [target],
                                      "reduce_op": "sum"}, dict(_NOP)]
        elif kind == COPY:
            block.operations += [{"name": "copy", "src_buff": [source], "dst_buff": [target]}, dict(_NOP)]
        else:
            block.operations += [{"name": "re", "src_buff": [target, source], "dst_buff": [target],
                                  "reduce_op": "sum"}, dict(_NOP)]
        if weft.tells_K[step]:
            block.meet()
            block.operations.append({"name": "sem_release", "semaphore_ids": weft.tells_K[step]})
    return blocks


def _remote(schedule: Schedule, receive: int, slot: dict[tuple[int, int], int]) -> dict[str, Any]:
    """Where a message lands: at its place, or in scratch when it is to be added."""
    steps, count = schedule.steps, int(schedule.steps.count_K[receive])
    if steps.kind_K[receive] == RECEIVE_REDUCE:
        return {"type": "s", "index": slot[(int(steps.rank_K[receive]), int(steps.lane_K[receive]))], "size": count}
    return {"type": _LETTERS[int(steps.target_buffer_K[receive])], "index": int(steps.target_chunk_K[receive]),
            "size": count}


def _block_json(block: _Block, channel_type: str) -> dict[str, Any]:
    assert len(block.operations) <= _MOST_OPERATIONS, "lanes are cut into blocks that the loader takes"
    if len(block.channels) > _MOST_CHANNELS or len(block.remote) > _MOST_CHANNELS:
        raise BadInput(field="--emit", value="mscclpp-json", expected=f"lanes that speak with at most "
                       f"{_MOST_CHANNELS} others", remedy="Choose an algorithm with fewer peers in a lane.")
    return {"id": block.number, "ops": block.operations,
            "channels": [{"channel_type": channel_type, "channel_ids": block.channels}] if block.channels else [],
            "remote_buffer_refs": [{"access_channel_type": channel_type, "remote_buffer_ids": block.remote}]
            if block.remote else []}
