"""An MSCCL++ execution plan as a schedule of messages, so that the one verifier proves it.

What a block does to its own memory is a step of its lane. What it does to another's is done there by a hand, a lane of
the other rank that serves this block alone: a put is a message that the hand keeps and answers, a get a request that
the hand answers with the data. A signal does not wait for the other side: a courier carries it. So a write that nothing
keeps from running early or late is found as the race that it is. Semaphores and barriers are waits between lanes.

Read are plans of the Simple protocol over memory and port channels, as the language of the library and ours write
them; packets, switch channels, pipelines and grouped blocks are refused by name. Signals, requests and answers carry a
chunk of scratch with nothing in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serried.emit.mscclpp_json import COLLECTIVES
from serried.errors import BadInput
from serried.weave import Schedule
from serried.weave.schedule_file import MOST_CHUNKS, MOST_RANKS, MOST_SLOTS, MOST_STEPS, StepTable
from serried.weave.spec import COPY, RECEIVE, RECEIVE_REDUCE, REDUCE, SEND

__all__ = ["schedule_of_mscclpp"]

Place = tuple[int, int]                      # rank, lane
Slot = tuple[int, int]                       # buffer, chunk
_BUFFERS = {"i": 0, "o": 1, "s": 2}
_MOST_BLOCKS = 4096
_REFUSED = {"pipeline": "pipelines", "glres": "switch channels", "gstore": "switch channels",
            **dict.fromkeys(("ppkt", "rppkt", "respkt", "cpkt", "upkt", "repkt", "recpkt", "recspkt"), "packets")}


@dataclass(slots=True, kw_only=True)
class _Plan:
    """The steps found so far, by lane; ids of channels between ranks; what signals, releases and barriers met."""

    file: str
    rank_count: int
    blank: Slot = (2, 0)                    # scratch in which nothing ever is
    steps: dict[Place, list[dict[str, Any]]] = field(default_factory=dict)
    lanes_R: dict[int, int] = field(default_factory=dict)
    hands: dict[tuple[Any, ...], Place] = field(default_factory=dict)
    channels: dict[tuple[Any, ...], int] = field(default_factory=dict)
    releases: dict[tuple[int, int], list[Slot]] = field(default_factory=dict)
    acquires: dict[tuple[int, int], list[tuple[Place, int]]] = field(default_factory=dict)
    barriers: dict[tuple[int, int], dict[int, list[int]]] = field(default_factory=dict)
    free_S: dict[tuple[int, int], int] = field(default_factory=dict)     # by chip and semaphore: what it begins with

    def add(self, place: Place, kind: int, **told: Any) -> int:
        """Append a step to a lane and return its order there."""
        lane = self.steps.setdefault(place, [])
        lane.append({"kind": kind, "after": []} | told)
        return len(lane) - 1

    def lane(self, name: tuple[Any, ...], rank: int) -> Place:
        """The lane of a rank that goes by this name, made when first asked for."""
        if name not in self.hands:
            self.hands[name] = rank, self.lanes_R[rank]
            self.lanes_R[rank] += 1
        return self.hands[name]

    def channel(self, *name: Any) -> int:
        """Number of the channel that goes by this name."""
        return self.channels.setdefault(name, len(self.channels))

    def message(self, sender: Place, source: Slot, receiver: Place, target: Slot, name: tuple[Any, ...], *,
                count: int = 1, operand: Slot | None = None) -> None:
        """A send and its receive, on a channel of their own."""
        number = self.channel(*name)
        self.add(sender, SEND, peer=receiver[0], channel=number, source=source, count=count)
        told = {"peer": sender[0], "channel": number, "target": target, "count": count}
        if operand is None:
            self.add(receiver, RECEIVE, **told)
        else:
            self.add(receiver, RECEIVE_REDUCE, source=operand, **told)

    def mark(self, place: Place) -> int:
        """A step that does nothing but can be waited for."""
        return self.add(place, COPY, source=self.blank, target=self.slot(place))

    def slot(self, place: Place) -> Slot:
        """Where a lane puts what carries no data."""
        return 2, self.blank[1] + 1 + place[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Where an operation stands: its block's channels as (type, number on the chip), memories as (type, rank,
    buffer)."""

    place: Place
    channels: Mapping[str, list[int]]
    remote: Mapping[str, list[tuple[int, int]]]
    pairs: Mapping[tuple[str, int], list[tuple[int, int]]]     # (type, rank): peer and which of the pair, by number


def schedule_of_mscclpp(told: Any, *, file: str = "") -> Schedule:
    """The plan in parsed JSON; not yet verified. Raises BadInput with the chip, block and operation."""
    plan = _object(told, "the plan", file)
    words = {word: operation for operation, word in COLLECTIVES.items()}
    if plan.get("collective") not in words:
        raise BadInput(file=file, field="collective", value=plan.get("collective"),
                       expected=f"one of {', '.join(words)}", remedy="Correct the word.")
    if plan.get("protocol") != "Simple":
        raise BadInput(file=file, field="protocol", value=plan.get("protocol"), expected="Simple",
                       remedy="Plans of packets are not read.")
    if not isinstance(plan.get("inplace"), bool):
        raise BadInput(file=file, field="inplace", value=plan.get("inplace"), expected="true or false",
                       remedy="The loader wants it.")
    gpus = _list(plan, "gpus", "the plan", file)
    if not 1 <= len(gpus) <= MOST_RANKS or [_object(gpu, "gpus", file).get("id") for gpu in gpus] != list(
            range(len(gpus))):
        raise BadInput(file=file, field="gpus, id", value=len(gpus), expected="0, 1, 2, ... in order",
                       remedy="Number the chips.")
    chunks, scratch = _chunks(gpus, words[plan["collective"]], file)
    found = _Plan(file=file, rank_count=len(gpus), blank=(2, scratch))
    blocks = [_read_chip(found, gpu, rank, _pairs(gpus, file)) for rank, gpu in enumerate(gpus)]
    lanes = max(found.lanes_R.values())
    if (2 * chunks + scratch + 1 + lanes) * len(gpus) > MOST_SLOTS:
        raise BadInput(file=file, field="input_chunks", value=chunks, expected="fewer chunks for so many ranks",
                       remedy=f"Ranks x chunks may be {MOST_SLOTS:,} at most.")
    for rank, gpu in enumerate(gpus):
        for block, read in zip(_list(gpu, "threadblocks", f"gpu {rank}", file), blocks[rank], strict=True):
            for order, operation in enumerate(_list(block, "ops", f"gpu {rank}, threadblock {read.place[1]}", file)):
                _read_operation(found, read, operation, f"gpu {rank}, threadblock {read.place[1]}, operation {order}")
    lanes = max(found.lanes_R.values())
    _tie(found)
    return Schedule(name=str(plan.get("name", ""))[:200], operation=words[plan["collective"]], rank_count=len(gpus),
                    chunk_weight_C=np.ones(chunks, dtype=np.int64), steps=_table(found).steps(file=file),
                    in_place=plan["inplace"], scratch_count=scratch + 1 + lanes)


def _chunks(gpus: list[Any], operation: str, file: str) -> tuple[int, int]:
    """(chunks of the whole buffer, chunks of scratch)."""
    ranks = len(gpus)
    counts = {name: [_whole(gpu, name, f"gpu {rank}", file, most=MOST_CHUNKS) for rank, gpu in enumerate(gpus)]
              for name in ("input_chunks", "output_chunks", "scratch_chunks")}
    whole = counts["output_chunks" if operation == "all_gather" else "input_chunks"][0]
    wanted = {"input_chunks": whole // ranks if operation == "all_gather" else whole,
              "output_chunks": whole // ranks if operation == "reduce_scatter" else whole}
    for name, number in wanted.items():
        for rank, given in enumerate(counts[name]):
            if given != number or not number:
                raise BadInput(file=file, field=f"gpu {rank}, {name}", value=given,
                               expected=f"{number or 'some'} for {operation} on {ranks} ranks",
                               remedy="Correct the number of chunks, or the number of chips.")
    return whole, max(counts["scratch_chunks"])


def _pairs(gpus: list[Any], file: str) -> dict[tuple[str, int], list[tuple[int, int]]]:
    """(type, rank) -> for each channel of the chip its peer, and which of the channels between the two it is."""
    found: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for rank, gpu in enumerate(gpus):
        for told in _list(gpu, "channels", f"gpu {rank}", file):
            channel = _object(told, f"gpu {rank}, channels", file)
            kind = channel.get("channel_type", channel.get("type"))
            if kind not in ("memory", "port"):
                raise BadInput(file=file, field=f"gpu {rank}, channels, channel_type", value=kind,
                               expected="memory or port", remedy="Channels through switches are not read.")
            listed = found.setdefault((kind, rank), [])
            for peer in _list(channel, "connected_to", f"gpu {rank}, channels", file):
                if not isinstance(peer, int) or not 0 <= peer < len(gpus) or peer == rank:
                    raise BadInput(file=file, field=f"gpu {rank}, channels, connected_to", value=peer,
                                   expected=f"another of the {len(gpus)} chips", remedy="Correct the peer.")
                listed.append((peer, sum(other == peer for other, _ in listed)))
    return found


def _read_chip(plan: _Plan, gpu: Any, rank: int, pairs: Mapping[tuple[str, int], list[tuple[int, int]]]
               ) -> list[_Block]:
    """The blocks of a chip, and what each calls channel 0, 1, ... and memory 0, 1, ..."""
    where = f"gpu {rank}"
    memories = []
    for told in _list(gpu, "remote_buffers", where, plan.file):
        memory = _object(told, f"{where}, remote_buffers", plan.file)
        if memory.get("type") not in _BUFFERS:
            raise BadInput(file=plan.file, field=f"{where}, remote_buffers, type", value=memory.get("type"),
                           expected="i, o or s", remedy="Correct the letter.")
        memories.append((_whole(memory, "rank", f"{where}, remote_buffers", plan.file, most=plan.rank_count - 1),
                         _BUFFERS[memory["type"]]))
    told_blocks = _list(gpu, "threadblocks", where, plan.file)
    if len(told_blocks) > _MOST_BLOCKS or [_object(block, where, plan.file).get("id") for block in told_blocks] != list(
            range(len(told_blocks))):
        raise BadInput(file=plan.file, field=f"{where}, threadblocks, id", value=len(told_blocks),
                       expected="0, 1, 2, ... in order", remedy="Number the blocks.")
    plan.lanes_R[rank] = len(told_blocks)
    for number, told in enumerate(gpu.get("semaphores", [])):
        plan.free_S[(rank, number)] = _whole(_object(told, f"{where}, semaphores", plan.file), "init_value",
                                             f"{where}, semaphore {number}", plan.file, most=MOST_STEPS)
    blocks = []
    for number, block in enumerate(told_blocks):
        place = f"{where}, threadblock {number}"
        channels, remote = ({} for _ in range(2))
        for told in _list(block, "channels", place, plan.file):
            kind = told.get("channel_type", told.get("type"))
            channels[kind] = [_within(each, len(pairs.get((kind, rank), ())), f"{place}, channel_ids", plan.file)
                              for each in _list(told, "channel_ids", place, plan.file)]
        for told in block.get("remote_buffer_refs", []):
            remote[told.get("access_channel_type")] = [
                memories[_within(each, len(memories), f"{place}, remote_buffer_ids", plan.file)]
                for each in _list(told, "remote_buffer_ids", place, plan.file)]
        blocks.append(_Block(place=(rank, number), channels=channels, remote=remote, pairs=pairs))
    return blocks


def _read_operation(plan: _Plan, block: _Block, told: Any, where: str) -> None:
    """One operation as steps."""
    operation = _object(told, where, plan.file)
    name = str(operation.get("name"))
    if name in _REFUSED or "tbg_info" in operation:
        raise BadInput(file=plan.file, field=where, value=name, expected="one of the operations that are read",
                       remedy=f"Plans with {_REFUSED.get(name, 'grouped blocks')} are not.")
    if name not in _READERS:
        raise BadInput(file=plan.file, field=f"{where}, name", value=name, expected=f"one of {', '.join(_READERS)}",
                       remedy="Correct the word.")
    if sum(map(len, plan.steps.values())) > MOST_STEPS:
        raise BadInput(file=plan.file, field=where, value=MOST_STEPS, expected="fewer steps",
                       remedy="Use fewer chunks.")
    _READERS[name](plan, block, operation, where)


def _ends(plan: _Plan, block: _Block, operation: Mapping[str, Any], side: str, where: str
          ) -> list[tuple[int, Slot, int]]:
    """The spans on one side of an operation: whose memory (the chip's own, or another rank's), slot, chunks."""
    found = []
    for each in _list(operation, side, where, plan.file):
        end = _object(each, f"{where}, {side}", plan.file)
        rank, buffer = block.place[0], _BUFFERS.get(end.get("type", ""), -1)
        if "buffer_id" in end:
            known = block.remote.get(operation.get("channel_type", ""), [])
            rank, buffer = known[_within(end["buffer_id"], len(known), f"{where}, {side}, buffer_id", plan.file)]
        if buffer < 0:
            raise BadInput(file=plan.file, field=f"{where}, {side}", value=end.get("type"),
                           expected="a type (i, o or s) or a buffer_id", remedy="Say whose memory it is.")
        found.append((rank, (buffer, _whole(end, "index", f"{where}, {side}", plan.file, most=MOST_CHUNKS)),
                      _whole(end, "size", f"{where}, {side}", plan.file, most=MOST_CHUNKS, least=1)))
    if not found or len({count for *_, count in found}) > 1:
        raise BadInput(file=plan.file, field=f"{where}, {side}", value=len(found), expected="spans of one size",
                       remedy="Correct index and size.")
    return found


def _peers(plan: _Plan, block: _Block, operation: Mapping[str, Any], where: str) -> list[tuple[str, int, int]]:
    """The channels of an operation as (type, peer, which of the pair)."""
    kind = operation.get("channel_type")
    known = block.channels.get(str(kind), [])
    pairs = block.pairs.get((str(kind), block.place[0]), [])
    return [(str(kind), *pairs[known[_within(each, len(known), f"{where}, channel_ids", plan.file)]])
            for each in _list(operation, "channel_ids", where, plan.file)]


def _copy(plan: _Plan, block: _Block, operation: Mapping[str, Any], where: str) -> None:
    ((_, source, count), *_), ((_, target, _), *_) = (_ends(plan, block, operation, side, where)
                                                      for side in ("src_buff", "dst_buff"))
    plan.add(block.place, COPY, source=source, target=target, count=count)


def _hand(plan: _Plan, block: _Block, rank: int) -> Place:
    return plan.lane(("hand", rank, block.place), rank)


def _put_at(plan: _Plan, block: _Block, source: Slot, rank: int, target: Slot, count: int) -> None:
    """What is put is there when the next operation begins: the hand answers."""
    hand, name = _hand(plan, block, rank), (block.place, rank)
    plan.message(block.place, source, hand, target, ("put", *name), count=count)
    plan.message(hand, plan.blank, block.place, plan.slot(block.place), ("put, answer", *name))


def _put(plan: _Plan, block: _Block, operation: Mapping[str, Any], where: str) -> None:
    sources, targets = (_ends(plan, block, operation, side, where) for side in ("src_buff", "dst_buff"))
    for index, (rank, target, count) in enumerate(targets):
        _put_at(plan, block, sources[min(index, len(sources) - 1)][1], rank, target, count)
    if operation["name"] in ("pws", "pwsf"):
        _signal(plan, block, operation, where)


def _fetch(plan: _Plan, block: _Block, rank: int, source: Slot, target: Slot, count: int,
           operand: Slot | None = None) -> None:
    """A request, and what the hand answers, kept or added."""
    hand, name = _hand(plan, block, rank), (block.place, rank)
    plan.message(block.place, plan.blank, hand, plan.slot(hand), ("get", *name))
    plan.message(hand, source, block.place, target, ("get, answer", *name), count=count, operand=operand)


def _get(plan: _Plan, block: _Block, operation: Mapping[str, Any], where: str) -> None:
    sources, targets = (_ends(plan, block, operation, side, where) for side in ("src_buff", "dst_buff"))
    for (rank, source, count), (_, target, _) in zip(sources, targets, strict=False):
        _fetch(plan, block, rank, source, target, count)


def _reduce(plan: _Plan, block: _Block, operation: Mapping[str, Any], where: str) -> None:
    """re, rre: first target = the sum of all sources; res, rres: and further targets on other chips get it too."""
    sources, targets = (_ends(plan, block, operation, side, where) for side in ("src_buff", "dst_buff"))
    if operation.get("reduce_op", "sum") != "sum":
        raise BadInput(file=plan.file, field=f"{where}, reduce_op", value=operation["reduce_op"], expected="sum",
                       remedy="Other reductions are not proven.")
    (_, target, count), own = targets[0], block.place[0]
    # A source that is the target comes first: nothing is overwritten before it has been added.
    sources = sorted(sources, key=lambda end: (end[0], end[1]) != (own, target))
    first, *others = sources
    if first[1] != target or first[0] != own:
        plan.add(block.place, COPY, source=first[1], target=target, count=count)
    for rank, source, _ in others:
        if rank == own:
            plan.add(block.place, REDUCE, source=source, target=target, count=count)
        else:
            _fetch(plan, block, rank, source, target, count, operand=target)
    for rank, place, _ in targets[1:]:
        _put_at(plan, block, target, rank, place, count)


def _signal(plan: _Plan, block: _Block, operation: Mapping[str, Any], where: str) -> None:
    for kind, peer, which in _peers(plan, block, operation, where):
        name = ("signal", kind, block.place[0], peer, which)
        told = plan.mark(block.place)
        courier = plan.lane(("courier", *name), block.place[0])
        order = plan.add(courier, SEND, peer=peer, channel=plan.channel(*name), source=plan.blank)
        plan.steps[courier][order]["after"].append((block.place[1], told))


def _wait(plan: _Plan, block: _Block, operation: Mapping[str, Any], where: str) -> None:
    for kind, peer, which in _peers(plan, block, operation, where):
        plan.add(block.place, RECEIVE, peer=peer, channel=plan.channel("signal", kind, peer, block.place[0], which),
                 target=plan.slot(block.place))


def _semaphores(plan: _Plan, block: _Block, operation: Mapping[str, Any], where: str) -> list[int]:
    declared = sum(rank == block.place[0] for rank, _ in plan.free_S)
    return [_within(each, declared, f"{where}, semaphore_ids", plan.file)
            for each in _list(operation, "semaphore_ids", where, plan.file)]


def _release(plan: _Plan, block: _Block, operation: Mapping[str, Any], where: str) -> None:
    for each in _semaphores(plan, block, operation, where):
        listed = plan.releases.setdefault((block.place[0], each), [])
        if listed and listed[0][0] != block.place[1]:
            raise BadInput(file=plan.file, field=f"{where}, semaphore_ids", value=each,
                           expected="a semaphore that one block releases", remedy="Use one for each block.")
        listed.append((block.place[1], plan.mark(block.place)))


def _acquire(plan: _Plan, block: _Block, operation: Mapping[str, Any], where: str) -> None:
    for each in _semaphores(plan, block, operation, where):
        listed = plan.acquires.setdefault((block.place[0], each), [])
        if listed and listed[0][0] != block.place:
            raise BadInput(file=plan.file, field=f"{where}, semaphore_ids", value=each,
                           expected="a semaphore that one block acquires", remedy="Use one for each block.")
        listed.append((block.place, plan.mark(block.place)))


def _barrier(plan: _Plan, block: _Block, operation: Mapping[str, Any], where: str) -> None:
    number = _whole(operation, "barrier_id", where, plan.file, most=1 << 16)
    met = plan.barriers.setdefault((block.place[0], number), {})
    _whole(operation, "num_threadblocks", where, plan.file, most=_MOST_BLOCKS, least=1)
    met.setdefault(block.place[1], []).append(plan.mark(block.place))
    plan.mark(block.place)                  # what comes after stands behind this one


def _nothing(plan: _Plan, block: _Block, operation: Mapping[str, Any], where: str) -> None:
    """Threads of a block meet, or a proxy has caught up: puts are done when they are told here."""


_READERS: Mapping[str, Callable[[_Plan, _Block, Mapping[str, Any], str], None]] = {
    "nop": _nothing, "flush": _nothing, "copy": _copy, "put": _put, "pws": _put, "pwsf": _put, "get": _get,
    "re": _reduce, "rre": _reduce, "res": _reduce, "rres": _reduce, "signal": _signal, "rlxsignal": _signal,
    "wait": _wait, "rlxwait": _wait, "sem_release": _release, "sem_acquire": _acquire, "barrier": _barrier}


def _tie(plan: _Plan) -> None:
    """Semaphores and barriers as waits: the n-th acquire for the n-th release, every block for all at a barrier."""
    for (rank, number), taken in plan.acquires.items():
        given, free = plan.releases.get((rank, number), []), plan.free_S[(rank, number)]
        for order, (place, step) in enumerate(taken[free:]):
            if order >= len(given):
                raise BadInput(file=plan.file, field=f"gpu {rank}, threadblock {place[1]}, semaphore {number}",
                               value=free + order + 1, expected=f"at most {free + len(given)} acquires, as it is "
                               "released no more often: deadlock", remedy="Release it once for each acquire.")
            plan.steps[place][step]["after"].append(given[order])
    for (rank, number), met in plan.barriers.items():
        if len({len(marks) for marks in met.values()}) > 1:
            raise BadInput(file=plan.file, field=f"gpu {rank}, barrier {number}", value=sorted(met),
                           expected="blocks that come to it equally often: deadlock", remedy="Correct the barriers.")
        for lane, marks in met.items():
            for turn, mark in enumerate(marks):
                plan.steps[(rank, lane)][mark + 1]["after"] += [(other, listed[turn]) for other, listed in met.items()
                                                                if other != lane]


def _table(plan: _Plan) -> StepTable:
    table = StepTable()
    for (rank, lane), steps in sorted(plan.steps.items()):
        for step in steps:
            table.add(rank, lane, step.pop("kind"), **step)
    return table


def _object(told: Any, where: str, file: str) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise BadInput(file=file, field=where, value=str(told)[:60], expected="an object", remedy="Correct the plan.")
    return told


def _list(told: Any, name: str, where: str, file: str) -> list[Any]:
    value = _object(told, where, file).get(name)
    if not isinstance(value, list):
        raise BadInput(file=file, field=f"{where}, {name}", value=None if value is None else str(value)[:60],
                       expected="a list", remedy="Add what is missing.")
    return value


def _whole(told: Mapping[str, Any], name: str, where: str, file: str, *, most: int, least: int = 0) -> int:
    value = told.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadInput(file=file, field=f"{where}, {name}", value=value if isinstance(value, (int, type(None))) else
                       str(value)[:60], expected=f"a whole number from {least} to {most:,}", remedy="Correct it.")
    return value


def _within(value: Any, count: int, where: str, file: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < count:
        raise BadInput(file=file, field=where, value=str(value)[:60], expected=f"one of the {count} that are declared",
                       remedy="Declare it, or correct the number.")
    return value
