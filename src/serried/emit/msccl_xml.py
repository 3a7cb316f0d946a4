"""A schedule as MSCCL XML, and back: thread blocks are lanes, dependencies are on one earlier step each.

The loader wants minBytes, maxBytes and outofplace, at most 256 steps in a block, and one peer to send to and one to
receive from per block. Further dependencies stand on steps of type nop before the one that waits. Fused steps (rcs,
rrs, rrcs) are read as the receive and the send that they are.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from serried.emit.limits import TooManySteps
from serried.errors import BadInput
from serried.weave import Schedule
from serried.weave.schedule_file import MOST_CHUNKS, MOST_RANKS, MOST_SLOTS, MOST_STEPS, StepTable
from serried.weave.spec import COPY, RECEIVE, RECEIVE_REDUCE, REDUCE, SEND, Operation, in_equal_chunks

__all__ = ["read_msccl_xml", "write_msccl_xml"]

_COLLECTIVES: dict[Operation, str] = {"all_reduce": "allreduce", "all_gather": "allgather", "broadcast": "broadcast",
                                      "reduce_scatter": "reduce_scatter", "all_to_all": "alltoall"}
_TYPES = {SEND: "s", RECEIVE: "r", RECEIVE_REDUCE: "rrc", COPY: "cpy", REDUCE: "re"}
_LETTERS = "ios"
_MOST_STEPS_IN_BLOCK = 256
_MOST_BYTES = 1 << 28


def write_msccl_xml(schedule: Schedule, *, least_bytes: int = 0, most_bytes: int = 1 << 40,
                    protocol: str = "Simple") -> str:
    """The XML text. Raises BadInput for what the loader cannot take."""
    if schedule.switch_count or schedule.root:
        raise BadInput(field="--emit", value="msccl-xml", expected="ranks alone, and root 0",
                       remedy="Switches that add, and other roots, cannot be told in this format.")
    schedule = in_equal_chunks(schedule)
    steps = schedule.steps
    channels = int(steps.channel_K.max(initial=0)) + 1
    root = ElementTree.Element("algo", {
        "name": schedule.name.replace(" ", "_"), "proto": protocol, "nchannels": str(channels),
        "nchunksperloop": str(schedule.chunk_count), "ngpus": str(schedule.rank_count),
        "coll": _COLLECTIVES[schedule.operation], "inplace": str(int(schedule.in_place)),
        "outofplace": str(int(not schedule.in_place)), "minBytes": str(least_bytes), "maxBytes": str(most_bytes)})
    share = schedule.chunk_count // schedule.rank_count
    whole = schedule.chunk_count
    sizes = {"i_chunks": share if schedule.operation == "all_gather" else whole,
             "o_chunks": share if schedule.operation == "reduce_scatter" else whole, "s_chunks": schedule.scratch_count}
    gpus = [ElementTree.SubElement(root, "gpu", {"id": str(rank)} | {name: str(each) for name, each in sizes.items()})
            for rank in range(schedule.rank_count)]
    bounds = np.flatnonzero(np.append((np.diff(steps.rank_K, prepend=-1) != 0) | (
        np.diff(steps.lane_K, prepend=-1) != 0), True))
    order_K = np.empty(len(steps), dtype=np.int64)           # with the nops that stand before
    waited = np.zeros(len(steps), dtype=bool)
    waited[steps.after_D] = True
    for first, end in pairwise(bounds.tolist()):
        waits = np.maximum(np.diff(steps.after_first_K[first:end + 1]) - 1, 0)
        order_K[first:end] = np.arange(end - first) + np.cumsum(waits)
    for first, end in pairwise(bounds.tolist()):
        _block(gpus[int(steps.rank_K[first])], schedule, range(first, end), order_K, waited)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _block(gpu: ElementTree.Element, schedule: Schedule, lane: range, order_K: np.ndarray, waited: np.ndarray) -> None:
    steps = schedule.steps
    mine = steps.kind_K[lane.start:lane.stop]
    peers = steps.peer_K[lane.start:lane.stop]
    sends, receives = set(peers[mine == SEND].tolist()), set(
        peers[np.isin(mine, (RECEIVE, RECEIVE_REDUCE))].tolist())
    channels = set(steps.channel_K[lane.start:lane.stop].tolist()) - {-1}
    last = int(order_K[lane.stop - 1])
    if len(sends) > 1 or len(receives) > 1 or len(channels) > 1 or last >= _MOST_STEPS_IN_BLOCK:
        raise TooManySteps("msccl-xml", f"lanes of one peer each way and at most {_MOST_STEPS_IN_BLOCK} steps, but "
                           f"rank {steps.rank_K[lane.start]} has one of {last + 1}")
    block = ElementTree.SubElement(gpu, "tb", {
        "id": str(steps.lane_K[lane.start]), "send": str(next(iter(sends), -1)),
        "recv": str(next(iter(receives), -1)), "chan": str(next(iter(channels), 0))})
    for step in lane:
        waits = steps.after_D[steps.after_first_K[step]:steps.after_first_K[step + 1]].tolist()
        told = [{"depid": str(steps.lane_K[wait]), "deps": str(order_K[wait])} for wait in waits]
        told = told or [{"depid": "-1", "deps": "-1"}]
        for before, wait in enumerate(told[:-1]):
            ElementTree.SubElement(block, "step", {
                "s": str(order_K[step] - len(told) + 1 + before), "type": "nop", "srcbuf": "i", "srcoff": "-1",
                "dstbuf": "o", "dstoff": "-1", "cnt": "0", **wait, "hasdep": "0"})
        source, target = ((int(steps.source_buffer_K[step]), int(steps.source_chunk_K[step])),
                          (int(steps.target_buffer_K[step]), int(steps.target_chunk_K[step])))
        source, target = (source if source[0] >= 0 else target), (target if target[0] >= 0 else source)
        ElementTree.SubElement(block, "step", {
            "s": str(order_K[step]), "type": _TYPES[int(steps.kind_K[step])], "srcbuf": _LETTERS[source[0]],
            "srcoff": str(source[1]), "dstbuf": _LETTERS[target[0]], "dstoff": str(target[1]),
            "cnt": str(steps.count_K[step]), **told[-1], "hasdep": str(int(waited[step]))})


def read_msccl_xml(path: Path) -> Schedule:
    """A schedule from an XML file; not yet verified. Raises BadInput with the block and step that cannot be read."""
    root = _parsed(path)
    file = str(path)
    for name in ("minBytes", "maxBytes", "outofplace"):
        if name not in root.attrib:
            raise BadInput(file=file, field=f"algo, {name}", value=None,
                           expected="the attribute, as the loader wants it", remedy="Add it.")
    operations = {word: operation for operation, word in _COLLECTIVES.items()}
    words = root.get("coll", "")
    if words not in operations:
        raise BadInput(file=file, field="algo, coll", value=words, expected=f"one of {', '.join(operations)}",
                       remedy="Correct the collective.")
    ranks = _number(root, "ngpus", file, "algo", least=1, most=MOST_RANKS)
    chunks = _number(root, "nchunksperloop", file, "algo", least=1, most=MOST_CHUNKS)
    gpus = root.findall("gpu")
    if [gpu.get("id") for gpu in gpus] != [str(rank) for rank in range(ranks)]:
        raise BadInput(file=file, field="gpu", value=len(gpus), expected=f"gpus 0 to {ranks - 1}, each once, in order",
                       remedy="Correct ngpus or add what is missing.")
    scratch = max(_number(gpu, "s_chunks", file, f"gpu {gpu.get('id')}", least=0, most=MOST_CHUNKS) for gpu in gpus)
    alone = max(_number(gpu, "o_chunks", file, f"gpu {gpu.get('id')}", least=0, most=MOST_CHUNKS) for gpu in gpus) == 0
    in_place = root.get("inplace") == "1" and (root.get("outofplace") == "0" or alone)
    hidden = 1 if any(step.get("type") == "rrs" for step in root.iter("step")) else 0
    if (2 * chunks + scratch) * ranks > MOST_SLOTS:
        raise BadInput(file=file, field="algo, nchunksperloop", value=chunks, expected="fewer chunks for so many ranks",
                       remedy=f"Ranks x chunks may be {MOST_SLOTS:,} at most.")
    table = StepTable()
    longest = max((_number(step, "cnt", file, "step", least=0, most=MOST_CHUNKS)
                   for step in root.iter("step") if step.get("type") == "rrs"), default=0)
    blocks = max((len(gpu.findall("tb")) for gpu in gpus), default=0)
    for rank, gpu in enumerate(gpus):
        _read_gpu(table, gpu, rank, scratch, longest * hidden, file)
    return Schedule(name=root.get("name", "")[:200], operation=operations[words], rank_count=ranks,
                    chunk_weight_C=np.ones(chunks, dtype=np.int64), steps=table.steps(file=file), in_place=in_place,
                    scratch_count=scratch + longest * hidden * blocks)


def _parsed(path: Path) -> ElementTree.Element:
    """The root element; no document type, hence no entities that grow."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BadInput(field=str(path), value=path.stat().st_size, expected=f"at most {_MOST_BYTES:,} bytes",
                           remedy="No plan is that long.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(field=str(path), value=getattr(error, "strerror", None) or "not text",
                       expected="a file that can be read", remedy="Correct the path.") from None
    if "<!" in text.replace("<!--", ""):
        raise BadInput(file=str(path), field="document type", value="<!", expected="plain elements",
                       remedy="Remove the declaration.")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        line, column = error.position
        raise BadInput(file=str(path), field=f"line {line}, column {column}", value=expat.ErrorString(error.code),
                       expected="XML", remedy="Mend the file.") from None


def _read_gpu(table: StepTable, gpu: ElementTree.Element, rank: int, scratch: int, hidden: int, file: str) -> None:
    """All blocks of one gpu. A step of the file may be two of ours: waits for it are for the last of them."""
    blocks = gpu.findall("tb")
    if [block.get("id") for block in blocks] != [str(lane) for lane in range(len(blocks))]:
        raise BadInput(file=file, field=f"gpu {rank}, tb", value=len(blocks), expected="blocks 0, 1, 2, ... in order",
                       remedy="Number them.")
    ends = [_ends(block) for block in blocks]
    for lane, block in enumerate(blocks):
        pending: list[tuple[int, int]] = []
        own = {name: _number(block, name, file, f"gpu {rank}, tb {lane}", least=-1, most=MOST_RANKS)
               for name in ("send", "recv", "chan")}
        for order, step in enumerate(block.findall("step")):
            where = f"gpu {rank}, tb {lane}, step {order}"
            other, earlier = (_number(step, name, file, where, least=-1, most=MOST_STEPS) for name in ("depid", "deps"))
            if other >= 0:
                if other >= len(ends) or not 0 <= earlier < len(ends[other]):
                    raise BadInput(file=file, field=f"{where}, depid", value=[other, earlier],
                                   expected="a block and step of this gpu", remedy="Correct what it waits for.")
                if ends[other][earlier] >= 0:
                    pending.append((other, ends[other][earlier]))
            if step.get("type") == "nop":
                continue
            _read_step(table, step, rank, lane, own, pending, (scratch + lane * hidden), where, file)
            pending = []


def _ends(block: ElementTree.Element) -> list[int]:
    """Of each step of the file, the order of its last step with us; of a nop, that of the step before it."""
    found, order = [], -1
    for step in block.findall("step"):
        order += {"nop": 0, "rcs": 2, "rrs": 3, "rrcs": 2}.get(step.get("type", ""), 1)
        found.append(order)
    return found


def _read_step(table: StepTable, step: ElementTree.Element, rank: int, lane: int, own: dict[str, int],
               waits: list[tuple[int, int]], hidden: int, where: str, file: str) -> None:
    count = _number(step, "cnt", file, where, least=1, most=MOST_CHUNKS)
    source, target = ((_LETTERS.find(step.get(f"{end}buf", "?")), _number(step, f"{end}off", file, where, least=-1,
                                                                           most=MOST_CHUNKS)) for end in ("src", "dst"))
    add = partial(table.add, rank, lane, count=count)
    heard = partial(add, peer=own["recv"], channel=own["chan"])
    told = partial(add, peer=own["send"], channel=own["chan"])
    kind = step.get("type", "")
    if kind == "s":
        told(SEND, source=source, after=waits)
    elif kind in ("r", "rcs"):
        heard(RECEIVE, target=target, after=waits)
    elif kind in ("rrc", "rrcs"):
        heard(RECEIVE_REDUCE, source=source, target=target, after=waits)
    elif kind == "rrs":
        add(COPY, source=source, target=(2, hidden), after=waits)
        heard(RECEIVE_REDUCE, source=(2, hidden), target=(2, hidden))
        told(SEND, source=(2, hidden))
    elif kind in ("cpy", "re"):
        add(COPY if kind == "cpy" else REDUCE, source=source, target=target, after=waits)
    else:
        raise BadInput(file=file, field=f"{where}, type", value=kind,
                       expected="s, r, rrc, rcs, rrs, rrcs, cpy, re or nop", remedy="Correct the type.")
    if kind in ("rcs", "rrcs"):
        told(SEND, source=target)


def _number(element: ElementTree.Element, name: str, file: str, where: str, *, least: int, most: int) -> int:
    text = element.get(name, "")
    value = int(text) if text.removeprefix("-").isdecimal() and len(text) < 12 else None
    if value is None or not least <= value <= most:
        raise BadInput(file=file, field=f"{where}, {name}", value=text,
                       expected=f"a whole number from {least} to {most:,}", remedy="Correct the attribute.")
    return value


