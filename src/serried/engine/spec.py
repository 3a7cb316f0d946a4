"""Nouns of the engine.

Axes: T = tokens of a step (of one group), B = sequences that decode, C = context tokens, Q = tokens of a prefill chunk,
R = request, E = engine (replica).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cluster", "EngineModel", "EnginePool", "EngineSettings", "KvTransfer", "SimulationLog", "StepTime"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How an engine batches; the names that engines give their own flags stand in data/engines.

    max_sequences: running at once in a group. token_budget: tokens of one step of a group. chunked_prefill: a prompt
    may be cut at the budget. mixed_steps: prefill chunks and decodes share a step; else prefills go first, alone.
    block_tokens: tokens of a KV block. prefix_caching: blocks of ended requests are found again until evicted.
    capture_sizes: sequence counts at which decode steps are captured as graphs, ascending; a batch is padded up to the
    next; larger ones run eagerly. captures_prompts: passes with prompt tokens are captured in pieces up to the same
    size; else they run eagerly. asynchronous: the host prepares the next step while the device runs this one.
    ahead_steps: decode steps that the device has been given when the host hears of a new request, beyond the present
    one.
    acceptance: chance that the draft at position 1, 2, ... is accepted given all before it were; () = no drafts.
    keeps_preempted: full blocks of a preempted request are found again until somebody takes them.
    prefill_wait_steps: while others decode, waiting prompts are held for so many steps, or until they fill
    prefill_wait_ratio of the token budget; 0 = they are not held.
    """

    max_sequences: int
    token_budget: int
    chunked_prefill: bool = True
    mixed_steps: bool = True
    block_tokens: int = 16
    prefix_caching: bool = True
    capture_sizes: tuple[int, ...] = ()
    captures_prompts: bool = True
    asynchronous: bool = True
    acceptance: tuple[float, ...] = ()
    ahead_steps: int = 0
    keeps_preempted: bool = False
    prefill_wait_steps: int = 0
    prefill_wait_ratio: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """What a step takes on the device, as tables (piecewise linear between the grid points), and on the host.

    A step of one group computes T tokens (drafts included). The groups of an engine (attention_dp) step together, each
    with requests of its own.
    dense_s_T: all but attention and experts, at the tokens of the fullest group, exposed collectives included.
    expert_s_T: experts and their exchanges, at the mean tokens of the groups; zeros for a dense model.
    head_s_B: logits and sampling for B sequences.
    decode_attention_s_BC: attention of B decoding sequences whose mean context is C.
    prefill_attention_s_QC: attention of one chunk of Q new tokens that ends a context of C tokens (C >= Q).
    draft_s_B: drafting for B sequences before they are verified; zeros without drafts.
    stages: pipeline stages; the tables are those of the slowest stage for a micro-batch, and a round of an engine is
    `stages` passes, each over its share of the sequences.
    launches: kernels of one pass, each host_s_per_launch on the host when it is not captured; a pass is never shorter.
    host_s_per_step, host_s_per_sequence: scheduling, sampling, detokenising; hidden when asynchronous, as far as the
    device runs that long.
    """

    tokens_T: Floats
    dense_s_T: Floats
    expert_s_T: Floats
    sequences_B: Floats
    head_s_B: Floats
    draft_s_B: Floats
    context_C: Floats
    decode_attention_s_BC: Floats
    query_Q: Floats
    prefill_attention_s_QC: Floats
    stages: int = 1
    launches: float = 0.0
    host_s_per_launch: float = 0.0
    host_s_per_step: float = 0.0
    host_s_per_sequence: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineModel:
    """One engine: settings, step times, memory.

    groups: attention groups that step together. kv_blocks: blocks of one group. host_blocks: blocks of the host-memory
    tier below a group, 0 = none; host_block_s: time to bring one block back from there.
    window_tokens: blocks that slid out of every layer's window are freed; 0 = none are. A request that outgrows it
    takes the blocks of the window and one more at once, and neither finds nor leaves a prefix.
    """

    settings: EngineSettings
    step_time: StepTime
    kv_blocks: int
    groups: int = 1
    host_blocks: int = 0
    host_block_s: float = 0.0
    window_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePool:
    """Equal engines behind one router ("round_robin", "least_loaded" or "prefix")."""

    engine: EngineModel
    count: int
    router: str = "least_loaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class KvTransfer:
    """How caches move from prefill to decode engines.

    bytes_per_token, bytes_per_request: of one request's cache. send_bytes_per_s, receive_bytes_per_s: of one prefill
    and one decode engine, shared max-min by the transfers under way; total_bytes_per_s: of the wires between the pools.
    latency_s: of one transfer.
    """

    bytes_per_token: float
    bytes_per_request: float
    send_bytes_per_s: float
    receive_bytes_per_s: float
    total_bytes_per_s: float
    latency_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A deployment as the simulator sees it: one pool that does all, or a prefill pool before it.

    serve: runs whole requests, or only their decoding where `prefill` is given; then `transfer` lies between.
    """

    serve: EnginePool
    prefill: EnginePool | None = None
    transfer: KvTransfer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationLog:
    """What happened. Times in ns since the beginning; -1 where it did not.

    Columns over R: arrival (as it came to be in sessions and closed loops), scheduled, first and last token (with a
    prefill pool the first is heard from the engine that decodes, when the request has its seat there); tokens found in
    a cache; times preempted; engine that served (decoded) it. reason_R: 0 = served, 1 = refused since it can
    never fit (see `simulate`). Columns over E (prefill engines first): busy time, steps, tokens computed, most blocks
    held, blocks evicted, and of the busy time what prompts added and what blocks brought up from the host took.
    """

    arrival_ns_R: Ints
    scheduled_ns_R: Ints
    first_token_ns_R: Ints
    last_token_ns_R: Ints
    cached_tokens_R: Ints
    preemptions_R: Ints
    engine_R: Ints
    reason_R: Ints
    busy_ns_E: Ints
    steps_E: Ints
    tokens_E: Ints
    peak_blocks_E: Ints
    evicted_blocks_E: Ints
    prefill_ns_E: Ints
    brought_ns_E: Ints
    end_ns: int = 0
    spans: tuple[tuple[int, int, int, int, int, int], ...] = field(default=())
    """(engine, start ns, end ns, prefill tokens, decoding sequences, steps) of each run of steps, when asked for."""
