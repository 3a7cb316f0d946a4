from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.compiler import profile_names, read_profile
from serried.compiler.decode import DecodeParameters, decode_time_s
from serried.compiler.shape import AttentionShape, attention_shape
from serried.silicon import read_chip
from tests.compiler.chips import round_chip

#: Nothing but one read of the cache at peak bandwidth.
IDEAL = DecodeParameters(tiles=((4096, 16, 64),), hbm_ratio=1.0, core_ratio=50.0, groups_per_core=1.0,
                         split_tokens=64.0, rate_ratio=1.0, overlap_power=8.0, wave_share=0.0, block_s=0.0,
                         reduce_s=0.0, pass_ratio=1.0, launch_s=0.0)
SHIPPED = [(name, variant) for name in profile_names() for variant in read_profile(name).families["decode"]]


def shape(context: float, *, sequences: float = 64, heads: float = 8, kv_heads: float = 8, head_dim: float = 128,
          window: float = 0, queries: float = 1) -> AttentionShape:
    return attention_shape(sequences=sequences, query_tokens=queries, context_tokens=context, heads=heads,
                           kv_heads=kv_heads, head_dim=head_dim, window_tokens=window)


def test_hand_worked() -> None:
    # 64 sequences x 8 key heads x 4096 keys x 512 bytes of key and value, and 64 x 8 queries and outputs of 512 bytes,
    # at 1 TB/s; products: 512 groups of 64 tiles of 2 x 256 x 16 x 64 flop at 100 TFLOP/s are far below it
    stream_s = (64 * 8 * 4096 * 512 + 64 * 8 * 512) / 1e12
    group_s = 512 / 100 * (4096 * 512 / 1e10 / 50 + 64 * 2 * 256 * 16 * 64 / 1e12)
    found = float(decode_time_s(shape(4096), chip=round_chip(), parameters=IDEAL))
    assert found == pytest.approx((stream_s**8 + group_s**8) ** (1 / 8), rel=1e-9)


def test_latent_cache_is_read_once_for_keys_and_values() -> None:
    wide = attention_shape(sequences=64, query_tokens=1, context_tokens=32768, heads=16, kv_heads=1, head_dim=576,
                           value_head_dim=512)
    apart, shared = (float(decode_time_s(wide, chip=round_chip(), parameters=IDEAL, latent=latent))
                     for latent in (False, True))
    assert shared < 0.75 * apart
    assert shared >= 64 * 32768 * 576 * 2 / 1e12


def test_eight_bit_cache_halves_the_read() -> None:
    long = shape(65536, sequences=8)
    two, one = (float(decode_time_s(long, chip=round_chip(), parameters=IDEAL, cache_element_bytes=size))
                for size in (2.0, 1.0))
    assert one == pytest.approx(two / 2, rel=0.1)


def test_query_heads_of_one_key_head_share_the_read() -> None:
    grouped, alone = (float(decode_time_s(shape(32768, heads=64, kv_heads=kv_heads), chip=round_chip(),
                                          parameters=IDEAL)) for kv_heads in (8, 64))
    assert alone > 7 * grouped


def test_split_keys_fill_idle_cores() -> None:
    one = shape(65536, sequences=1, heads=1, kv_heads=1)
    slow_core = dataclasses.replace(IDEAL, core_ratio=1.0)
    unsplit = dataclasses.replace(slow_core, split_tokens=8192.0)
    assert float(decode_time_s(one, chip=round_chip(), parameters=slow_core)) < float(
        decode_time_s(one, chip=round_chip(), parameters=unsplit))


@pytest.mark.parametrize(("name", "variant"), SHIPPED)
@settings(max_examples=25, deadline=None)
@given(sequences=st.integers(1, 512), kv_heads=st.integers(1, 16), group=st.integers(1, 32),
       head_dim=st.sampled_from([64, 128, 256]), context=st.integers(1, 200_000))
def test_shipped_profiles_keep_the_laws(name: str, variant: str, sequences: int, kv_heads: int, group: int,
                                        head_dim: int, context: int) -> None:
    profile = read_profile(name)
    chip = read_chip(profile.chips[0]) if profile.chips else read_chip("h100")
    element_bytes = 1.0 if "fp8" in variant else 2.0
    contexts = np.array([context, context + 1, context + 100, 2 * context + 101], dtype=np.float64)
    shapes = attention_shape(sequences=sequences, query_tokens=1, context_tokens=contexts, heads=kv_heads * group,
                             kv_heads=kv_heads, head_dim=head_dim)
    parameters = profile.families["decode"][variant]
    time_s = decode_time_s(shapes, chip=chip, parameters=parameters, cache_element_bytes=element_bytes)
    assert (np.diff(time_s) >= -1e-12).all(), "never falls as the context grows"
    assert (time_s >= sequences * kv_heads * contexts * 2 * head_dim * element_bytes / chip.need("hbm_bandwidth")).all()
    windowed = dataclasses.replace(shapes, window_tokens=np.full(4, 1000.0))
    assert (decode_time_s(windowed, chip=chip, parameters=parameters, cache_element_bytes=element_bytes)
            <= time_s * (1 + 1e-9)).all()


@settings(max_examples=40, deadline=None)
@given(second=st.floats(0.01, 100), context=st.integers(1, 100_000), sequences=st.integers(1, 256))
def test_seconds_scale_as_seconds(second: float, context: int, sequences: int) -> None:
    parameters = DecodeParameters()
    scaled = dataclasses.replace(parameters, **{name: getattr(parameters, name) * second
                                                for name in ("block_s", "reduce_s", "launch_s")})
    plain = decode_time_s(shape(context, sequences=sequences), chip=round_chip(), parameters=parameters)
    rescaled = decode_time_s(shape(context, sequences=sequences), chip=round_chip(second=second), parameters=scaled)
    assert float(rescaled) == pytest.approx(float(plain) * second, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(byte=st.floats(0.01, 100), context=st.integers(1, 100_000))
def test_bytes_cancel(byte: float, context: int) -> None:
    # a byte that is `byte` times smaller: twice as many in the cache and on the wire
    parameters = dataclasses.replace(IDEAL, pass_ratio=1.0)
    plain = decode_time_s(shape(context, queries=1e-9), chip=round_chip(), parameters=parameters)
    rescaled = decode_time_s(shape(context, queries=1e-9), chip=round_chip(byte=byte), parameters=parameters,
                             cache_element_bytes=2.0 * byte)
    assert float(rescaled) == pytest.approx(float(plain), rel=1e-6)
