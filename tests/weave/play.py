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


class Player:
    """Memory, wires and lanes of one run."""

    def __init__(self, schedule, seed, buffered):
        self.schedule, self.steps, self.buffered = schedule, schedule.steps, buffered
        self.chance = random.Random(seed)
        self.memory = [np.full(schedule.slot_count, None, dtype=object)
                       for _ in range(schedule.rank_count + schedule.switch_count)]
        for rank in range(schedule.rank_count):
            if schedule.operation != "broadcast" or rank == schedule.root:
                begin = int(place(schedule, rank)[INPUT])
                self.memory[rank][begin:begin + spans(schedule)[0]] = contribution(schedule, rank)
        self.lanes, self.done, self.wires = {}, set(), {}
        for step in range(len(self.steps)):
            self.lanes.setdefault((int(self.steps.rank_K[step]), int(self.steps.lane_K[step])), []).append(step)

    def ready(self, step):
        waits = self.steps.after_D[self.steps.after_first_K[step]:self.steps.after_first_K[step + 1]]
        return all(int(wait) in self.done for wait in waits)

    def view(self, step, which):
        rank, count = int(self.steps.rank_K[step]), int(self.steps.count_K[step])
        buffer, chunk = (int(getattr(self.steps, f"{which}_{part}_K")[step]) for part in ("buffer", "chunk"))
        first = int(place(self.schedule, rank)[buffer]) + chunk
        if chunk < 0 or first + count > self.schedule.slot_count:
            raise IndexError("beyond the buffer")
        return self.memory[rank][first:first + count]

    def channel(self, step):
        ends = (int(self.steps.rank_K[step]), int(self.steps.peer_K[step]))
        return (*(ends if self.steps.kind_K[step] == SEND else ends[::-1]), int(self.steps.channel_K[step]))

    def take(self, step, message):
        if len(message) != self.steps.count_K[step]:
            raise ValueError("message of another length")
        base = self.view(step, "source") if self.steps.kind_K[step] == RECEIVE_REDUCE else 0
        self.view(step, "target")[:] = base + message

    def receiver(self, step):
        """The lane that stands ready at the other end of a send, if any."""
        return next((name for name, queue in self.lanes.items()
                     if self.steps.kind_K[queue[0]] in (RECEIVE, RECEIVE_REDUCE)
                     and self.channel(queue[0]) == self.channel(step) and self.ready(queue[0])), None)

    def advance(self, lane):
        """Lanes that have done a step; none when this one cannot go on."""
        step = self.lanes[lane][0]
        kind = int(self.steps.kind_K[step])
        if not self.ready(step):
            return []
        if kind == SEND and self.buffered:
            self.wires.setdefault(self.channel(step), []).append(self.view(step, "source").copy())
        elif kind == SEND:
            other = self.receiver(step)
            if other is None:
                return []
            self.take(self.lanes[other][0], self.view(step, "source").copy())
            return [lane, other]
        elif kind in (RECEIVE, RECEIVE_REDUCE):
            if not self.wires.get(self.channel(step)):
                return []
            self.take(step, self.wires[self.channel(step)].pop(0))
        elif kind == COPY:
            self.view(step, "target")[:] = self.view(step, "source").copy()
        elif kind == REDUCE:
            self.view(step, "target")[:] = self.view(step, "target") + self.view(step, "source")
        return [lane]


def play(schedule, seed, *, buffered):
    """None when every rank ends right; otherwise a word about what went wrong."""
    player = Player(schedule, seed, buffered)
    try:
        while player.lanes:
            shuffled = player.chance.sample(sorted(player.lanes), len(player.lanes))
            finished = next((moved for lane in shuffled if (moved := player.advance(lane))), None)
            if finished is None:
                return "deadlock"
            for name in finished:
                player.done.add(player.lanes[name].pop(0))
                if not player.lanes[name]:
                    del player.lanes[name]
    except (IndexError, ValueError, TypeError) as error:
        return repr(error)
    if any(player.wires.values()):
        return "messages left over"
    for rank in range(schedule.rank_count):
        begin = int(place(schedule, rank)[OUTPUT])
        if not (player.memory[rank][begin:begin + spans(schedule)[1]] == wanted(schedule, rank)).all():
            return f"wrong data on rank {rank}"
    return None
