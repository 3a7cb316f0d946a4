"""Step times as an engine's loop asks for them: plain lists, looked up by whole numbers of tokens and sequences.

Axes: B = sequences, C = context tokens, Q = tokens of a chunk.
"""

from __future__ import annotations

from bisect import bisect_right
from math import inf

import numpy as np

from serried.engine.spec import EngineModel

__all__ = ["StepClock"]


class StepClock:
    """What steps of one engine take, s.

    A pass takes max(device, floor) + serial: the floor is what the host needs meanwhile (launches that are not
    captured; its work between steps when that is done ahead), serial what it needs between passes.
    """

    def __init__(self, model: EngineModel) -> None:
        times, settings = model.step_time, model.settings
        self.stages, self.groups = times.stages, model.groups
        self.drafts = len(settings.acceptance)
        most = settings.token_budget + settings.max_sequences * (1 + self.drafts)
        tokens = np.arange(most + 1, dtype=np.float64)
        self._dense_s: list[float] = np.interp(tokens, times.tokens_T, times.dense_s_T).tolist()
        self._expert_s: list[float] = np.interp(tokens, times.tokens_T, times.expert_s_T).tolist()
        self._most = most
        sequences = np.arange(settings.max_sequences + 1, dtype=np.float64)
        self._head_s: list[float] = np.interp(sequences, times.sequences_B, times.head_s_B).tolist()
        self._draft_s: list[float] = np.interp(sequences, times.sequences_B, times.draft_s_B).tolist()
        self._context: list[float] = times.context_C.tolist()
        self._query: list[float] = times.query_Q.tolist()
        self._prefill_s: list[list[float]] = times.prefill_attention_s_QC.tolist()
        self._times, self._padded = times, _padded(settings.capture_sizes, settings.max_sequences)
        self._largest_captured = max(settings.capture_sizes, default=0)
        self._largest_prompt_pass = self._largest_captured if settings.captures_prompts else 0
        self._asynchronous = settings.asynchronous
        self._launch_s = times.launches * times.host_s_per_launch
        self._segments: dict[int, tuple[list[float], list[float]]] = {}

    def decode_parts(self, sequences: int, mean_sequences: float) -> tuple[float, float, float]:
        """Of a decode-only step with that many sequences in the fullest group: what it takes apart from attention, its
        floor, and what is serial."""
        one = -(-sequences // self.stages)
        padded = self._padded[one]
        width = 1 + self.drafts
        flat_s = (self._dense(padded * width) + self._expert(mean_sequences * width / self.stages)
                  + self._head_s[one] + self._draft_s[one])
        host_s = self._times.host_s_per_step + self._times.host_s_per_sequence * one
        launch_s = 0.0 if one <= self._largest_captured else self._launch_s
        if self._asynchronous:
            return flat_s, max(host_s, launch_s), 0.0
        return flat_s, launch_s, host_s

    def _dense(self, tokens: int) -> float:
        if tokens <= self._most:
            return self._dense_s[tokens]
        return self._dense_s[-1] + (tokens - self._most) * (self._dense_s[-1] - self._dense_s[-2])

    def _expert(self, tokens: float) -> float:
        low = min(int(tokens), self._most - 1)
        return self._expert_s[low] + (tokens - low) * (self._expert_s[low + 1] - self._expert_s[low])

    def decode_attention(self, sequences: int, context: float) -> tuple[float, float, float]:
        """Attention of so many sequences of that mean context: seconds there, seconds more for each further token, and
        the mean context at which this slope ends."""
        values, slopes = self._segments.get(sequences) or self._segment(sequences)
        knots = self._context
        at = min(max(bisect_right(knots, context) - 1, 0), len(slopes) - 1)
        end = knots[at + 1] if at + 1 < len(slopes) else inf
        return values[at] + (context - knots[at]) * slopes[at], slopes[at], end

    def _segment(self, sequences: int) -> tuple[list[float], list[float]]:
        times = self._times
        row_C = np.array([np.interp(sequences, times.sequences_B, column) for column in times.decode_attention_s_BC.T])
        slope_C = np.diff(row_C) / np.diff(times.context_C)
        found = self._segments[sequences] = row_C.tolist(), slope_C.tolist()
        return found

    def prefill_attention_s(self, query: int, context: int) -> float:
        """Attention of a chunk of `query` tokens that ends a context of `context` tokens."""
        knots_q, knots_c, table = self._query, self._context, self._prefill_s
        i = min(max(bisect_right(knots_q, query) - 1, 0), len(knots_q) - 2)
        j = min(max(bisect_right(knots_c, context) - 1, 0), len(knots_c) - 2)
        u = (query - knots_q[i]) / (knots_q[i + 1] - knots_q[i])
        v = (context - knots_c[j]) / (knots_c[j + 1] - knots_c[j])
        low, high = table[i], table[i + 1]
        below = low[j] + v * (low[j + 1] - low[j])
        return max(below + u * (high[j] + v * (high[j + 1] - high[j]) - below), 0.0)

    def pass_s(self, *, tokens: int, mean_tokens: float, sampled: int, decoding: int, attention_s: float) -> float:
        """One pass that computes prefill chunks, perhaps beside decodes: `tokens` in the fullest group, `decoding`
        sequences that decode there; `sampled` sequences get a token."""
        device_s = (self._dense(tokens) + self._expert(mean_tokens) + self._head_s[sampled] + attention_s
                    + self._draft_s[decoding])
        host_s = self._times.host_s_per_step + self._times.host_s_per_sequence * sampled
        launch_s = 0.0 if tokens <= self._largest_prompt_pass else self._launch_s
        if self._asynchronous:
            return max(device_s, host_s, launch_s)
        return max(device_s, launch_s) + host_s


def _padded(capture_sizes: tuple[int, ...], most: int) -> list[int]:
    """Sequences that a step of 0, 1, ... `most` sequences computes: the next captured size, or just as many."""
    sizes, found, at = sorted(capture_sizes), [], 0
    for sequences in range(most + 1):
        while at < len(sizes) and sizes[at] < sequences:
            at += 1
        found.append(min(sizes[at], most) if at < len(sizes) and sequences else sequences)
    return found


