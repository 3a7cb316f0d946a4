"""A schedule as a Chakra execution trace, and back: one file a rank, `NAME.RANK.et`, messages behind their lengths.

Fields after schema/protobuf/et_def.proto of mlcommons/chakra at 6dc63e1 (GlobalMetadata, then Nodes); attributes as its
feeder reads them (comm_size int64; comm_src, comm_dst, comm_tag int32; is_cpu_op bool). Sends and receives are what
other simulators replay; which chunk is added to which stands in further attributes, `serried_*`, that they pass over,
so that our own traces are proven in full. A trace without them is traffic and order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from serried.emit.protobuf_wire import Field, Malformed, delimited, encoded, fields, packed, signed, split, unpacked
from serried.emit.traffic import Task, check_traffic
from serried.errors import BadInput
from serried.weave import OPERATIONS, Schedule
from serried.weave.legality import message_pairs
from serried.weave.schedule_file import MOST_CHUNKS, MOST_RANKS, MOST_SLOTS, MOST_STEPS, StepTable
from serried.weave.spec import KINDS, RECEIVE_REDUCE, SEND
from serried.weave.timing import message_bytes_K

__all__ = ["read_chakra", "write_chakra"]

_VERSION = b"0.0.4"
_COMPUTES, _SENDS, _RECEIVES, _WHOLE = 4, 5, 6, 7       # NodeType
_NODE = {"id": 1, "name": 2, "type": 3, "ctrl_deps": 4, "data_deps": 5, "attr": 10}
_VALUE = {"int32": 7, "int64": 9, "int64_list": 10, "bool": 27, "string": 29}
_FRAME = ("rank_count", "switch_count", "root", "in_place", "scratch_count")
_STEP = "serried_step"     # lane, kind, source buffer and chunk, target buffer and chunk, count
_MOST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    identity: int
    kind: int
    after: tuple[int, ...]
    attributes: Mapping[str, object]
    place: str


def write_chakra(schedule: Schedule, payload_bytes: float) -> dict[str, bytes]:
    """Ending -> bytes, a file for each rank, for a whole buffer of payload_bytes. A node is numbered by its step."""
    steps = schedule.steps
    length_K = message_bytes_K(schedule, payload_bytes).round().astype(int)
    sends, receives = message_pairs(schedule)
    length_K[receives] = length_K[sends]
    ranks = schedule.rank_count + schedule.switch_count
    frame = [("serried_operation", "string", schedule.operation), ("serried_name", "string", schedule.name),
             ("serried_frame", "int64_list", [int(getattr(schedule, name)) for name in _FRAME]),
             ("serried_chunk_weights", "int64_list", schedule.chunk_weight_C.tolist())]
    told = np.stack([steps.lane_K, steps.kind_K, steps.source_buffer_K, steps.source_chunk_K, steps.target_buffer_K,
                     steps.target_chunk_K, steps.count_K], axis=1).tolist()
    files = {}
    for rank, (first, end) in enumerate(pairwise(steps.rank_K.searchsorted(range(ranks + 1)).tolist())):
        messages = [encoded([(1, _VERSION), *((2, _attribute(*each)) for each in frame)])]
        for step in range(first, end):
            kind, peer = int(steps.kind_K[step]), int(steps.peer_K[step])
            waits = set(steps.after_D[steps.after_first_K[step]:steps.after_first_K[step + 1]].tolist())
            if step > first and steps.lane_K[step - 1] == steps.lane_K[step]:
                waits.add(step - 1)
            attributes: list[tuple[str, str, object]] = [("is_cpu_op", "bool", False), (_STEP, "int64_list",
                                                                                         told[step])]
            if kind <= RECEIVE_REDUCE:
                source, target = (rank, peer) if kind == SEND else (peer, rank)
                attributes += [("comm_size", "int64", int(length_K[step])), ("comm_src", "int32", source),
                               ("comm_dst", "int32", target), ("comm_tag", "int32", int(steps.channel_K[step]))]
            node_type = _SENDS if kind == SEND else _RECEIVES if kind <= RECEIVE_REDUCE else _COMPUTES
            messages.append(encoded([
                (_NODE["id"], step), (_NODE["name"], f"{KINDS[kind]} {step}".encode()), (_NODE["type"], node_type),
                (_NODE["data_deps"], packed(sorted(waits))),
                *((_NODE["attr"], _attribute(*each)) for each in attributes)]))
        files[f".{rank}.et"] = delimited(messages)
    return files


def _attribute(name: str, kind: str, value: object) -> bytes:
    told: Field
    if isinstance(value, list):
        told = (_VALUE[kind], encoded([(1, packed(value))]))
    elif isinstance(value, str):
        told = (_VALUE[kind], value.encode())
    else:
        assert isinstance(value, int), "an attribute is a number, a list of them or a word"
        told = (_VALUE[kind], value)
    return encoded([(1, name.encode()), told])


def read_chakra(path: Path) -> Schedule | list[Task]:
    """All ranks of a trace, from the file of any of them: a schedule if it says what is added to what, else traffic.

    A schedule is not yet verified; traffic is. Raises BadInput with the file, the node and the reason.
    """
    ranks = _siblings(path)
    traces = [list(_nodes(each)) for each in ranks]
    frame = traces[0][0].attributes if traces[0] else {}
    nodes = [trace[1:] for trace in traces]
    if sum(map(len, nodes)) > MOST_STEPS:
        raise BadInput(file=str(path), field="nodes", value=sum(map(len, nodes)), expected=f"at most {MOST_STEPS:,}",
                       remedy="Verify a shorter trace.")
    if "serried_frame" in frame and all(_STEP in node.attributes for trace in nodes for node in trace):
        return _schedule(frame, nodes, str(path))
    tasks = [_task(rank, node, str(ranks[rank])) for rank, trace in enumerate(nodes) for node in trace]
    check_traffic(tasks, file=str(path))
    return tasks


def _siblings(path: Path) -> list[Path]:
    """The files of all ranks, in order."""
    name, _, number = path.name.removesuffix(".et").rpartition(".")
    if not path.name.endswith(".et") or not number.isdecimal() or not name:
        raise BadInput(field=str(path), value=path.name, expected="a trace NAME.RANK.et", remedy="Name it like that.")
    found = {}
    for each in path.parent.glob("*.et"):
        other, _, rank = each.name.removesuffix(".et").rpartition(".")
        if other == name and rank.isdecimal():
            found[int(rank)] = each
    if sorted(found) != list(range(len(found))) or len(found) > MOST_RANKS or not found:
        raise BadInput(file=str(path), field="ranks", value=len(found), expected="a file for each rank from 0 on",
                       remedy=f"Put {name}.0.et, {name}.1.et, ... in one folder.")
    return [found[rank] for rank in range(len(found))]


def _nodes(path: Path) -> Iterator[_Node]:
    """The metadata as a first node, then the nodes of one file."""
    begin = 0
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise Malformed(0, f"more than {_MOST_BYTES:,} bytes")
        for order, (offset, message) in enumerate(split(path.read_bytes())):
            begin = offset                 # of the message in which an error stands
            told = fields(message)
            texts = [value for number, value in told if number == (_NODE["attr"] if order else 2)]
            attributes = dict(_value(text) for text in texts if isinstance(text, bytes))
            known = {number: value for number, value in told if isinstance(value, int)}
            after = [wait for number, value in told if order and number in (_NODE["ctrl_deps"], _NODE["data_deps"])
                     for wait in unpacked(value)]
            yield _Node(identity=known.get(_NODE["id"], 0), kind=known.get(_NODE["type"], 0), after=tuple(after),
                        attributes=attributes, place=f"node {known.get(_NODE['id'], 0)}")
    except Malformed as error:
        raise BadInput(file=str(path), field=f"byte {begin + error.offset}", value=str(error),
                       expected="messages of a Chakra trace, each behind its length",
                       remedy="Write the trace again.") from None
    except OSError as error:
        raise BadInput(field=str(path), value=error.strerror, expected="a file that can be read",
                       remedy="Correct the path.") from None


def _value(text: bytes) -> tuple[str, object]:
    """Name and value of an attribute; of kinds that no one here asks for, None."""
    name = ""
    found: object = None
    for number, value in fields(text):
        if number == 1 and isinstance(value, bytes):
            name = value.decode(errors="replace")
        elif isinstance(value, int):
            found = signed(value)
        elif number == _VALUE["string"]:
            found = value.decode(errors="replace")
        elif number == _VALUE["int64_list"]:
            found = [signed(each) for number, part in fields(value) if number == 1 for each in unpacked(part)]
    return name, found


def _whole(node: _Node, name: str, file: str, *, most: int, least: int = 0) -> int:
    value = node.attributes.get(name)
    if not isinstance(value, int) or not least <= value <= most:
        raise BadInput(file=file, field=f"{node.place}, {name}", value=value,
                       expected=f"a whole number from {least} to {most:,}", remedy="Correct the attribute.")
    return value


def _task(rank: int, node: _Node, file: str) -> Task:
    if node.kind == _WHOLE:
        raise BadInput(file=file, field=node.place, value="COMM_COLL_NODE", expected="sends and receives",
                       remedy="A whole collective does not say how it is done: nothing is there to prove.")
    if node.kind not in (_SENDS, _RECEIVES):
        return Task(rank=rank, label=node.identity, kind="calc", requires=node.after)
    sends = node.kind == _SENDS
    return Task(rank=rank, label=node.identity, kind="send" if sends else "recv", requires=node.after,
                payload_bytes=_whole(node, "comm_size", file, most=1 << 62),
                peer=_whole(node, "comm_dst" if sends else "comm_src", file, most=MOST_RANKS),
                tag=_whole(node, "comm_tag", file, most=1 << 31))


def _schedule(frame: Mapping[str, object], nodes: list[list[_Node]], file: str) -> Schedule:
    """Our own trace, with what each step does to which chunk."""
    numbers, weights, operation = (frame.get(f"serried_{name}") for name in ("frame", "chunk_weights", "operation"))
    if (not isinstance(numbers, list) or len(numbers) != len(_FRAME) or min(numbers) < 0
            or not isinstance(weights, list) or not 0 < len(weights) <= MOST_CHUNKS or min(weights) < 1
            or operation not in OPERATIONS):
        raise BadInput(file=file, field="metadata, serried_frame", value=[operation, numbers],
                       expected=f"an operation, chunk weights and {', '.join(_FRAME)}",
                       remedy="Write the trace again.")
    told = dict(zip(_FRAME, numbers, strict=True))
    ranks = told["rank_count"] + told["switch_count"]
    if ranks != len(nodes) or (2 * len(weights) + told["scratch_count"]) * ranks > MOST_SLOTS:
        raise BadInput(file=file, field="metadata, rank_count", value=ranks, expected=f"as many as there are files "
                       f"({len(nodes)}), and fewer than {MOST_SLOTS:,} chunks over all", remedy="Add what is missing.")
    table = StepTable()
    for rank, trace in enumerate(nodes):
        _steps(table, rank, trace, file)
    return Schedule(name=str(frame.get("serried_name") or "")[:200], operation=operation,
                    chunk_weight_C=np.asarray(weights, dtype=np.int64), steps=table.steps(file=file),
                    **told | {"in_place": bool(told["in_place"])})


def _steps(table: StepTable, rank: int, trace: list[_Node], file: str) -> None:
    """The nodes of a rank as steps, lane by lane; a wait for the step before in its own lane says nothing new."""
    told: dict[int, list[int]] = {}
    place: dict[int, tuple[int, int]] = {}
    length: dict[int, int] = {}
    for node in trace:
        step = node.attributes[_STEP]
        if not isinstance(step, list) or len(step) != 7 or not 0 <= step[0] < MOST_STEPS or step[1] not in range(5):
            raise BadInput(file=file, field=f"rank {rank}, {node.place}, {_STEP}", value=step,
                           expected="lane, kind, source, target and count", remedy="Write the trace again.")
        told[node.identity] = step
        place[node.identity] = step[0], length.get(step[0], 0)
        length[step[0]] = length.get(step[0], 0) + 1
    for node in sorted(trace, key=lambda each: place[each.identity]):
        lane, kind, *ends, count = told[node.identity]
        unknown = [wait for wait in node.after if wait not in place]
        if unknown:
            raise BadInput(file=file, field=f"rank {rank}, {node.place}, data_deps", value=unknown[0],
                           expected="nodes of the same rank", remedy="Correct what it waits for.")
        peer = channel = -1
        if kind <= RECEIVE_REDUCE:
            peer = _whole(node, "comm_dst" if kind == SEND else "comm_src", file, most=MOST_RANKS)
            channel = _whole(node, "comm_tag", file, most=1 << 31)
        table.add(rank, lane, kind, peer=peer, channel=channel, source=(ends[0], ends[1]), target=(ends[2], ends[3]),
                  count=count, after=[place[wait] for wait in node.after if place[wait][0] != lane])
