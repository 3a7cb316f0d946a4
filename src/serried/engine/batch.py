"""One engine: which requests compute what in the next step, and how long steps and runs of steps take.

Between two events a run of decode-only steps has a closed-form duration, for a step's time is linear in the mean
context: the engine plans such a run as far as nothing can change (the next request that ends, the next knot of a table,
the last free block), and it is cut at a step's end when a request arrives that can be admitted. Every step with prefill
in it is a run of one step. What arrives at the very moment at which a step begins waits for that step.

Follows the scheduler of vLLM V1: running requests first, in the order in which they began; then those that wait, first
come first served, as long as tokens, seats and blocks for the whole prompt are left; where a decode finds no block, the
request that began last is preempted, and its prompt and all its tokens so far are computed again as one prompt. Unlike
there, a prompt takes its blocks when it begins rather than chunk by chunk, and equal blocks computed side by side are
merged at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush
from math import ceil, sqrt
from types import MappingProxyType

from serried.engine.blocks import BlockPool
from serried.engine.group import Group, Task, Watch
from serried.engine.spec import EngineModel
from serried.engine.timing import StepClock

__all__ = ["Engine"]

_MANY_STEPS = 1 << 62
_NO_SIZES: Mapping[int, int] = MappingProxyType({})


class Engine:
    """Groups that step together. `next_ns` is when its present run ends; -1 = it is idle."""

    def __init__(self, model: EngineModel, number: int, watch: Watch, *, unit_blocks: int = 1,
                 unit_sizes: Mapping[int, int] = _NO_SIZES, keep_spans: bool = False,
                 prefill_only: bool = False) -> None:
        """unit_blocks: blocks of a cached unit; unit_sizes: of those that have another number of them."""
        self.model, self.number, self.watch = model, number, watch
        self.settings, self.clock = model.settings, StepClock(model)
        self.block, self._window = model.settings.block_tokens, model.window_tokens
        self._drafts = bool(model.settings.acceptance)
        self.groups = [Group(BlockPool(model.kv_blocks, model.host_blocks, unit_blocks, unit_sizes), self.block)
                       for _ in range(model.groups)]
        self.prefill_only, self.keep_spans = prefill_only, keep_spans
        self.spans: list[tuple[int, int, int, int, int, int]] = []
        self.next_ns, self.run = -1, 0    # run: counts runs, so that an end that was planned earlier is known as stale
        self.busy_ns = self.steps = self.tokens = self.outstanding = 0
        self.prefill_ns = self.brought_ns = 0   # of busy_ns: what prompts add to steps, and blocks brought up
        self._began_ns, self._is_decode, self._steps = 0, False, 0
        self._chunks: list[tuple[Group, Task, int]] = []
        self._curve = (0.0, 0.0)    # of the planned run: s of its first step, s more of each next one

    # what comes

    def can_hold(self, prompt: int, output: int) -> bool:
        """Whether so many tokens, and so many after the first, fit when nothing else is there."""
        return self._most_blocks(prompt, output) <= self.model.kv_blocks

    def submit(self, task: Task, now_ns: int) -> bool:
        """Queue a task with the group that has least to do; whether the end of the present run has changed."""
        if not self.settings.prefix_caching or self._slides(task):
            task.units, task.left_behind = (), 0
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
        steps = max(1, ceil(steps))
        while steps > 1 and self._elapsed_ns(steps - 1) > now_ns - self._began_ns:
            steps -= 1
        while steps < self._steps and self._elapsed_ns(steps) <= now_ns - self._began_ns:
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
        for group, task, chunk in chunks:
            if task in group.prefilling:   # it may have been pushed out meanwhile
                self.tokens += chunk
                task.computed += chunk
                if task.computed >= task.prompt:
                    self._prefilled(group, task, now_ns)
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
        if len(task.units) > len(task.held_units):   # they can be found from now on
            self._share(group, task, task.units)
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

    def _share(self, group: Group, task: Task, units: tuple[int, ...]) -> None:
        """Blocks of its own become `units`, beyond those that it holds already."""
        task.private -= group.pool.share(units[len(task.held_units):])
        task.held_units = units

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
        """Whether its blocks grow with each step; with drafts, or when it outgrows a window, it takes them at once."""
        return not self._drafts and not (self._window and self._slides(task))

    def _slides(self, task: Task) -> bool:
        return 0 < self._window < task.prompt + task.output

    def _end(self, group: Group, task: Task, now_ns: int) -> None:
        self._release(group, task, keep=True)
        del group.running[task]
        self.outstanding -= 1
        self.watch.done(task, now_ns)

    def _release(self, group: Group, task: Task, *, keep: bool) -> None:
        pool = group.pool
        if keep and task.left_behind and len(task.held_units) == len(task.units):
            self._share(group, task, (*task.units, task.left_behind))
        if task.held_units:
            pool.unpin(task.held_units)
            task.held_units = ()
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
        room = group.pool.room()
        needed = self._blocks_at_once(task) + (group.blocks_for(1) if group.decoding else 0)
        if task.is_prefilled and task.prompt % self.block == 0 and self._counts(task):
            needed += 1
        if needed <= room or not task.units:
            return needed <= room
        here, _, _ = self._known(group, task)
        found = task.units[:here]
        return needed - group.pool.blocks_of(found) + group.pool.idle_of(found) <= room

    def _blocks_at_once(self, task: Task) -> int:
        """Blocks that it takes when it begins, those that it finds included."""
        return self._most_blocks(task.prompt, task.output if not self._counts(task) and not self.prefill_only else 0)

    def _most_blocks(self, prompt: int, output: int) -> int:
        tokens, window = prompt + output, self._window
        if 0 < window < tokens:
            tokens = min(tokens, window + self.block)
        return -(-tokens // self.block)

    def _known(self, group: Group, task: Task) -> tuple[int, int, int]:
        """Leading units that it need not compute: how many are here, how many with the host's, and their tokens. One
        token at least is computed anew."""
        here, below = group.pool.found(task.units)
        known = here + below
        tokens = group.pool.blocks_of(task.units[:known]) * self.block
        while known and tokens >= task.prompt:
            known -= 1
            tokens -= group.pool.blocks_of((task.units[known],)) * self.block
        if task.kept:   # free blocks are taken in the order in which they were freed, of one request the last first
            left = min(max(task.kept_until - group.pool.taken, 0), task.kept)
            tokens = max(tokens, min(left * self.block, task.prompt - 1))
        return min(here, known), known, tokens

    def _admit(self, group: Group, task: Task, now_ns: int) -> int:
        """Give a task its seat and blocks; the blocks to be brought up from the host's memory."""
        group.waiting.popleft()
        group.waiting_tokens -= task.prompt
        group.running[task] = None
        task.group, pool, brought, held = group, group.pool, 0, 0
        if task.units:
            here, known, task.computed = self._known(group, task)
            task.cached = task.computed
            task.held_units = task.units[:here]
            held = pool.blocks_of(task.held_units)
            pool.pin(task.held_units)
            if known > here:
                brought = pool.blocks_of(task.units[here:known])
                pool.forget_host(task.units[here:known])
        elif task.kept:
            task.computed = self._known(group, task)[2]
        task.kept = 0
        task.private = self._blocks_at_once(task) - held
        pool.take(task.private)
        self.watch.scheduled(task, now_ns)
        return brought

    def _plan(self, now_ns: int) -> None:
        """Begin the next run at `now_ns`."""
        self.run += 1
        self._began_ns, brought = now_ns, 0
        has_prefill = any_pushed = False
        for group in self.groups:
            pushed = self.settings.mixed_steps and self._make_room(group)
            any_pushed |= pushed
            if group.waiting or group.prefilling:
                brought += self._fill(group, now_ns, admits=not pushed)
                has_prefill |= bool(self._chunks)
        if has_prefill:
            self._is_decode, self._steps = False, 1
            round_s, alone_s = self._mixed_s()
            brought_ns = round(brought * self.model.host_block_s * 1e9)
            round_ns = max(1, round(round_s * 1e9))
            self.next_ns = now_ns + round_ns + brought_ns
            self.brought_ns += brought_ns
            self.prefill_ns += max(round_ns - round(alone_s * 1e9), 0)
            return
        busy = False
        for group in self.groups:
            any_pushed |= self._make_room(group)
            busy |= bool(group.decoding)
        if busy:
            self._is_decode = True
            self._plan_decode(now_ns, 1 if any_pushed and self._retry() else _MANY_STEPS)
        elif any(group.waiting for group in self.groups):
            self._plan(now_ns) if self._retry() else self._idle()
        else:
            self._idle()

    def _retry(self) -> bool:
        """Whether something that waits can begin already: what was preempted just now may find its prefix elsewhere."""
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

        Each of the micro-batches of a pipeline has a budget of its own; a long prompt follows itself through them.
        """
        settings, brought = self.settings, 0
        if self._holds(group):
            return 0
        group.waited = 0
        budget = settings.token_budget * self.clock.stages
        if settings.mixed_steps and group.decoding:
            budget -= group.decoding * (1 + self.clock.drafts)
        begun = len(self._chunks)
        for task in group.prefilling:
            budget -= self._chunk(group, task, budget)
        waiting = group.waiting
        while waiting and budget > 0 and admits and self._fits(group, waiting[0]):
            task = waiting[0]
            if not settings.chunked_prefill and len(self._chunks) > begun and \
                    task.prompt - self._known(group, task)[2] > budget:
                break   # it begins a step of its own
            brought += self._admit(group, task, now_ns)
            if task.is_prefilled:   # its cache has come over the wires
                task.is_prefilled, task.computed, task.given = False, task.prompt, True
                self.watch.first_token(task, now_ns)
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
            chunk = max(min(chunk, budget), 0)
        if chunk > 0:
            self._chunks.append((group, task, chunk))
        return chunk

    def _push_out(self, group: Group) -> None:
        """Preempt the request that began last: what it had is given up, and computed again later unless it is found."""
        task, free = next(reversed(group.running)), group.pool.room()
        del group.running[task]
        if task in group.prefilling:
            del group.prefilling[task]
            computed = task.computed
        else:
            self._leave_decode(group, task)
            done = group.step - task.begun_step
            grown = 1 + round(task.output * done / task.steps)   # its last token has no cache yet
            task.prompt, task.output = task.prompt + grown, task.output - grown
            task.steps = max(task.steps - done - 1, min(task.output, 1))
            computed = task.prompt - 1
        if self.settings.keeps_preempted and self.settings.prefix_caching and not self._window:
            task.kept = computed // self.block
            task.kept_until = group.pool.taken + free + task.kept
        self._release(group, task, keep=False)
        task.epoch, task.preemptions, task.computed = task.epoch + 1, task.preemptions + 1, 0
        self._chunks = [chunk for chunk in self._chunks if chunk[1] is not task]
        group.waiting.appendleft(task)
        group.waiting_tokens += task.prompt

    def _mixed_s(self) -> tuple[float, float]:
        """A step with prefill in it: what it takes, and what its decodes alone would have taken, s.

        The groups wait for the one with most tokens and the one with most attention. In a pipeline the prompts fill as
        many micro-batches as they need, one after the other; see `_passes`.
        """
        clock, mixed, stages = self.clock, self.settings.mixed_steps, self.clock.stages
        width = 1 + clock.drafts
        prompts: dict[Group, list[float]] = {}   # tokens, seconds of attention, chunks
        for group, task, chunk in self._chunks:
            of = prompts.setdefault(group, [0, 0.0, 0])
            of[0] += chunk
            of[1] += self._attention_s(task.computed, chunk)
            of[2] += 1
        batches = min(stages, ceil(max(of[0] for of in prompts.values()) / self.settings.token_budget))
        tokens = sampled = decoding = 0
        all_tokens = attention_s = 0.0
        for group in self.groups:
            prefill, prefill_s, chunks = prompts.get(group, (0, 0.0, 0))
            one = -(-group.decoding // stages) if mixed else 0
            if one:
                prefill_s += batches * clock.decode_attention(one, group.context / group.decoding)[0]
                all_tokens += group.decoding * width / stages
                decoding = max(decoding, group.decoding)
            tokens = max(tokens, ceil(prefill / batches) + one * width)
            sampled = max(sampled, one + ceil(chunks / batches))
            attention_s = max(attention_s, prefill_s / batches)
            all_tokens += prefill / batches
        heavy_s = clock.pass_s(tokens=tokens, mean_tokens=all_tokens / len(self.groups), attention_s=attention_s,
                               sampled=min(sampled, self.settings.max_sequences), decoding=-(-decoding // stages))
        round_s = self._passes(batches, decoding) * heavy_s
        if not decoding:
            return round_s, 0.0
        flat_s, floor_s, serial_s = clock.decode_parts(decoding, decoding)
        decode_s = max(clock.decode_attention(-(-group.decoding // stages), group.context / group.decoding)[0]
                       for group in self.groups if group.decoding)
        light_s = max(flat_s + decode_s, floor_s) + serial_s
        return round_s, min(stages * light_s, round_s)

    def _passes(self, batches: int, decoding: int) -> int:
        """Passes of the slowest stage that a round with prompts in so many micro-batches takes.

        A sequence that decodes, and a prompt's first token, wait for all stages, and nothing overtakes in a pipeline.
        Chunks of a prompt that goes on follow each other without waiting; the last of them drains the pipeline.
        """
        stages = self.clock.stages
        if stages == 1 or decoding:
            return stages
        if not any(task.computed + chunk >= task.prompt for _, task, chunk in self._chunks):
            return batches
        follows = any(group.waiting for group in self.groups) or any(
            task.computed + chunk < task.prompt for _, task, chunk in self._chunks)
        return stages if follows else stages + batches - 1

    def _attention_s(self, computed: int, chunk: int) -> float:
        """Attention of a prompt's part of a step, a budget at a time."""
        budget, found_s = self.settings.token_budget, 0.0
        while chunk > budget and self.settings.chunked_prefill:
            computed, chunk = computed + budget, chunk - budget
            found_s += self.clock.prefill_attention_s(budget, computed)
        return found_s + self.clock.prefill_attention_s(chunk, computed + chunk)

    def _plan_decode(self, now_ns: int, most_steps: int) -> None:
        """A run of decode steps: as many as until a request ends, a table has a knot, or blocks run out."""
        clock, stages = self.clock, self.clock.stages
        busy = [group for group in self.groups if group.decoding]
        most, mean = busy[0].decoding, float(busy[0].decoding)
        if len(self.groups) > 1:
            most = max(group.decoding for group in busy)
            mean = sum(group.decoding for group in busy) / len(self.groups)
        flat_s, floor_s, serial_s = clock.decode_parts(most, mean)
        steps, lines = most_steps, []
        for group in busy:
            steps = min(steps, group.steps_to_end())
            context, each = group.context / group.decoding, group.growth / group.decoding
            at_s, slope_s, knot = clock.decode_attention(-(-group.decoding // stages), context)
            lines.append((at_s, slope_s * each))
            if knot - context < steps * each:
                steps = max(1, ceil((knot - context) / each))
        at_s, more_s = max(lines) if len(lines) > 1 else lines[0]
        for other_s, faster_s in lines:   # until the attention of another group takes longer
            if faster_s > more_s and other_s + faster_s * steps > at_s + more_s * steps:
                steps = max(1, min(steps, ceil((at_s - other_s) / (faster_s - more_s))))
        first_s = flat_s + at_s
        if first_s < floor_s:   # the host is slower than the device, for so long
            if more_s > 0 and first_s + more_s * (steps - 1) > floor_s:
                steps = max(1, min(steps, ceil((floor_s - first_s) / more_s)))
            first_s, more_s = floor_s, 0.0
        for group in busy:
            steps = group.steps_with_room(steps)
            if group.waiting and self._holds(group):
                steps = min(steps, self.settings.prefill_wait_steps - group.waited)
        self._curve = (stages * (first_s + serial_s), stages * max(more_s, 0.0))
        self._steps = steps
        self.next_ns = now_ns + max(1, self._elapsed_ns(steps))
