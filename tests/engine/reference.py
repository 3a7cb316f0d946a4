"""The same engine, one step at a time, in the plainest words: no jumps, no heaps, no histogram of residues."""

from __future__ import annotations

import math

import numpy as np


def table(x, grid, values):
    return float(np.interp(x, grid, values))


def play(requests, model):
    """first and last token times in ns, and preemptions, of one group of one stage without prefix cache."""
    settings, times, count, block = model.settings, model.step_time, len(requests), model.settings.block_tokens
    prompt, output, arrival = (column.tolist() for column in (requests.input_tokens_R, requests.output_tokens_R,
                                                              requests.arrival_ns_R))
    done, computed = [0] * count, [0] * count   # generated; computed of the prompt, and of what was evicted with it
    target, base = list(prompt), [0] * count   # base: generated tokens that the target contains
    first, last, preempted, now = [-1] * count, [-1] * count, [0] * count, 0
    waiting, running, coming = [], [], list(range(count))

    def decoding_now():
        return [number for number in running if computed[number] >= target[number]]
    def next_blocks():
        lengths = [target[number] + done[number] - base[number] for number in decoding_now()]
        return sum(math.ceil((tokens + 1) / block) - math.ceil(tokens / block) for tokens in lengths)

    def finish(number):
        last[number] = now
        running.remove(number)
    def used():
        return sum(math.ceil((target[n] + (done[n] - base[n] if computed[n] >= target[n] else 0)) / block)
                   for n in running)

    def push_out():
        victim = running.pop()
        waiting.insert(0, victim)
        preempted[victim] += 1
        base[victim], computed[victim] = max(done[victim] - 1, 0), 0
        target[victim] = prompt[victim] + base[victim]

    while coming or waiting or running:
        while coming and arrival[coming[0]] <= now:
            waiting.append(coming.pop(0))
        pushed = False
        while decoding_now() and used() + next_blocks() > model.kv_blocks:
            push_out()
            pushed = True
        decodes = decoding_now()
        budget, chunks = settings.token_budget - (len(decodes) if settings.mixed_steps else 0), []
        for number in (one for one in running if computed[one] < target[one]):
            chunks += [(number, min(target[number] - computed[number], budget))] if budget > 0 else []
            budget -= min(target[number] - computed[number], max(budget, 0))
        while waiting and budget > 0 and not pushed:
            number = waiting[0]
            if len(running) >= settings.max_sequences or \
                    used() + math.ceil(target[number] / block) + next_blocks() > model.kv_blocks:
                break
            running.append(waiting.pop(0))
            chunk = min(target[number], budget)
            chunks.append((number, chunk))
            budget -= chunk
        decodes = decoding_now() if settings.mixed_steps or not chunks else []
        if not chunks and not decodes:
            assert coming, "a request waits for ever"
            now = max(now, arrival[coming[0]])
            continue
        now += max(1, round(step_s(settings, times, chunks, decodes, computed, target, done, base) * 1e9))
        for number in decodes:
            done[number] += 1
            if done[number] == output[number]:
                finish(number)
        for number, chunk in chunks:
            computed[number] += chunk
            if computed[number] >= target[number]:
                first[number] = now if first[number] < 0 else first[number]
                done[number] = max(done[number], 1)
                if done[number] == output[number]:
                    finish(number)
                base[number] = done[number]
    return np.array(first), np.array(last), np.array(preempted)


def step_s(settings, times, chunks, decodes, computed, target, done, base):
    tokens = sum(chunk for _, chunk in chunks) + len(decodes)
    padded = len(decodes)
    if not chunks:
        padded = next((size for size in sorted(settings.capture_sizes) if size >= padded), padded)
        padded = min(padded, max(settings.max_sequences, len(decodes)))
        tokens = padded
    sampled = min(len(decodes) + len(chunks), settings.max_sequences) if chunks else len(decodes)
    device = table(tokens, times.tokens_T, times.dense_s_T) + table(tokens if chunks else len(decodes), times.tokens_T,
                                                                      times.expert_s_T)
    device += table(sampled, times.sequences_B, times.head_s_B)
    for number, chunk in chunks:
        row = [table(chunk, times.query_Q, column) for column in times.prefill_attention_s_QC.T]
        device += table(computed[number] + chunk, times.context_C, row)
    if decodes:
        context = sum(target[number] + done[number] - base[number] for number in decodes) / len(decodes)
        row = [table(len(decodes), times.sequences_B, column) for column in times.decode_attention_s_BC.T]
        device += table(context, times.context_C, row)
    host = times.host_s_per_step + times.host_s_per_sequence * (sampled if chunks else len(decodes))
    captured = max(settings.capture_sizes, default=0)
    launch = 0.0 if (tokens if chunks else len(decodes)) <= captured else times.launches * times.host_s_per_launch
    return max(device, host, launch) if settings.asynchronous else max(device, launch) + host
