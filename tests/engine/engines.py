"""Small engines whose step times are simple formulas."""

import numpy as np

from serried.engine import EngineModel, EngineSettings, StepTime
from serried.traffic import Requests


def step_time(*, base_s=0.008, token_s=2e-5, sequence_s=1e-6, context_s=2e-9, pair_s=1e-10, scale=1.0, stages=1,
              host_s=0.0, launches=0.0, expert_s=0.0):
    """A step: base, tokens, one for each decoding sequence and token of its context, and pairs of a prefill."""
    tokens = np.array([0.0, 1.0, 400.0, 20_000.0])
    sequences = np.array([0.0, 1.0, 64.0, 4096.0])
    context = np.array([0.0, 64.0, 256.0, 1024.0, 200_000.0])
    query = np.array([1.0, 64.0, 20_000.0])
    return StepTime(
        tokens_T=tokens, dense_s_T=scale * (base_s + token_s * tokens), expert_s_T=scale * expert_s * tokens,
        sequences_B=sequences, head_s_B=scale * sequence_s * sequences, draft_s_B=0.0 * sequences, context_C=context,
        decode_attention_s_BC=scale * (context_s * sequences[:, None] * context[None, :] + 1e-12 * context**1.5),
        query_Q=query, prefill_attention_s_QC=scale * pair_s * query[:, None] * context[None, :], stages=stages,
        launches=launches, host_s_per_launch=1e-5 * scale, host_s_per_step=host_s * scale)


def engine(*, times=None, kv_blocks=10_000, groups=1, host_blocks=0, window_tokens=0, **settings):
    defaults = {"max_sequences": 64, "token_budget": 512, "block_tokens": 16}
    return EngineModel(settings=EngineSettings(**{**defaults, **settings}), step_time=times or step_time(),
                       kv_blocks=kv_blocks, groups=groups, host_blocks=host_blocks,
                       host_block_s=1e-4 if host_blocks else 0.0, window_tokens=window_tokens)


def requests(arrival_s, inputs, outputs, **more):
    count = len(inputs)
    return Requests(arrival_ns_R=np.round(np.asarray(arrival_s) * 1e9).astype(np.int64),
                    input_tokens_R=np.asarray(inputs, dtype=np.int64),
                    output_tokens_R=np.asarray(outputs, dtype=np.int64),
                    class_R=np.zeros(count, dtype=np.int64), **more)


def poisson_load(count, rate_per_s, seed, *, inputs=(10, 600), outputs=(1, 80)):
    random = np.random.default_rng(seed)
    return requests(np.cumsum(random.exponential(1 / rate_per_s, count)), random.integers(*inputs, count),
                    random.integers(*outputs, count))
