"""An engine as plainly as it can be written: one step after the other, every block counted anew each time.

It shares no code with `serried.engine`. A request is (arrival, prompt, output, units); blocks of a step's decodes are
taken at its end; what arrives at the very moment at which a step begins waits for that step.
"""

from __future__ import annotations

import numpy as np

from serried.engine import EngineModel


class One:
    """A request. computed: tokens in its cache; generated: tokens of its answer."""

    def __init__(self, number, arrival_ns, prompt, output, units):
        self.number, self.arrival_ns, self.prompt, self.output, self.units = number, arrival_ns, prompt, output, units
        self.computed = self.generated = self.preemptions = self.cached = 0
        self.target = prompt      # tokens to compute before the next one is generated
        self.is_decoding = False
        self.scheduled_ns = self.first_ns = self.last_ns = -1
        self.held = []


class Memory:
    """Blocks of a group: those of running requests, and units that are kept after them, longest unused first."""

    def __init__(self, model, unit_blocks):
        self.block, self.capacity, self.unit_blocks = model.settings.block_tokens, model.kv_blocks, unit_blocks
        self.kept, self.peak, self.evicted = [], 0, 0

    def blocks(self, one, more=0):
        tokens = one.computed + more if one.is_decoding else one.target
        return -(-tokens // self.block)

    def used(self, running, more=0):
        """Private blocks and distinct held units, if all decoding requests grew by `more` tokens."""
        private = sum(self.blocks(one, more) - self.unit_blocks * len(one.held) for one in running)
        return private + self.unit_blocks * len({unit for one in running for unit in one.held})

    def settle(self, running):
        """Evict until all fits."""
        used = self.used(running)
        assert used <= self.capacity
        while used + self.unit_blocks * len(self.kept) > self.capacity:
            self.kept.pop(0)
            self.evicted += self.unit_blocks
        self.peak = max(self.peak, used)

    def found(self, one, running):
        here, known = {unit for other in running for unit in other.held} | set(self.kept), []
        for unit in one.units:
            if unit not in here or (len(known) + 1) * self.unit_blocks * self.block >= one.target:
                break
            known.append(unit)
        return known

    def let_go(self, one, running):
        """Called when `one` is not among `running` any more."""
        for unit in reversed(one.held):
            if not any(unit in other.held for other in running):
                self.kept.append(unit)
        one.held = []


class Reference:
    """One engine and its requests, to the end."""

    def __init__(self, model: EngineModel, arriving, unit_blocks: int = 1):
        self.model, self.settings, self.steps_of = model, model.settings, model.step_time
        self.arriving = [One(number, *row) for number, row in enumerate(arriving)]
        self.ones = list(self.arriving)
        self.memory = [Memory(model, unit_blocks) for _ in range(model.groups)]
        self.waiting = [[] for _ in range(model.groups)]
        self.running = [[] for _ in range(model.groups)]
        self.busy_ns = self.steps = 0
        self.play()

    def play(self):
        now_ns = 0
        while self.arriving or any(self.waiting) or any(self.running):
            if not any(self.waiting) and not any(self.running):
                now_ns = max(now_ns, self.arriving[0].arrival_ns)
                self.arrive()
            chunks, decoding = self.schedule(now_ns)
            length_ns = self.length_ns(chunks, decoding)
            end_ns = now_ns + length_ns
            self.busy_ns, self.steps = self.busy_ns + length_ns, self.steps + 1
            while self.arriving and self.arriving[0].arrival_ns < end_ns:
                self.arrive()
            self.finish(chunks, decoding, end_ns)
            now_ns = end_ns

    def arrive(self):
        one = self.arriving.pop(0)
        group = min(range(self.model.groups), key=lambda g: (len(self.running[g]) + len(self.waiting[g]),
                                                             sum(other.target for other in self.waiting[g]), g))
        self.waiting[group].append(one)

    def schedule(self, now_ns):
        """Prefill chunks [(group, request, tokens)] and decoding requests by group of the next step."""
        chunks, mixed = [], self.settings.mixed_steps
        for group in range(self.model.groups):
            pushed = mixed and self.make_room(group)
            chunks += self.fill(group, now_ns, may_admit=not pushed)
        if chunks and not mixed:
            return chunks, [[] for _ in self.running]
        if not chunks:
            for group in range(self.model.groups):
                self.make_room(group)
        decoding = [[one for one in running if one.is_decoding] for running in self.running]
        if not chunks and not any(decoding):
            return self.schedule(now_ns)   # all were preempted: the first of them begins again
        return chunks, decoding

    def make_room(self, group):
        running, memory, pushed = self.running[group], self.memory[group], False
        while any(one.is_decoding for one in running) and memory.used(running, 1) > memory.capacity:
            one = running.pop()
            memory.let_go(one, running)
            one.target, one.computed, one.is_decoding = one.prompt + one.generated, 0, False
            one.preemptions += 1
            self.waiting[group].insert(0, one)
            pushed = True
        return pushed

    def fill(self, group, now_ns, *, may_admit):
        running, waiting, memory, chunks = self.running[group], self.waiting[group], self.memory[group], []
        budget = self.settings.token_budget * self.steps_of.stages
        if self.settings.mixed_steps:
            budget -= sum(one.is_decoding for one in running)

        def chunk(one):
            left = one.target - one.computed
            tokens = min(left, max(budget, 0)) if self.settings.chunked_prefill else left
            if tokens:
                chunks.append((group, one, tokens))
            return tokens

        for one in running:
            if not one.is_decoding:
                budget -= chunk(one)
        while waiting and budget > 0 and may_admit and len(running) < self.settings.max_sequences:
            one = waiting[0]
            known = memory.found(one, running)
            tokens = len(known) * memory.unit_blocks * memory.block
            if not self.settings.chunked_prefill and chunks and one.target - tokens > budget:
                break
            one.held = known
            if memory.used([*running, one], 1) > memory.capacity:
                one.held = []
                break
            waiting.pop(0)
            memory.kept = [unit for unit in memory.kept if unit not in known]
            running.append(one)
            one.computed = one.cached_now = tokens
            memory.settle(running)
            if one.scheduled_ns < 0:
                one.scheduled_ns, one.cached = now_ns, tokens
            budget -= chunk(one)
        return chunks

    def length_ns(self, chunks, decoding):
        """One pass of the fullest group, or a round of a pipeline."""
        times, settings, groups, stages = self.steps_of, self.settings, self.model.groups, self.steps_of.stages
        prompt = [sum(tokens for group, _, tokens in chunks if group == g) for g in range(groups)]
        counts = [len(ones) for ones in decoding]
        batches = max(1, min(stages, -(-max(prompt) // settings.token_budget)))
        decodes = [-(-count // stages) for count in counts]
        captured = [number for number in settings.capture_sizes if number >= max(decodes)]
        if captured and not chunks:
            decodes = [min(captured[0], settings.max_sequences)]   # padded up to the next graph
        tokens = [-(-more // batches) + count for more, count in zip(prompt, decodes * groups, strict=False)]
        sampled = max(-(-sum(group == g for group, _, _ in chunks) // batches) + -(-counts[g] // stages)
                      for g in range(groups))
        attention_s = []
        for g in range(groups):
            seconds = sum(self.table(times.prefill_attention_s_QC, times.query_Q, times.context_C, more,
                                     one.computed + more) for group, one, more in chunks if group == g) / batches
            if counts[g]:
                mean = sum(one.computed for one in decoding[g]) / counts[g]
                seconds += self.table(times.decode_attention_s_BC, times.sequences_B, times.context_C,
                                      -(-counts[g] // stages), mean)
            attention_s.append(seconds)
        mean_tokens = (sum(prompt) / batches + sum(counts) / stages) / groups
        pass_s = (np.interp(max(tokens), times.tokens_T, times.dense_s_T)
                  + np.interp(mean_tokens, times.tokens_T, times.expert_s_T)
                  + np.interp(min(sampled, settings.max_sequences), times.sequences_B, times.head_s_B)
                  + max(attention_s))
        given = max(tokens) if chunks else max(-(-count // stages) for count in counts)
        largest = max(settings.capture_sizes, default=0) if settings.captures_prompts or not chunks else 0
        launch_s = times.launches * times.host_s_per_launch * (given > largest)
        ones = sampled if chunks else max(-(-count // stages) for count in counts)
        host_s = times.host_s_per_step + times.host_s_per_sequence * min(ones, settings.max_sequences)
        pass_s = max(pass_s, launch_s, host_s) if settings.asynchronous else max(pass_s, launch_s) + host_s
        passes = stages
        if chunks and not any(counts):
            ends = [one.computed + more >= one.target for _, one, more in chunks]
            if not any(ends):
                passes = batches
            elif all(ends) and not any(self.waiting):
                passes = stages + batches - 1
        return round(passes * pass_s * 1e9)

    @staticmethod
    def table(values, rows, columns, row, column):
        return np.interp(row, rows, [np.interp(column, columns, line) for line in values])

    def finish(self, chunks, decoding, end_ns):
        for group, ones in enumerate(decoding):
            for one in ones:
                one.computed, one.generated = one.computed + 1, one.generated + 1
            self.memory[group].settle(self.running[group])
            for one in sorted(ones, key=lambda one: one.number):
                self.end_if_done(group, one, end_ns)
        for group, one, tokens in chunks:
            one.computed += tokens
            if one.computed < one.target:
                continue
            one.is_decoding, one.generated = True, one.generated + 1
            others = [other for other in self.running[group] if other is not one]
            self.memory[group].kept = [unit for unit in self.memory[group].kept if unit not in one.units]
            one.held = list(one.units)
            if one.first_ns < 0:
                one.first_ns = end_ns
            assert self.memory[group].used([*others, one]) <= self.memory[group].capacity
            self.end_if_done(group, one, end_ns)

    def end_if_done(self, group, one, end_ns):
        if one.generated == one.output:
            one.last_ns = end_ns
            self.running[group].remove(one)
            self.memory[group].let_go(one, self.running[group])
