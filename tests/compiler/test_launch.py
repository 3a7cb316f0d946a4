from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serried.compiler.launch import host_time_s, stream_time_s


def test_eager_pays_by_the_kernel_and_a_graph_once() -> None:
    counts = np.array([0.0, 1.0, 1000.0])
    assert host_time_s(counts, 5e-6, captured=False) == pytest.approx([0.0, 5e-6, 5e-3])
    assert host_time_s(counts, 5e-6, captured=True, graph_launch_s=1e-5) == pytest.approx([0.0, 1e-5, 1e-5])
    assert host_time_s(counts, 5e-6, captured=False, virtual_ratio=1.3)[2] == pytest.approx(6.5e-3)


def test_the_slower_of_host_and_device_sets_the_pace() -> None:
    assert stream_time_s(np.array([3.0, 1.0]), np.array([1.0, 2.0])) == pytest.approx([3.0, 2.0])
    assert float(stream_time_s(np.array(3.0), np.array(1.0), sync_count=4.0, sync_s=0.5)) == pytest.approx(5.0)


@given(device=st.floats(0, 10), host=st.floats(0, 10), syncs=st.integers(0, 10), second=st.floats(0.01, 100))
def test_bounds_and_units(device: float, host: float, syncs: int, second: float) -> None:
    plain = float(stream_time_s(np.array(device), np.array(host), sync_count=syncs, sync_s=0.1))
    assert plain >= max(device, host)
    assert plain <= device + host + syncs * 0.1 + 1e-12
    assert float(stream_time_s(np.array(device * second), np.array(host * second), sync_count=syncs,
                               sync_s=0.1 * second)) == pytest.approx(plain * second)
