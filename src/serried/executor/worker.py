"""The ranks of a schedule: `python worker.py TASK RANK ...`, files that `serried.executor` writes; one fork a rank.

It imports nothing but the standard library and PyTorch, so that it runs wherever the job's own Python does. Every lane
is a thread; messages are isend and irecv of the process group, whichever its backend.
"""

from __future__ import annotations

import collections
import ctypes
import datetime
import itertools
import json
import os
import sys
import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist

_TAKES = ("receive", "receive_reduce")
_AHEAD = 2       # messages of a lane that may be on their way at once
_PERIOD = 1021   # sums of small whole numbers are exact in float32


def brought(rank: int, first: int, count: int) -> torch.Tensor:
    """What a rank contributes at elements first, first + 1, ... of its input."""
    return (rank + 1.0) * (torch.arange(first, first + count) % _PERIOD + 1).to(torch.float32)


def expected(program: dict) -> torch.Tensor:
    """The output that this rank must end with."""
    ranks, rank, operation = program["rank_count"], program["rank"], program["operation"]
    count = program["output"][1] - program["output"][0]
    share = program["whole"] // ranks
    everybody = ranks * (ranks + 1) / 2
    if operation == "all_reduce":
        return everybody * brought(0, 0, count)
    if operation == "reduce_scatter":
        return everybody * brought(0, rank * share, count)
    if operation == "broadcast":
        return brought(program["root"], 0, count)
    first = rank * share if operation == "all_to_all" else 0
    return torch.cat([brought(each, first, share) for each in range(ranks)])


def run_lane(lane: int, steps: list, memory: torch.Tensor, over: list[list[threading.Event]], wrong: list) -> None:
    """One lane's steps in turn; an error is kept, and lets everybody go.

    Messages land in places of their own and are asked for ahead, so that a wire need not wait for this thread's turn.
    """
    coming: collections.deque = collections.deque()
    ahead = iter([(peer, channel, length) for kind, peer, channel, _, _, length, _ in steps if kind in _TAKES])

    def ask() -> None:
        for peer, channel, length in itertools.islice(ahead, 1):
            message = torch.empty(length)
            coming.append((message, dist.irecv(message, peer, tag=channel)))

    try:
        for _ in range(_AHEAD):
            ask()
        for order, (kind, peer, channel, source, target, length, waits) in enumerate(steps):
            for other, earlier in waits:
                over[other][earlier].wait()
            if wrong:
                return
            taken = memory[source:source + length] if source >= 0 else None
            put = memory[target:target + length] if target >= 0 else None
            if kind == "send":
                dist.isend(taken, peer, tag=channel).wait()
            elif kind in _TAKES:
                message, asked = coming.popleft()
                asked.wait()
                ask()
                if taken is None:
                    put.copy_(message)
                else:
                    torch.add(taken, message, out=put)
            elif kind == "copy":
                put.copy_(taken)
            else:
                put.add_(taken)
            over[lane][order].set()
    except Exception as error:   # a thread's error would be lost: the main thread raises it
        wrong.append(error)
        for lanes in over:
            for event in lanes:
                event.set()


def play(program: dict, memory: torch.Tensor) -> float:
    """Run the schedule once on memory; seconds from the common start to this rank's last step."""
    wrong: list = []
    over = [[threading.Event() for _ in steps] for steps in program["lanes"]]
    threads = [threading.Thread(target=run_lane, args=(lane, steps, memory, over, wrong))
               for lane, steps in enumerate(program["lanes"])]
    dist.barrier()
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - begin
    if wrong:
        raise wrong[0]
    return elapsed


def enter(namespace: str) -> None:
    """Move into a network namespace of this name (Linux, root)."""
    with open(f"/var/run/netns/{namespace}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0x40000000):
            raise OSError(ctypes.get_errno(), f"cannot enter network namespace {namespace}")


def repeat(program: dict, task: dict) -> dict:
    """Times of each repeat, and how many elements were wrong."""
    first, end = program["input"]
    begin, finish = program["output"]
    times_s, wrong = [], 0
    for _ in range(task["repeats"]):
        memory = torch.full((program["memory"],), float("nan"))
        if program["operation"] != "broadcast" or program["rank"] == program["root"]:
            memory[first:end] = brought(program["rank"], 0, end - first)
        if program["library"]:
            dist.barrier()
            started = time.perf_counter()
            dist.all_reduce(memory[begin:finish])
            times_s.append(time.perf_counter() - started)
        else:
            times_s.append(play(program, memory))
        wrong += int((memory[begin:finish] != expected(program)).sum())
    return {"times_s": times_s, "wrong": wrong, "checked": (finish - begin) * task["repeats"]}


def be_rank(task: dict, path: str) -> None:
    """Run every program of one rank, check every element, and leave times and faults beside the file."""
    told = json.loads(Path(path).read_text(encoding="utf-8"))
    if told["namespace"]:
        enter(told["namespace"])
    torch.set_num_threads(1)
    dist.init_process_group(task["backend"], init_method=task["meet"], rank=told["rank"],
                            world_size=task["rank_count"], timeout=datetime.timedelta(seconds=task["patience_s"]))
    done = [repeat(program, task) for program in told["programs"]]
    dist.barrier()
    Path(path + ".done").write_text(json.dumps(done), encoding="utf-8")
    dist.destroy_process_group()


def main(task_path: str, *paths: str) -> None:
    """Fork a process per rank once PyTorch is loaded; the exit code is 1 when one of them fails."""
    task = json.loads(Path(task_path).read_text(encoding="utf-8"))
    children = set()
    for path in paths:
        child = os.fork()
        if not child:
            try:
                be_rank(task, path)
            except BaseException as error:   # the fork must not run on as its parent
                Path(path + ".failed").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
                os._exit(1)
            os._exit(0)
        children.add(child)
    failed = False
    while children:
        ended, status = os.wait()
        children.discard(ended)
        if status and not failed:
            failed = True
            for child in children:           # the others would wait for it for ever
                os.kill(child, 9)
    sys.exit(int(failed))


if __name__ == "__main__":
    main(*sys.argv[1:])
