"""Time of linear attention: gated delta rules and state-space mixers, whose state does not grow with the context.

Axes: S = shape point.
"""

from __future__ import annotations

import numpy as np

from serried.compiler.attention import AttentionParameters
from serried.compiler.gemm import ENGINE_FORMAT
from serried.compiler.shape import AttentionShape
from serried.silicon.spec import Chip
from serried.workload.spec import Floats

__all__ = ["CHUNK_TOKENS", "recurrent_time_s"]

#: Tokens that chunked kernels treat as one dense block (the published kernels use 64).
CHUNK_TOKENS = 64
#: States are kept in 4-byte numbers.
STATE_BYTES = 4.0


def recurrent_time_s(shape: AttentionShape, *, chip: Chip, parameters: AttentionParameters, decode: bool = False,
                     backward: bool = False, number_format: str = "bf16") -> Floats:
    """Device seconds, captured launch, over S. `context_tokens` does not matter.

    Prefill walks chunks of C tokens: per token, scores within the chunk (2 C dk), their values (2 C dv), and state
    read and update (4 dk dv), with every chunk's state passed through memory. Decode reads and writes every head's
    state once. Backward does twice the products of forward and runs forward's states again.
    """
    tokens, key_dim, value_dim = shape.query_tokens, shape.head_dim, shape.value_head_dim
    hbm_bytes_per_s = chip.need("hbm_bandwidth") * parameters.pass_ratio
    token_bytes = 2.0 * (2 * shape.kv_heads * key_dim + 2 * shape.heads * value_dim)
    chunk_count = np.where(decode, 1.0, np.ceil(tokens / CHUNK_TOKENS))
    state_bytes = 2 * STATE_BYTES * shape.heads * key_dim * value_dim * chunk_count
    traffic_bytes = shape.sequences * (tokens * token_bytes + state_bytes)
    chunk = np.minimum(tokens, CHUNK_TOKENS)
    flop = shape.sequences * tokens * shape.heads * (2 * chunk * (key_dim + value_dim) + 4 * key_dim * value_dim)
    rate_flop_per_s = chip.matrix_peak_flop_per_s(ENGINE_FORMAT[number_format]) * parameters.rate_ratio
    turns = 3.0 if backward else 1.0
    return np.asarray(parameters.launch_s + turns * (flop / rate_flop_per_s + traffic_bytes / hbm_bytes_per_s))
