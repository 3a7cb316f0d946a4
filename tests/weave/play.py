"""A rival of the verifier: lanes run in a random order on real numbers, buffered or not, and the end is compared."""

import random

import numpy as np

from serried.weave.spec import COPY, INPUT, OUTPUT, RECEIVE, RECEIVE_REDUCE, REDUCE, SEND, place, spans


def contribution(schedule, rank):
    """What a rank brings: numbers that no other sum gives."""
    return np.random.default_rng(1000 + rank).integers(1, 1 << 40, spans(schedule)[0]).astype(object)


def wanted(schedule, rank):
    given = [contribution(schedule, each) for each in range(schedule.rank_count)]
    share = schedule.chunk_count // schedule.rank_count
    block = slice(rank * share, (rank + 1) * share)
    return {"all_reduce": lambda: sum(given), "reduce_scatter": lambda: sum(given)[block],
            "all_gather": lambda: np.concatenate(given), "broadcast": lambda: given[schedule.root],
            "all_to_all": lambda: np.concatenate([each[block] for each in given])}[schedule.operation]()


def play(schedule, seed, *, buffered):
    """None when every rank ends right; otherwise a word about what went wrong."""
    chance = random.Random(seed)
    steps = schedule.steps
    memory = [np.full(schedule.slot_count, None, dtype=object)
              for _ in range(schedule.rank_count + schedule.switch_count)]
    for rank in range(schedule.rank_count):
        if schedule.operation != "broadcast" or rank == schedule.root:
            begin = int(place(schedule, rank)[INPUT])
            memory[rank][begin:begin + spans(schedule)[0]] = contribution(schedule, rank)
    lanes = {}
    for step in range(len(steps)):
        lanes.setdefault((int(steps.rank_K[step]), int(steps.lane_K[step])), []).append(step)
    done, wires = set(), {}

    def ready(step):
        return all(int(wait) in done for wait in steps.after_D[steps.after_first_K[step]:steps.after_first_K[step + 1]])

    def view(step, which):
        rank = int(steps.rank_K[step])
        buffer, chunk = int(getattr(steps, f"{which}_buffer_K")[step]), int(getattr(steps, f"{which}_chunk_K")[step])
        first = int(place(schedule, rank)[buffer]) + chunk
        if chunk < 0 or first + steps.count_K[step] > schedule.slot_count:
            raise IndexError("beyond the buffer")
        return memory[rank][first:first + int(steps.count_K[step])]

    def channel(step, to):
        ends = (int(steps.rank_K[step]), int(steps.peer_K[step]))
        return (*(ends if to else ends[::-1]), int(steps.channel_K[step]))

    def take(step, message):
        if len(message) != steps.count_K[step]:
            raise ValueError("message of another length")
        base = view(step, "source") if steps.kind_K[step] == RECEIVE_REDUCE else 0
        view(step, "target")[:] = base + message

    try:
        while lanes:
            moved = False
            for lane in chance.sample(sorted(lanes), len(lanes)):
                if lane not in lanes:
                    continue
                step = lanes[lane][0]
                kind = int(steps.kind_K[step])
                if not ready(step):
                    continue
                finished = [lane]
                if kind == SEND and buffered:
                    wires.setdefault(channel(step, True), []).append(view(step, "source").copy())
                elif kind == SEND:
                    other = [name for name, queue in lanes.items()
                             if steps.kind_K[queue[0]] in (RECEIVE, RECEIVE_REDUCE)
                             and channel(queue[0], False) == channel(step, True) and ready(queue[0])]
                    if not other:
                        continue
                    take(lanes[other[0]][0], view(step, "source").copy())
                    finished.append(other[0])
                elif kind in (RECEIVE, RECEIVE_REDUCE):
                    if not wires.get(channel(step, False)):
                        continue
                    take(step, wires[channel(step, False)].pop(0))
                elif kind == COPY:
                    view(step, "target")[:] = view(step, "source").copy()
                elif kind == REDUCE:
                    view(step, "target")[:] = view(step, "target") + view(step, "source")
                for name in finished:
                    done.add(lanes[name].pop(0))
                    if not lanes[name]:
                        del lanes[name]
                moved = True
                break
            if not moved:
                return "deadlock"
    except (IndexError, ValueError, TypeError) as error:
        return repr(error)
    if any(wires.values()):
        return "messages left over"
    for rank in range(schedule.rank_count):
        begin = int(place(schedule, rank)[OUTPUT])
        found = memory[rank][begin:begin + spans(schedule)[1]]
        if not (found == wanted(schedule, rank)).all():
            return f"wrong data on rank {rank}"
    return None
