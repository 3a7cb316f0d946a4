"""A schedule as GOAL, the text that LogGOPSim and its kin simulate, and what such a text says back.

Every rank is a block of labelled sends, receives and calcs with `requires` between them; channels are tags. GOAL holds
no data, so what is read back is the traffic and the order, not what is added to what.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from serried.emit.traffic import Task, check_traffic
from serried.errors import BadInput
from serried.weave import Schedule
from serried.weave.legality import message_pairs
from serried.weave.spec import COPY, RECEIVE, RECEIVE_REDUCE, REDUCE, SEND
from serried.weave.timing import message_bytes_K

__all__ = ["read_goal", "write_goal"]

_TASK = re.compile(r"^l(\d+): (?:(send|recv) (\d+)b (?:to|from) (\d+) tag (\d+)|(calc) (\d+))(?: cpu (\d+))?$")
_REQUIRES = re.compile(r"^l(\d+) requires l(\d+)$")


def write_goal(schedule: Schedule, payload_bytes: float) -> str:
    """The text for a whole buffer of payload_bytes; a step is the line of its number, a lane a cpu."""
    steps, lines = schedule.steps, [f"num_ranks {schedule.rank_count + schedule.switch_count}"]
    length_K = message_bytes_K(schedule, payload_bytes).round().astype(int)
    sizes = dict(_received(schedule, length_K.tolist()))
    ends = steps.rank_K.searchsorted(range(schedule.rank_count + schedule.switch_count + 1)).tolist()
    for rank, (first, end) in enumerate(pairwise(ends)):
        lines.append(f"rank {rank} {{")
        requires: list[str] = []
        for step in range(first, end):
            kind, cpu = int(steps.kind_K[step]), int(steps.lane_K[step])
            ends_at = f"{steps.peer_K[step]} tag {steps.channel_K[step]} cpu {cpu}"
            told = {SEND: f"send {length_K[step]}b to {ends_at}", RECEIVE: f"recv {sizes.get(step)}b from {ends_at}",
                    RECEIVE_REDUCE: f"recv {sizes.get(step)}b from {ends_at}"}
            lines.append(f"l{step}: {told.get(kind, f'calc 0 cpu {cpu}')}")
            waits = steps.after_D[steps.after_first_K[step]:steps.after_first_K[step + 1]].tolist()
            if step > first and steps.lane_K[step - 1] == cpu:
                waits.append(step - 1)
            requires += [f"l{step} requires l{wait}" for wait in waits]
        lines += [*requires, "}"]
    assert set(steps.kind_K.tolist()) <= {SEND, RECEIVE, RECEIVE_REDUCE, COPY, REDUCE}, "every kind is told"
    return "\n".join(lines) + "\n"


def _received(schedule: Schedule, length_K: list[int]) -> Iterator[tuple[int, int]]:
    for send, receive in zip(*(side.tolist() for side in message_pairs(schedule)), strict=True):
        yield receive, length_K[send]


def read_goal(text: str, *, file: str = "") -> list[Task]:
    """The tasks of a text as `write_goal` writes it. Raises BadInput with the line, also when messages do not match or
    a task waits for ever."""
    tasks: dict[tuple[int, int], Task] = {}
    waits: dict[tuple[int, int], list[int]] = {}
    rank = -1
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line.startswith("rank ") and line.endswith("{") and line[5:-1].strip().isdecimal():
            rank = int(line[5:-1])
        elif task := _TASK.match(line):
            label, kind, length, peer, tag, calc = task.groups()[:6]
            tasks[(rank, int(label))] = Task(rank=rank, label=int(label), kind=calc or kind,
                                             payload_bytes=int(length or 0), peer=int(peer or -1),
                                             tag=int(tag or -1))
        elif (wait := _REQUIRES.match(line)) and (rank, int(wait[1])) in tasks and (rank, int(wait[2])) in tasks:
            waits.setdefault((rank, int(wait[1])), []).append(int(wait[2]))
        elif line not in ("", "}") and not re.match(r"^num_ranks \d+$", line):
            raise BadInput(file=file, field=f"line {number}", value=line[:80],
                           expected="num_ranks, rank, a send, recv or calc, or requires between known labels",
                           remedy="Mend the line.")
    found = [Task(rank=task.rank, label=task.label, kind=task.kind, payload_bytes=task.payload_bytes,
                  peer=task.peer, tag=task.tag, requires=tuple(waits.get(key, ()))) for key, task in tasks.items()]
    check_traffic(found, file=file)
    return found
