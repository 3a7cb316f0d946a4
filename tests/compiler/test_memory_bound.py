from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serried.compiler.memory_bound import MemoryBoundParameters, hbm_time_s, memory_bound_time_s
from tests.compiler.chips import round_chip

PARAMETERS = MemoryBoundParameters(hbm_ratio=0.8, cache_ratio=2.0, launch_s=3e-6)


def test_hand_worked() -> None:
    # 1 GB at 0.8 TB/s is 1.25 ms, far beyond a cache of 40 MB; one launch on top
    assert float(memory_bound_time_s(np.array(0.6e9), np.array(0.4e9), chip=round_chip(),
                                     parameters=PARAMETERS)) == pytest.approx(1.25e-3 + 3e-6)
    # 10 MB: three quarters still lie in the cache, at twice the bandwidth
    assert float(hbm_time_s(np.array(10e6), round_chip(), PARAMETERS)) == pytest.approx(10e6 * (0.25 + 0.375) / 0.8e12)


def test_nothing_costs_nothing_and_kernels_cost_launches() -> None:
    chip = round_chip()
    assert float(memory_bound_time_s(np.array(0.0), np.array(0.0), chip=chip, parameters=PARAMETERS)) == 0.0
    one, three = (float(memory_bound_time_s(np.array(1e9), np.array(0.0), chip=chip, parameters=PARAMETERS,
                                            kernel_count=count)) for count in (1.0, 3.0))
    assert three == pytest.approx(one + 6e-6)


@given(low=st.floats(1, 1e10), more=st.floats(0, 1e10))
def test_more_bytes_never_take_less_time_and_never_beat_the_cache(low: float, more: float) -> None:
    chip = round_chip()
    time_s = hbm_time_s(np.array([low, low + more]), chip, PARAMETERS)
    assert time_s[1] >= time_s[0] * (1 - 1e-12)
    assert time_s[0] >= low / (1e12 * 0.8 * 2.0) * (1 - 1e-12)


@given(second=st.floats(0.01, 100), byte=st.floats(0.01, 100), traffic=st.floats(1, 1e10))
def test_units(second: float, byte: float, traffic: float) -> None:
    plain = hbm_time_s(np.array(traffic), round_chip(), PARAMETERS)
    rescaled = hbm_time_s(np.array(traffic * byte), round_chip(second=second, byte=byte), PARAMETERS)
    assert float(rescaled) == pytest.approx(float(plain) * second, rel=1e-9)
