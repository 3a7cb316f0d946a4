"""One engine: which requests compute what in the next step, and how long steps and runs of steps take.

Between two events a run of decode-only steps has a closed-form duration, for a step's time is linear in the mean
context: the engine plans such a run as far as nothing can change (the next request that ends, the next knot of a table,
the last free block), and it is cut at a step's end when a request arrives that can be admitted. Every step with prefill
in it is a run of one step.

Follows the scheduler of vLLM V1: running requests first, in the order in which they began; then those that wait, first
come first served, as long as tokens, seats and blocks for the whole prompt are left; where a decode finds no block, the
request that began last is pushed out, and what it had computed is computed again.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from math import ceil, sqrt
from typing import Protocol

from serried.engine.blocks import BlockPool
from serried.engine.spec import EngineModel
from serried.engine.timing import StepClock

__all__ = ["Engine", "Group", "Task", "Watch"]


class Watch(Protocol):
    """Who is told what becomes of tasks."""

    def scheduled(self, task: Task, time_ns: int) -> None:
        """The task began to be computed."""
        ...

    def first_token(self, task: Task, time_ns: int) -> None:
        """Its prompt is computed."""
        ...

    def done(self, task: Task, time_ns: int) -> None:
        """It has all its tokens; on an engine that only prefills, its first."""
        ...


class Task:
    """A request on an engine. prompt: tokens to compute before the next token (after an eviction, what was generated
    too); computed: of these so far. output: tokens after the first, steps: decode steps that make them. units: prompt
    by hashed block, or by earlier turns of the session; left_behind: unit that the request becomes when it ends, 0 =
    none. is_prefilled: its cache comes from elsewhere."""

    __slots__ = ("begun_step", "cached", "computed", "epoch", "given", "group", "held_units", "is_prefilled",
                 "left_behind", "output", "preemptions", "private", "prompt", "request", "steps", "units")

    def __init__(self, request: int, prompt: int, steps: int, output: int, units: tuple[int, ...] = (),
                 left_behind: int = 0, is_prefilled: bool = False) -> None:
        self.request, self.prompt, self.steps, self.output, self.units = request, prompt, steps, output, units
        self.left_behind, self.is_prefilled = left_behind, is_prefilled
        self.computed = self.cached = self.private = self.preemptions = self.epoch = 0
        self.begun_step = 0
        self.given = False   # has its first token
        self.group: Group | None = None
        self.held_units: tuple[int, ...] = ()


class Group:
    """One attention group: its queue, its running requests, its memory. context: tokens of all decoding sequences;
    growth: tokens they grow by in a step; step: decode steps so far; waited: of these while prompts were held."""

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
        residues, tokens = self.residues, len(self.residues)   # of a block
        whole, rest = divmod(steps, tokens)
        at = self.step % tokens
        crossing = sum(residues[at:at + rest]) + (sum(residues[:at + rest - tokens]) if at + rest > tokens else 0)
        return whole * sum(residues) + crossing


class Engine:
    """Groups that step together. `next_ns` is when its present run ends; -1 = it is idle."""

    def __init__(self, model: EngineModel, number: int, watch: Watch, *, unit_blocks: int = 1,
                 keep_spans: bool = False, prefill_only: bool = False) -> None:
        self.model, self.number, self.watch, self.unit_blocks = model, number, watch, unit_blocks
        self.settings, self.clock = model.settings, StepClock(model)
        self.block = model.settings.block_tokens
        self.groups = [Group(BlockPool(model.kv_blocks, model.host_blocks), self.block) for _ in range(model.groups)]
        self.prefill_only, self.keep_spans = prefill_only, keep_spans
        self.spans: list[tuple[int, int, int, int, int, int]] = []
        self.next_ns, self.run = -1, 0    # run: counts runs, so that an end that was planned earlier is known as stale
        self.busy_ns = self.steps = self.tokens = self.outstanding = 0
        self.prefill_ns = self.brought_ns = 0   # of busy_ns: what prompts add to steps, and blocks brought up
        self._began_ns, self._is_decode, self._steps = 0, False, 0
        self._chunks: list[tuple[Group, Task, int]] = []
        self._first_s = 0.0
        self._curve = (0.0, 0.0)    # of the planned run: s of its first step, s more of each next one

    # what comes

    def submit(self, task: Task, now_ns: int) -> bool:
        """Queue a task with the group that has least to do; whether the end of the present run has changed."""
        group = self.groups[0]
        if len(self.groups) > 1:
            group = min(self.groups, key=lambda one: (len(one.running) + len(one.waiting), one.waiting_tokens))
        group.waiting.append(task)
        group.waiting_tokens += task.prompt
        self.outstanding += 1
        if self.next_ns < 0:
            self._plan(now_ns)
            return True
        is_news = len(group.waiting) == 1 or self.settings.prefill_wait_steps
        is_cut = bool(self._is_decode and self._steps > 1 and is_news and self._fits(group, group.waiting[0])
                      and self._cut(now_ns))
        if len(group.waiting) == 1:   # it waits from the end of this run on
            group.waited = -self._steps if self._is_decode or self.settings.mixed_steps else 0
        return is_cut

    def _cut(self, now_ns: int) -> bool:
        """End the present run of decode steps with the step under way, and those given to the device already."""
        elapsed_s = (now_ns - self._began_ns) * 1e-9
        first_s, more_s = self._curve
        steps = elapsed_s / first_s if first_s > 0 else 1.0
        if more_s > 0:   # first n + more n (n - 1) / 2 = elapsed
            half = first_s - 0.5 * more_s
            steps = (sqrt(half * half + 2.0 * more_s * elapsed_s) - half) / more_s
        steps = max(1, ceil(steps - 1e-9))
        while steps > 1 and self._elapsed_ns(steps - 1) >= now_ns - self._began_ns:
            steps -= 1
        while steps < self._steps and self._elapsed_ns(steps) < now_ns - self._began_ns:
            steps += 1
        steps += self.settings.ahead_steps
        if steps >= self._steps:
            return False
        self._steps = steps
        self.next_ns = self._began_ns + self._elapsed_ns(steps)
        self.run += 1
        return True

    def _elapsed_ns(self, steps: int) -> int:
        first_s, more_s = self._curve
        return round((first_s * steps + more_s * (0.5 * steps * (steps - 1))) * 1e9)

    # what passes

    def advance(self) -> None:
        """The present run has ended: note what it did, and plan the next."""
        now_ns, steps = self.next_ns, self._steps
        self.busy_ns += now_ns - self._began_ns
        self.steps += steps
        if self.keep_spans:
            self.spans.append((self.number, self._began_ns, now_ns, sum(chunk for _, _, chunk in self._chunks),
                               sum(group.decoding for group in self.groups), steps))
        advances = self._is_decode or self.settings.mixed_steps
        for group in self.groups:
            if advances and group.decoding:
                self.tokens += round(group.growth * steps)
                self._decoded(group, steps, now_ns)
        chunks, self._chunks = self._chunks, []
        first_ns = self._began_ns + round(self._first_s * 1e9)
        for group, task, chunk in chunks:
            if task in group.prefilling:   # it may have been pushed out meanwhile
                self.tokens += chunk
                task.computed += chunk
                if task.computed >= task.prompt:
                    self._prefilled(group, task, max(first_ns, now_ns))
        self._plan(now_ns)

    def _decoded(self, group: Group, steps: int, now_ns: int) -> None:
        group.pool.take(group.blocks_for(steps))
        group.step += steps
        group.waited += steps if group.waiting else 0
        group.context += group.growth * steps
        ends, step = group.ends, group.step
        while ends and ends[0][0] <= step:
            _, _, epoch, task = heappop(ends)
            if task.epoch == epoch:
                self._leave_decode(group, task)
                self._end(group, task, now_ns)

    def _prefilled(self, group: Group, task: Task, now_ns: int) -> None:
        """The prompt is computed, and with it the first token."""
        del group.prefilling[task]
        self._share_prompt(group, task)
        if not task.given:
            task.given = True
            self.watch.first_token(task, now_ns)
        if self.prefill_only:
            del group.running[task]
            self.outstanding -= 1
            self.watch.done(task, now_ns)   # its blocks stay until they are sent
        elif task.steps <= 0:
            self._end(group, task, now_ns)
        else:
            self._join_decode(group, task)

    def _share_prompt(self, group: Group, task: Task) -> None:
        """Its hashed blocks can be found from now on."""
        new = task.units[len(task.held_units):]
        if new and not task.left_behind:
            task.private -= self.unit_blocks * len(new)
            group.pool.share(new, self.unit_blocks)
            task.held_units = task.units

    def _join_decode(self, group: Group, task: Task) -> None:
        task.begun_step = group.step
        heappush(group.ends, (group.step + task.steps, task.request, task.epoch, task))
        group.decoding += 1
        group.context += task.prompt
        group.growth += task.output / task.steps
        if self._counts(task):
            group.residues[(-task.prompt % self.block + group.step) % self.block] += 1

    def _leave_decode(self, group: Group, task: Task) -> None:
        done = group.step - task.begun_step
        grown = task.output * done / task.steps
        group.decoding -= 1
        group.context -= task.prompt + grown
        group.growth -= task.output / task.steps
        if not group.decoding:
            group.context = group.growth = 0.0   # no rounding is carried from one batch to the next
        if self._counts(task):
            group.residues[(-task.prompt % self.block + task.begun_step) % self.block] -= 1
            task.private += -(-(task.prompt + done) // self.block) - -(-task.prompt // self.block)

    def _counts(self, task: Task) -> bool:
        """Whether its blocks grow with each step; with drafts, or behind a window, they were taken beforehand."""
        return not self.settings.acceptance and not (
            self.model.window_tokens and task.prompt >= self.model.window_tokens)

    def _end(self, group: Group, task: Task, now_ns: int) -> None:
        self._release(group, task, keep=True)
        del group.running[task]
        self.outstanding -= 1
        self.watch.done(task, now_ns)

    def _release(self, group: Group, task: Task, *, keep: bool) -> None:
        pool = group.pool
        if task.held_units:
            pool.unpin(task.held_units)
            task.held_units = ()
        if keep and task.left_behind and task.private:
            pool.keep(task.left_behind, task.private)
        else:
            pool.give(task.private)
        task.private = 0

    def release(self, task: Task, now_ns: int) -> bool:
        """The cache of a prefilled task has been sent; whether that made the engine begin a run."""
        assert task.group is not None, "a task that was prefilled has a group"
        self._release(task.group, task, keep=True)
        if self.next_ns < 0 and any(group.waiting for group in self.groups):
            self._plan(now_ns)
        return self.next_ns >= 0

    # what is next

    def _fits(self, group: Group, task: Task) -> bool:
        """Whether a waiting task could begin now: a seat, and blocks for its whole prompt beside those that decoding
        requests (itself among them if its cache has come) may fill in the next step."""
        if len(group.running) >= self.settings.max_sequences:
            return False
        needed = self._blocks_at_once(task) + (group.blocks_for(1) if group.decoding else 0) + task.is_prefilled
        if needed <= group.pool.room() or not task.units or not self.settings.prefix_caching:
            return needed <= group.pool.room()
        here, _ = group.pool.found(task.units)
        found = task.units[:here]
        return needed - group.pool.blocks_of(found) + group.pool.idle_of(found) <= group.pool.room()

    def _blocks_at_once(self, task: Task) -> int:
        tokens = task.prompt + (task.output if self.settings.acceptance and not self.prefill_only else 0)
        if self.model.window_tokens:
            tokens = min(tokens, self.model.window_tokens + self.block)
        return -(-tokens // self.block)

    def _admit(self, group: Group, task: Task, now_ns: int) -> int:
        """Give a task its seat and blocks; the blocks to be brought up from the host's memory."""
        group.waiting.popleft()
        group.waiting_tokens -= task.prompt
        group.running[task] = None
        task.group, pool, brought, held = group, group.pool, 0, 0
        if task.units and self.settings.prefix_caching:
            here, below = pool.found(task.units)
            known = here + below
            tokens = pool.blocks_of(task.units[:known]) * self.block
            while known and tokens >= task.prompt:   # one token at least is computed anew
                known -= 1
                tokens -= pool.blocks_of((task.units[known],)) * self.block
            task.held_units = task.units[:min(here, known)]
            held = pool.blocks_of(task.held_units)
            pool.pin(task.held_units)
            if known > here:
                brought = pool.blocks_of(task.units[here:known])
                pool.forget_host(task.units[here:known])
            task.computed = task.cached = tokens
        task.private = self._blocks_at_once(task) - held
        pool.take(task.private)
        self.watch.scheduled(task, now_ns)
        return brought

    def _plan(self, now_ns: int) -> None:
        """Begin the next run at `now_ns`."""
        self.run += 1
        self._began_ns, brought = now_ns, 0
        has_prefill = False
        for group in self.groups:
            pushed = self._make_room(group)
            if group.waiting or group.prefilling:
                brought += self._fill(group, now_ns, admits=not pushed)
                has_prefill |= bool(self._chunks)
        if has_prefill:
            self._is_decode, self._steps = False, 1
            self._first_s, round_s, alone_s = self._mixed_s()
            brought_ns = round(brought * self.model.host_block_s * 1e9)
            round_ns = max(1, round(round_s * 1e9))
            self.next_ns = now_ns + round_ns + brought_ns
            self.brought_ns += brought_ns
            self.prefill_ns += max(round_ns - round(alone_s * 1e9), 0)
            return
        self._first_s = 0.0
        busy = False
        for group in self.groups:
            self._make_room(group)   # a cache that has just come may need a block at once
            busy |= bool(group.decoding)
        if busy:
            self._is_decode = True
            self._plan_decode(now_ns)
        elif any(group.waiting for group in self.groups):
            self._plan(now_ns) if self._retry() else self._idle()
        else:
            self._idle()

    def _retry(self) -> bool:
        """Whether something that was pushed out just now can begin again: memory is empty, and it fits by itself."""
        return any(group.waiting and self._fits(group, group.waiting[0]) for group in self.groups)

    def _idle(self) -> None:
        self.next_ns, self._steps = -1, 0

    def _make_room(self, group: Group) -> bool:
        """Push requests out until every decoding one finds a block for its next token; whether any was."""
        pushed = False
        while group.decoding and group.blocks_for(1) > group.pool.room():
            self._push_out(group)
            pushed = True
        return pushed

    def _fill(self, group: Group, now_ns: int, *, admits: bool) -> int:
        """Choose the prefill chunks of the next step; the blocks to be brought up from the host's memory.

        Each of the micro-batches of a pipeline has a budget of its own; a prompt has one chunk in a round.
        """
        settings, brought = self.settings, 0
        if self._holds(group):
            return 0
        group.waited = 0
        budget = settings.token_budget * self.clock.stages
        if settings.mixed_steps and group.decoding:
            budget -= group.decoding * (1 + self.clock.drafts)
        for task in group.prefilling:
            budget -= self._chunk(group, task, budget)
        waiting = group.waiting
        while waiting and budget > 0 and admits and self._fits(group, waiting[0]):
            task = waiting[0]
            if not settings.chunked_prefill and task.prompt > budget and self._chunks:
                break
            brought += self._admit(group, task, now_ns)
            if task.is_prefilled:   # its cache has come over the wires
                task.is_prefilled, task.computed = False, task.prompt
                self._join_decode(group, task)
            else:
                group.prefilling[task] = None
                budget -= self._chunk(group, task, budget)
        return brought

    def _holds(self, group: Group) -> bool:
        """Whether waiting prompts are held back for company."""
        settings = self.settings
        return bool(settings.prefill_wait_steps and group.decoding and not group.prefilling
                    and group.waited < settings.prefill_wait_steps
                    and group.waiting_tokens < settings.prefill_wait_ratio * settings.token_budget)

    def _chunk(self, group: Group, task: Task, budget: int) -> int:
        """Give a prompt its part of the next step."""
        chunk = task.prompt - task.computed
        if self.settings.chunked_prefill:
            chunk = min(chunk, budget, self.settings.token_budget)
        if chunk > 0:
            self._chunks.append((group, task, chunk))
        return chunk

    def _push_out(self, group: Group) -> None:
        """Preempt the request that began last: what it had is given up and computed again later."""
        task = next(reversed(group.running))
        del group.running[task]
        if task in group.prefilling:
            del group.prefilling[task]
        else:
            self._leave_decode(group, task)
            done = group.step - task.begun_step
            grown = round(task.output * done / task.steps)
            task.prompt, task.output, task.steps = task.prompt + grown, task.output - grown, task.steps - done
        self._release(group, task, keep=False)
        task.epoch, task.preemptions, task.computed = task.epoch + 1, task.preemptions + 1, 0
        self._chunks = [chunk for chunk in self._chunks if chunk[1] is not task]
        group.waiting.appendleft(task)
        group.waiting_tokens += task.prompt

    def _mixed_s(self) -> tuple[float, float, float]:
        """A step with prefill in it: when its first tokens are there, when the next one begins, and what its decodes
        alone would have taken, s.

        In a pipeline the prompts fill as many micro-batches as they need, each takes every stage as long, and the next
        round begins when the first stage has seen all micro-batches; without decodes, when the prompts are through.
        """
        clock, mixed = self.clock, self.settings.mixed_steps
        width, stages = 1 + clock.drafts, clock.stages
        attention_s: dict[Group, float] = {}
        tokens: dict[Group, int] = {}
        for group, task, chunk in self._chunks:
            attention_s[group] = attention_s.get(group, 0.0) + clock.prefill_attention_s(chunk, task.computed + chunk)
            tokens[group] = tokens.get(group, 0) + chunk
        decoding = max(group.decoding for group in self.groups) if mixed else 0
        one, most = -(-decoding // stages), max(tokens.values())
        batches = min(stages, len(self._chunks), -(-most // self.settings.token_budget))
        batches = max(batches, 1)
        mean = sum(tokens.values()) / len(self.groups) / batches
        if mixed:
            mean += sum(group.decoding for group in self.groups) * width / stages / len(self.groups)
        context = max((group.context / group.decoding for group in self.groups if group.decoding), default=0.0)
        heavy_s = clock.pass_s(
            tokens=-(-most // batches) + one * width, mean_tokens=mean, decoding=one, context=context,
            sampled=min(one + -(-len(self._chunks) // batches), self.settings.max_sequences),
            prefill_attention_s=max(attention_s.values()) / batches)
        if not decoding:
            return stages * heavy_s, stages * heavy_s, 0.0
        flat_s, floor_s, serial_s, _ = clock.decode_parts(decoding, decoding)
        light_s = max(flat_s + clock.decode_attention(one, context)[0], floor_s) + serial_s
        round_s = stages * heavy_s if stages == 1 else batches * heavy_s + (stages - batches) * light_s
        return stages * heavy_s, round_s, min(stages * light_s, round_s)

    def _plan_decode(self, now_ns: int) -> None:
        """A run of decode steps: as many as until a request ends, a table has a knot, or blocks run out."""
        fullest = self.groups[0]
        if len(self.groups) > 1:
            fullest = max(self.groups, key=lambda group: (group.decoding, group.context))
        stages = self.clock.stages
        mean = sum(group.decoding for group in self.groups) / len(self.groups) if len(self.groups) > 1 \
            else fullest.decoding
        flat_s, floor_s, serial_s, one = self.clock.decode_parts(fullest.decoding, mean)
        context, each = fullest.context / fullest.decoding, fullest.growth / fullest.decoding
        at_s, slope_s, knot = self.clock.decode_attention(one, context)
        steps = min(group.ends[0][0] - group.step for group in self.groups if group.decoding and self._live(group))
        if knot - context < steps * each:
            steps = max(1, ceil((knot - context) / each))
        first_s, more_s = flat_s + at_s, slope_s * each
        if first_s < floor_s:   # the host is slower than the device, for so long
            if more_s > 0 and first_s + more_s * (steps - 1) > floor_s:
                steps = max(1, min(steps, ceil((floor_s - first_s) / more_s)))
            first_s, more_s = floor_s, 0.0
        for group in self.groups:
            if group.decoding:
                steps = self._steps_with_room(group, steps)
                if group.waiting and self._holds(group):
                    steps = min(steps, self.settings.prefill_wait_steps - group.waited)
                elif group.waiting and self._fits(group, group.waiting[0]):
                    steps = 1   # nobody begins in a step for which somebody was pushed out, but in the next one
        self._curve = (stages * (first_s + serial_s), stages * max(more_s, 0.0))
        self._steps = steps
        self.next_ns = now_ns + max(1, self._elapsed_ns(steps))

    def _live(self, group: Group) -> bool:
        """Drop ends of requests that were pushed out from the top of the heap."""
        ends = group.ends
        while ends and ends[0][3].epoch != ends[0][2]:
            heappop(ends)
        return bool(ends)

    def _steps_with_room(self, group: Group, steps: int) -> int:
        """The most steps, up to `steps`, for which blocks are left; one always is."""
        room = group.pool.room()
        if group.decoding * (steps // self.block + 1) <= room or group.blocks_for(steps) <= room:
            return steps
        low, high = 1, steps
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if group.blocks_for(middle) <= room else (low, middle)
        return low
