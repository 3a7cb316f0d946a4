"""Step times that are whole nanoseconds, so that runs of steps and single steps can be compared exactly."""

from __future__ import annotations

import numpy as np

from serried.engine import Cluster, EngineModel, EnginePool, EngineSettings, StepTime
from serried.traffic import Requests

#: Divided by 1 to 4 groups or stages it stays whole.
WHOLE_NS = 12


def step_time(*, base_ns: int = 5_000, token_ns: int = 3, expert_ns: int = 0, head_ns: int = 0, context_ns: int = 1,
              far_context_ns: int = 1, prompt_ns: int = 1, stages: int = 1, **changes) -> StepTime:
    """Dense work of base + token T; experts, head and attention in proportion to tokens, sequences, B C and Q.

    far_context_ns: attention by context token beyond a mean context of 64.
    """
    far, most = 64.0, 65_536.0
    tokens = np.array([0.0, 1.0, most])
    sequences = np.arange(0.0, 129.0)
    per_sequence = np.array([0.0, context_ns * far, context_ns * far + far_context_ns * (most - far)])
    values = {
        "tokens_T": tokens, "dense_s_T": (base_ns + token_ns * tokens) * 1e-9,
        "expert_s_T": WHOLE_NS * expert_ns * tokens * 1e-9,
        "sequences_B": sequences, "head_s_B": head_ns * sequences * 1e-9, "draft_s_B": 0.0 * sequences,
        "context_C": np.array([0.0, far, most]),
        "decode_attention_s_BC": sequences[:, None] * per_sequence[None, :] * 1e-9,
        "query_Q": np.array([1.0, most]),
        "prefill_attention_s_QC": WHOLE_NS * prompt_ns * 1e-9 * np.array([[1.0] * 3, [most] * 3]), "stages": stages}
    return StepTime(**(values | changes))


def engine(*, blocks: int = 1_000, groups: int = 1, steps: StepTime | None = None, window_tokens: int = 0,
           host_blocks: int = 0, host_block_s: float = 0.0, **settings) -> EngineModel:
    """An engine of such steps, without graphs or host costs unless asked for."""
    chosen = {"max_sequences": 16, "token_budget": 128, "block_tokens": 16, "prefix_caching": False} | settings
    return EngineModel(settings=EngineSettings(**chosen), step_time=steps or step_time(), kv_blocks=blocks,
                       groups=groups, window_tokens=window_tokens, host_blocks=host_blocks, host_block_s=host_block_s)


def alone(model: EngineModel, *, count: int = 1, router: str = "least_loaded") -> Cluster:
    """One pool that does all."""
    return Cluster(serve=EnginePool(engine=model, count=count, router=router))


def requests(arrival_ns, inputs, outputs, **more) -> Requests:
    """Columns from lists."""
    columns = {"arrival_ns_R": arrival_ns, "input_tokens_R": inputs, "output_tokens_R": outputs,
               "class_R": [0] * len(inputs)}
    arrays = {name: np.array(column, dtype=np.int64) for name, column in columns.items()}
    return Requests(**arrays, **{name: np.array(column, dtype=np.int64) if isinstance(column, list) else column
                                 for name, column in more.items()})
