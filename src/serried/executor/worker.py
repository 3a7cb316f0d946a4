"""One rank of a schedule, run by itself: `python worker.py PROGRAM`, a file that `serried.executor.program` describes.

It imports nothing but the standard library and PyTorch, so that it runs wherever the job's own Python does. Every lane
is a thread; messages are isend and irecv of the process group, whichever its backend.
"""

from __future__ import annotations

import datetime
import json
import sys
import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist

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
    """One lane's steps in turn; an error is kept, and lets everybody go."""
    try:
        for order, (kind, peer, channel, source, target, length, waits) in enumerate(steps):
            for other, earlier in waits:
                over[other][earlier].wait()
            if wrong:
                return
            taken = memory[source:source + length] if source >= 0 else None
            put = memory[target:target + length] if target >= 0 else None
            if kind == "send":
                dist.isend(taken, peer, tag=channel).wait()
            elif kind == "receive":
                dist.irecv(put, peer, tag=channel).wait()
            elif kind == "receive_reduce":
                message = torch.empty(length)
                dist.irecv(message, peer, tag=channel).wait()
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


def main(path: str) -> None:
    """Repeat, check every element, and leave times and faults beside the program."""
    program = json.loads(Path(path).read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    dist.init_process_group(program["backend"], init_method=program["meet"], rank=program["rank"],
                            world_size=program["rank_count"],
                            timeout=datetime.timedelta(seconds=program["patience_s"]))
    first, end = program["input"]
    begin, finish = program["output"]
    times_s, wrong = [], 0
    for _ in range(program["repeats"]):
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
    dist.barrier()
    Path(path + ".done").write_text(json.dumps({"times_s": times_s, "wrong": wrong, "checked": (finish - begin)
                                                * program["repeats"]}), encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
