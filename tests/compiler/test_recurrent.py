from __future__ import annotations

import numpy as np
import pytest

from serried.compiler import operator_time_s, profile_for
from serried.compiler.attention import AttentionParameters
from serried.compiler.recurrent import recurrent_time_s
from serried.compiler.shape import attention_shape
from serried.silicon import read_chip
from serried.workload import Attend
from tests.compiler.chips import round_chip

IDEAL = AttentionParameters(rate_ratio=1.0, pass_ratio=1.0, launch_s=0.0)


def test_decode_moves_the_state() -> None:
    # one token: 32 heads of 128 x 128 four-byte states read and written, 64 sequences; products are nothing beside it
    shape = attention_shape(sequences=64, query_tokens=1, context_tokens=9999, heads=32, kv_heads=32, head_dim=128)
    state_s = 64 * 2 * 4 * 32 * 128 * 128 / 1e12
    found = float(recurrent_time_s(shape, chip=round_chip(), parameters=IDEAL, decode=True))
    assert found == pytest.approx(state_s, rel=0.1)
    assert found > state_s


def test_prefill_is_linear_and_blind_to_context() -> None:
    def time_s(tokens: float, context: float) -> float:
        shape = attention_shape(sequences=1, query_tokens=tokens, context_tokens=context, heads=32, kv_heads=16,
                                head_dim=128)
        return float(recurrent_time_s(shape, chip=round_chip(), parameters=IDEAL))

    assert time_s(8192, 8192) == pytest.approx(2 * time_s(4096, 4096), rel=1e-9)
    assert time_s(4096, 4096) == time_s(4096, 100_000)


@pytest.mark.parametrize("backward", [False, True])
def test_the_dispatch_knows_linear_attention(backward: bool) -> None:
    chip = read_chip("h100")
    operator = Attend(name="mixer", sequences=np.array([1.0, 2.0]), query_tokens=np.array([4096.0, 4096.0]),
                      context_tokens=np.array([4096.0, 4096.0]), heads=np.array([32.0, 32.0]),
                      kv_heads=np.array([16.0, 16.0]), head_dim=128, value_head_dim=128, linear=True, backward=backward)
    time_s = operator_time_s(operator, chip=chip, profile=profile_for(chip), number_format="fp8")
    assert time_s.shape == (2,)
    assert 0 < time_s[0] < time_s[1] < 5e-3
