"""What an attention group holds: requests as tasks, its queue, its running requests and its memory."""

from __future__ import annotations

from collections import deque
from heapq import heappop
from typing import Protocol

from serried.engine.blocks import BlockPool

__all__ = ["Group", "Task", "Watch"]


class Watch(Protocol):
    """Who is told what becomes of tasks."""

    def scheduled(self, task: Task, time_ns: int) -> None:
        """The task began to be computed."""
        ...

    def first_token(self, task: Task, time_ns: int) -> None:
        """Its prompt is computed, or has come computed and the task has its seat."""
        ...

    def done(self, task: Task, time_ns: int) -> None:
        """It has all its tokens; on an engine that only prefills, its first."""
        ...


class Task:
    """A request on an engine. prompt: tokens to compute before the next token (after a preemption, what was generated
    too); computed: of these so far. output: tokens after the first, steps: decode steps that make them. units: its
    prompt's prefix as cached units, by hashed block or by earlier turns of the session; left_behind: the unit that it
    adds to them when it ends, 0 = none. private: blocks that are its own. kept: full blocks that it had
    when it was preempted, the last of which is taken when the pool has given out kept_until blocks. is_prefilled: its
    cache comes from elsewhere."""

    __slots__ = ("begun_step", "cached", "computed", "epoch", "given", "group", "held_units", "is_prefilled",
                 "kept", "kept_until", "left_behind", "output", "preemptions", "private", "prompt", "request", "steps",
                 "units")

    def __init__(self, request: int, prompt: int, steps: int, output: int, units: tuple[int, ...] = (),
                 left_behind: int = 0, is_prefilled: bool = False) -> None:
        self.request, self.prompt, self.steps, self.output, self.units = request, prompt, steps, output, units
        self.left_behind, self.is_prefilled = left_behind, is_prefilled
        self.computed = self.cached = self.private = self.preemptions = self.epoch = 0
        self.begun_step = self.kept = self.kept_until = 0
        self.given = False   # has its first token
        self.group: Group | None = None
        self.held_units: tuple[int, ...] = ()


class Group:
    """One attention group. context: tokens of all decoding sequences; growth: tokens they grow by in a step; step:
    decode steps so far; waited: of these while prompts were held. residues: decoding sequences by the step, modulo the
    block, at which they need their next block."""

    __slots__ = ("context", "decoding", "ends", "growth", "pool", "prefilling", "residues", "running", "step",
                 "waited", "waiting", "waiting_tokens")

    def __init__(self, pool: BlockPool, block_tokens: int) -> None:
        self.pool = pool
        self.waiting: deque[Task] = deque()
        self.running: dict[Task, None] = {}
        self.prefilling: dict[Task, None] = {}
        self.ends: list[tuple[int, int, int, Task]] = []   # (step, request, epoch, task)
        self.residues = [0] * block_tokens
        self.decoding = self.step = self.waiting_tokens = self.waited = 0
        self.context = self.growth = 0.0

    def blocks_for(self, steps: int) -> int:
        """Blocks that the decoding sequences fill beyond what they have in so many steps."""
        residues, block = self.residues, len(self.residues)
        at = self.step % block
        if steps == 1:
            return residues[at]
        whole, rest = divmod(steps, block)
        crossing = sum(residues[at:at + rest]) + (sum(residues[:at + rest - block]) if at + rest > block else 0)
        return whole * sum(residues) + crossing

    def steps_with_room(self, steps: int) -> int:
        """The most steps, up to `steps`, for which blocks are left; one always is."""
        room = self.pool.room()
        if self.decoding * (steps // len(self.residues) + 1) <= room or self.blocks_for(steps) <= room:
            return steps
        low, high = 1, steps
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.blocks_for(middle) <= room else (low, middle)
        return low

    def steps_to_end(self) -> int:
        """Steps until the first of the decoding requests ends; ends of those that were preempted are forgotten."""
        ends = self.ends
        while ends[0][3].epoch != ends[0][2]:
            heappop(ends)
        return ends[0][0] - self.step
