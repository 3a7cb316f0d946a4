"""Raw kernel and collective times of one prefill and one decode step, before any stack.

Axes: S = distinct shape, D = deployment (gathers from S).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serried.compiler import ENGINE_FORMAT, operator_kernel_count, operator_time_s, quantise_time_s
from serried.compiler.gemm import ELEMENT_BYTES
from serried.fabric import collective_time_s
from serried.planner.spec import FORMATS, Machine
from serried.serving.memory import PREFILL_BUDGET_TOKENS, largest_batch, wide_attention
from serried.serving.spec import CACHE_FORMATS, Deployments
from serried.workload import block_operators, embedding_operators, head_operators
from serried.workload.spec import (
    Attend,
    Elementwise,
    Exchange,
    Floats,
    Gemm,
    GroupedGemm,
    Operator,
    Serving,
    Shards,
)

__all__ = ["PhaseTimes", "StageTiming", "StaticTables", "packed_requests", "replica_requests", "static_tables"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTimes:
    """One pass through the fullest stage, s on the device with captured launches, by what a stack scales.

    fusible_s, fusible_kernels: elementwise work that fusion removes; memory_bound_s: what it cannot remove.
    kernels: launches apart from the fusible ones. weight_read_s: the part of gemm_s that reading the weights takes.
    """

    gemm_s: Floats
    attention_s: Floats
    memory_bound_s: Floats
    fusible_s: Floats
    quantise_s: Floats
    tensor_s: Floats
    expert_s: Floats
    pipeline_s: Floats
    kernels: Floats
    fusible_kernels: Floats

    def take(self, rows: NDArray[np.intp]) -> PhaseTimes:
        """The entries at `rows`, in that order."""
        return PhaseTimes(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticTables:
    """Everything about a deployment that does not depend on the stack; columns over D.

    prefill: one request's prefill through one stage. packed: a pass that takes the prompts of `packed_requests` of one
    group together. decode: one step of a micro-batch through one stage.
    batch: requests running per replica. requests: requests given to it (more than `batch` wait).
    micro_batches: micro-batches in flight over the stages.
    """

    prefill: PhaseTimes
    packed: PhaseTimes
    decode: PhaseTimes
    packed_requests: Floats
    batch: Floats
    max_batch: Floats
    requests: Floats
    micro_batches: Floats

    def take(self, rows: NDArray[np.intp]) -> StaticTables:
        """The entries at `rows`, in that order."""
        columns: dict[str, Any] = {column.name: getattr(self, column.name) for column in fields(self)}
        taken: dict[str, Any] = {name: column.take(rows) if isinstance(column, PhaseTimes) else column[rows]
                                 for name, column in columns.items()}
        return StaticTables(**taken)


def replica_requests(job: Serving, rows: Deployments) -> Floats:
    """Requests in flight on the fullest replica."""
    return np.asarray(np.ceil(job.concurrency / rows.replicas))


def static_tables(job: Serving, machine: Machine, rows: Deployments) -> StaticTables:
    """Kernel and collective times of every deployment; distinct shapes are timed once and gathered."""
    limit = largest_batch(job, machine, rows)
    requests = replica_requests(job, rows)
    batch = np.maximum(np.minimum(requests, limit), 1.0)
    if job.queued:  # equal waves: a last wave that is half empty takes as many steps, each about as much shorter
        batch = np.ceil(requests / np.ceil(requests / batch))
    micro_batches = np.minimum(rows.pp, batch)
    per_group = np.ceil(batch / micro_batches / rows.attention_dp)
    new_tokens = max(job.input_tokens - job.cached_tokens, 1)
    one = np.ones(len(rows))
    prefill = _phase(job, machine, rows, sequences=one, query_tokens=float(new_tokens),
                     context_tokens=float(max(job.input_tokens, 1)), decode=False)
    together = packed_requests(job, rows, batch)
    packed = prefill if (together == 1.0).all() else _phase(
        job, machine, rows, sequences=together, query_tokens=float(new_tokens),
        context_tokens=float(max(job.input_tokens, 1)), decode=False)
    decode = _phase(job, machine, rows, sequences=per_group, query_tokens=1.0,
                    context_tokens=job.input_tokens + job.output_tokens / 2.0, decode=True)
    return StaticTables(prefill=prefill, packed=packed, decode=decode, packed_requests=together, batch=batch,
                        max_batch=limit, requests=requests, micro_batches=micro_batches)


def packed_requests(job: Serving, rows: Deployments, batch: Floats) -> Floats:
    """Prompts that one pass of a group takes together: those that are waiting when it starts, within the token budget.

    In a loop, batch / output requests end with each step and as many begin. An offline queue never waits to begin;
    requests that begin together end together, so the next ones do too.
    """
    new_tokens = max(job.input_tokens - job.cached_tokens, 1)
    per_group = batch / rows.attention_dp
    waiting = per_group if job.queued else per_group / max(job.output_tokens, 1)
    return np.asarray(np.floor(np.clip(waiting, 1.0, max(PREFILL_BUDGET_TOKENS / new_tokens, 1.0))))


def _phase(job: Serving, machine: Machine, rows: Deployments, *, sequences: Floats, query_tokens: float,
           context_tokens: float, decode: bool) -> PhaseTimes:
    keys = np.column_stack([rows.tp, rows.ep, rows.attention_dp, rows.pp, rows.weight_format, rows.cache_format,
                            sequences])
    distinct, where = np.unique(keys, axis=0, return_inverse=True)
    where = where.ravel()
    columns = {column.name: np.empty(len(distinct)) for column in fields(PhaseTimes)}
    for weight_code, cache_code in np.unique(distinct[:, 4:6], axis=0):
        chosen = np.flatnonzero((distinct[:, 4] == weight_code) & (distinct[:, 5] == cache_code))
        tp, ep, attention_dp, pp, *_, running = distinct[chosen].T
        weight_format = FORMATS[int(weight_code)]
        timed = StageTiming(machine, weight_format, tuple(CACHE_FORMATS)[int(cache_code)], tp=tp, ep=ep,
                            attention_dp=attention_dp, wide_attention=wide_attention(job.model, weight_format)
                            ).stage(job, running, query_tokens, context_tokens, pp, decode)
        for name, column in columns.items():
            column[chosen] = getattr(timed, name)
    return PhaseTimes(**columns).take(where)


class StageTiming:
    """Times operators of one stage and adds them up by what a stack scales; columns over S, one entry per shape.

    tp, ep, attention_dp: degrees by shape. wide_attention: its projections stay in two bytes an element.
    """

    def __init__(self, machine: Machine, weight_format: str, cache_format: str, *, tp: Floats, ep: Floats,
                 attention_dp: Floats, wide_attention: bool = False) -> None:
        self.machine, self.weight_format, self.cache_format = machine, weight_format, cache_format
        self.tp, self.ep, self.attention_dp = tp, ep, attention_dp
        self.base_format = "bf16" if "bf16" in machine.chip.number_formats else "fp16"
        self.wide_attention = wide_attention
        self.native = ENGINE_FORMAT[weight_format] in machine.chip.number_formats
        self.columns = {column.name: np.zeros(len(tp)) for column in fields(PhaseTimes)}

    def shards(self, sequences: Floats, query_tokens: Floats, context_tokens: Floats) -> Shards:
        """The share of one chip when so many sequences run."""
        ones = np.ones(len(self.tp))
        return Shards(sequences=sequences * ones, query_tokens=query_tokens * ones,
                      context_tokens=context_tokens * ones, tensor=self.tp, context=ones, expert=self.ep,
                      expert_tensor=self.tp * self.attention_dp / self.ep,
                      sequence_parallel=np.zeros(len(ones), dtype=bool))

    def times(self) -> PhaseTimes:
        """What was added so far."""
        return PhaseTimes(**self.columns)

    def send(self, hidden_bytes: Floats, pp: Floats) -> None:
        """Add the way of activations to the next stage: engines that fuse the sum of a block into the norm of the next
        hand over the block's output and the residual apart, twice the hidden state."""
        ones = np.ones(len(self.tp))
        hop = collective_time_s("send", 2.0 * hidden_bytes * ones, 2.0 * ones, self.tp * self.attention_dp,
                                fabric=self.machine.fabric)
        self.columns["pipeline_s"] += np.where(pp > 1, hop, 0.0)

    def stage(self, job: Serving, sequences: Floats, query_tokens: float, context_tokens: float, pp: Floats,
              decode: bool) -> PhaseTimes:
        """One pass of the fullest stage: its blocks, the embedding, logits of the last token, the way on."""
        ones = np.ones(len(self.tp))
        shards = self.shards(sequences, query_tokens * ones, context_tokens * ones)
        per_stage = np.ceil(job.model.layer_count / pp) / job.model.layer_count
        for block in job.model.blocks:
            for operator in block_operators(job.model, block, shards, phase="forward", element_bytes=2.0,
                                            decode=decode, serving=True):
                self.add(operator, block.count * per_stage)
        for operator in embedding_operators(job.model, shards, phase="forward", element_bytes=2.0):
            self.add(operator, ones)
        last = replace(shards, query_tokens=ones, context_tokens=ones)  # logits of the last token only
        for operator in head_operators(job.model, last, phase="forward", element_bytes=2.0, loss=False,
                                       decode=decode):
            self.add(operator, ones)
        self.send(2.0 * job.model.hidden * sequences * query_tokens, pp)
        return self.times()

    def add(self, operator: Operator, times: Floats) -> None:
        """Add `times` executions of one operator to the columns."""
        _ADD[type(operator)](self, operator, times)

    def _gemm(self, operator: Gemm | GroupedGemm, times: Floats) -> None:
        if isinstance(operator, GroupedGemm):
            operator = replace(operator, groups=_touched(operator))
        lowered = not getattr(operator, "high_precision", False) and getattr(operator, "weight", True) \
            and ELEMENT_BYTES[self.weight_format] < 2.0 \
            and not (self.wide_attention and operator.name.startswith("attention."))
        if not lowered or not self.native:
            time_s = self._time_s(operator, self.base_format)
            saved_s = self._cast_saving_s(operator, time_s) if lowered else 0.0
            self.columns["gemm_s"] += times * (time_s - saved_s)
        else:
            self.columns["gemm_s"] += times * self._time_s(operator, self.weight_format)
            tokens = operator.rows if isinstance(operator, GroupedGemm) else operator.m
            self.columns["quantise_s"] += times * quantise_time_s(
                tokens, operator.k, chip=self.machine.chip, number_format=self.weight_format,
                parameters=self.machine.profile.parameters("quantise", self.weight_format))
            self.columns["kernels"] += times
        self.columns["kernels"] += times * operator_kernel_count(operator)

    def _cast_saving_s(self, operator: Gemm | GroupedGemm, time_s: Floats) -> Floats:
        """What narrow weights save on a chip without an engine for them: bytes read, never the engine's own time."""
        chip = self.machine.chip
        if isinstance(operator, GroupedGemm):
            weights, flop = operator.groups * operator.n * operator.k, 2.0 * operator.rows * operator.n * operator.k
        else:
            weights = operator.n * operator.k * operator.batch
            flop = 2.0 * operator.m * operator.n * operator.k * operator.batch
        saved_s = weights * (2.0 - ELEMENT_BYTES[self.weight_format]) / chip.need("hbm_bandwidth")
        engine_s = flop / chip.matrix_peak_flop_per_s(self.base_format)
        return np.minimum(saved_s, np.maximum(time_s - engine_s, 0.0))

    def _attend(self, operator: Attend, times: Floats) -> None:
        number_format = self.cache_format if operator.decode else self.base_format
        self.columns["attention_s"] += times * self._time_s(operator, number_format)
        self.columns["kernels"] += times * operator_kernel_count(operator)

    def _elementwise(self, operator: Elementwise, times: Floats) -> None:
        seconds, launches = ("fusible_s", "fusible_kernels") if operator.fusible else ("memory_bound_s", "kernels")
        self.columns[seconds] += times * self._time_s(operator, self.base_format)
        self.columns[launches] += times * operator_kernel_count(operator)

    def _exchange(self, operator: Exchange, times: Floats) -> None:
        expert = operator.axis == "expert"
        # Without attention groups every rank of a stage holds every token: what an expert needs is already there.
        degree = np.where(self.attention_dp > 1, self.ep, 1.0) if expert else self.tp
        stride = self.tp * self.attention_dp / self.ep if expert else np.ones(len(degree))
        time_s = collective_time_s(operator.operation, operator.payload_bytes, degree, stride,
                                   fabric=self.machine.fabric)
        self.columns["expert_s" if expert else "tensor_s"] += times * np.where(degree > 1, time_s, 0.0)
        self.columns["kernels"] += times * (degree > 1) * operator_kernel_count(operator)

    def _time_s(self, operator: Operator, number_format: str) -> Floats:
        return operator_time_s(operator, chip=self.machine.chip, profile=self.machine.profile,
                               number_format=number_format)


def _touched(operator: GroupedGemm) -> Floats:
    """Experts that get a row when rows fall on them by chance: the weights of the others are not read."""
    missed = operator.rows * np.log1p(-1.0 / np.maximum(operator.groups, 1.0 + 1e-9))
    return np.asarray(np.maximum(operator.groups * -np.expm1(missed), np.minimum(operator.rows, 1.0)))


_ADD: dict[type, Callable[..., None]] = {
    Gemm: StageTiming._gemm, GroupedGemm: StageTiming._gemm, Attend: StageTiming._attend,
    Elementwise: StageTiming._elementwise, Exchange: StageTiming._exchange,
}
