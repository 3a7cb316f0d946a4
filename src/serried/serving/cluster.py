"""From deployments to what the request simulator runs: engines with step times and memory, and wires between pools.

Axes: D = deployment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from serried.engine import Cluster, EngineModel, EnginePool, KvTransfer
from serried.engine.spec import StepTime
from serried.errors import NoAnswer
from serried.planner.spec import Machine
from serried.serving.memory import activation_bytes, cache_bytes, weight_bytes
from serried.serving.profile import EngineProfile
from serried.serving.spec import Deployments
from serried.serving.steps import step_times
from serried.units import format_quantity
from serried.workload import Model
from serried.workload.spec import Floats

__all__ = ["CacheMemory", "PoolPlan", "cache_memory", "cluster_of", "engine_models", "transfer_between"]

#: Two contexts beyond every window of today's models, between which caches grow in proportion.
_LONG_TOKENS = 1_000_000.0
#: Share of the memory left for caches that states of a fixed size may take.
_MOST_STATES = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMemory:
    """Memory for caches on one chip of a group, over D. token_bytes: of one more token of one request; request_bytes:
    what a request takes whatever its length (states, windows); blocks: what is left, in blocks of the engine;
    max_sequences: seats; free_bytes: what is left before caches (below zero: nothing fits)."""

    token_bytes: Floats
    request_bytes: Floats
    free_bytes: Floats
    blocks: Floats
    max_sequences: Floats


def cache_memory(model: Model, machine: Machine, rows: Deployments, profile: EngineProfile) -> CacheMemory:
    """How many blocks of KV cache each deployment has on a chip, and how many requests may run."""
    settings = profile.settings
    seats = np.where(rows.max_batch > 0, np.ceil(rows.max_batch / rows.attention_dp), settings.max_sequences)
    token_bytes = (cache_bytes(model, rows, 2 * _LONG_TOKENS) - cache_bytes(model, rows, _LONG_TOKENS)) / _LONG_TOKENS
    request_bytes = np.maximum(cache_bytes(model, rows, _LONG_TOKENS) - token_bytes * _LONG_TOKENS, 0.0)
    request_bytes[request_bytes < 1.0] = 0.0   # rounding of long contexts
    working = activation_bytes(model, rows, settings.token_budget, min(settings.max_sequences, 512))
    held = profile.runtime_bytes + weight_bytes(model, rows) + working
    usable = machine.chip.need("hbm_capacity") * (1.0 if profile.fraction_of_free else profile.memory_fraction)
    free = (usable - held) * (profile.memory_fraction if profile.fraction_of_free else 1.0)
    with np.errstate(divide="ignore"):
        seats = np.where(request_bytes > 0, np.minimum(seats, np.floor(np.maximum(free, 0.0) * _MOST_STATES
                                                                       / np.maximum(request_bytes, 1.0))), seats)
    left = np.maximum(free - seats * request_bytes, 0.0)
    blocks = np.where(token_bytes > 0, np.floor(left / np.maximum(token_bytes * settings.block_tokens, 1e-9)), 2.0**31)
    return CacheMemory(token_bytes=token_bytes, request_bytes=request_bytes, free_bytes=free,
                       blocks=np.where(free > 0, blocks, 0.0), max_sequences=np.maximum(seats, 0.0))


def engine_models(model: Model, machine: Machine, rows: Deployments, profile: EngineProfile, *,
                  host_memory_bytes: float = 0.0, host_bandwidth_bytes_per_s: float = 50e9,
                  stack: Mapping[str, float] | None = None) -> list[EngineModel | None]:
    """One engine per deployment, None where nothing fits; the tables of all are made together.

    host_memory_bytes: of one chip's share of the host that holds evicted blocks, 0 = no such tier.
    """
    memory = cache_memory(model, machine, rows, profile)
    fits = np.flatnonzero((memory.blocks >= 1) & (memory.max_sequences >= 1))
    steps = dict(zip(fits.tolist(), step_times(model, machine, rows.take(fits), stack=stack,
                                               drafts=len(profile.settings.acceptance)), strict=True))
    return [_engine(row, steps[row], memory, rows, profile, host_memory_bytes, host_bandwidth_bytes_per_s)
            if row in steps else None for row in range(len(rows))]


def _engine(row: int, step_time: StepTime, memory: CacheMemory, rows: Deployments, profile: EngineProfile,
            host_memory_bytes: float, host_bandwidth_bytes_per_s: float) -> EngineModel:
    block_bytes = float(memory.token_bytes[row]) * profile.settings.block_tokens
    settings = replace(profile.settings, max_sequences=int(memory.max_sequences[row]),
                       capture_sizes=profile.settings.capture_sizes if rows.captured[row] else ())
    return EngineModel(settings=settings, step_time=step_time, kv_blocks=int(memory.blocks[row]),
                       groups=int(rows.attention_dp[row]),
                       host_blocks=int(host_memory_bytes / block_bytes) if block_bytes else 0,
                       host_block_s=block_bytes / host_bandwidth_bytes_per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """One pool of a deployment: equal engines of `row` (a table of one) on a machine."""

    machine: Machine
    row: Deployments
    profile: EngineProfile
    router: str = "least_loaded"


def cluster_of(model: Model, serve: PoolPlan, prefill: PoolPlan | None = None, *, host_memory_bytes: float = 0.0,
               ) -> Cluster:
    """What the simulator runs. Raises NoAnswer, by how many bytes and with what would fit, when a pool does not fit."""
    pools = [_pool(model, plan, host_memory_bytes) for plan in (serve, prefill) if plan is not None]
    if prefill is None:
        return Cluster(serve=pools[0])
    return Cluster(serve=pools[0], prefill=pools[1], transfer=transfer_between(model, prefill, serve))


def _pool(model: Model, plan: PoolPlan, host_memory_bytes: float) -> EnginePool:
    engine = engine_models(model, plan.machine, plan.row, plan.profile, host_memory_bytes=host_memory_bytes)[0]
    if engine is None:
        raise _does_not_fit(model, plan)
    return EnginePool(engine=engine, count=int(plan.row.replicas[0]), router=plan.router)


def transfer_between(model: Model, prefill: PoolPlan, decode: PoolPlan) -> KvTransfer:
    """How caches cross: each engine sends and receives over the network adapters of its chips, at the slower end's
    outermost tier."""
    one = replace(decode.row, tp=np.ones_like(decode.row.tp), pp=np.ones_like(decode.row.pp))
    long, longer = (float(cache_bytes(model, one, tokens)[0]) for tokens in (_LONG_TOKENS, 2 * _LONG_TOKENS))
    per_token = (longer - long) / _LONG_TOKENS
    ends = [(plan.machine.fabric.tiers[-1], int(plan.row.chips_per_replica[0]), int(plan.row.replicas[0]))
            for plan in (prefill, decode)]
    send, receive = (tier.bandwidth_bytes_per_s * chips for tier, chips, _ in ends)
    total = min(tier.bandwidth_bytes_per_s * chips * count / tier.oversubscription for tier, chips, count in ends)
    return KvTransfer(bytes_per_token=per_token, bytes_per_request=max(long - per_token * _LONG_TOKENS, 0.0),
                      send_bytes_per_s=send, receive_bytes_per_s=receive, total_bytes_per_s=total,
                      latency_s=max(tier.latency_s for tier, _, _ in ends))


def _does_not_fit(model: Model, plan: PoolPlan) -> NoAnswer:
    memory = cache_memory(model, plan.machine, plan.row, plan.profile)
    block = float(memory.token_bytes[0]) * plan.profile.settings.block_tokens + float(memory.request_bytes[0])
    missing = block - float(memory.free_bytes[0])
    fitting = _smallest_tensor_degree(model, plan)
    return NoAnswer(
        f"{model.name} does not fit {int(plan.row.chips_per_replica[0])} {plan.machine.chip.name} a replica: a chip "
        f"lacks {format_quantity(missing, 'bytes')} of the "
        f"{1.0 if plan.profile.fraction_of_free else plan.profile.memory_fraction:.0%} of its memory that "
        f"{plan.profile.name} uses.", binding="memory",
        remedy=f"tp={fitting} would fit." if fitting else
        "Use narrower formats, more stages, or chips with more memory.")


def _smallest_tensor_degree(model: Model, plan: PoolPlan) -> int:
    """The smallest larger tensor degree, by doubling, at which one block fits; 0 when none up to 64 does."""
    tp = int(plan.row.tp[0])
    while tp < 64:
        tp *= 2
        row = replace(plan.row, tp=np.array([tp]), ep=np.where(plan.row.ep > 1, tp, plan.row.ep))
        if cache_memory(model, plan.machine, row, plan.profile).blocks[0] >= 1:
            return tp
    return 0

