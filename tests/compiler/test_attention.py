from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.compiler import profile_for, profile_names, read_profile
from serried.compiler.attention import (
    AttentionBackwardParameters,
    AttentionParameters,
    attention_backward_time_s,
    attention_time_s,
    score_tiles,
    work_lanes,
)
from serried.compiler.shape import AttentionShape, attention_shape
from serried.errors import BadInput
from serried.silicon import read_chip
from tests.compiler.chips import round_chip

#: Nothing but products at peak: no launch, no passes, no latencies, no exponentials.
IDEAL = AttentionParameters(tiles=((4096, 128, 128),), rate_ratio=1.0, softmax_flop=1.0, overlap_power=8.0,
                            feed_ratio=50.0, tile_s=0.0, block_s=0.0, wave_share=0.0, pass_ratio=1.0, append_ratio=1.0,
                            packs_heads=0.0, launch_s=0.0)
SHIPPED = [(name, variant) for name in profile_names() for variant in read_profile(name).families["attention"]]


def shape(tokens: float, *, sequences: float = 1, heads: float = 8, kv_heads: float = 8, head_dim: float = 128,
          window: float = 0, context: float | None = None) -> AttentionShape:
    return attention_shape(sequences=sequences, query_tokens=tokens, heads=heads, kv_heads=kv_heads, head_dim=head_dim,
                           context_tokens=tokens if context is None else context, window_tokens=window)


def brute_force(tokens: int, context: int, window: int, rows: int, keys: int, causal: bool) -> tuple[int, int, int]:
    spans = []
    for first in range(0, tokens, rows):
        last_query = min(first + rows, tokens) - 1 + context - tokens
        first_key = max(first + context - tokens - window + 1, 0) if window and causal else 0
        last_key = last_query if causal else context - 1
        spans.append(last_key // keys - first_key // keys + 1)
    return len(spans), sum(spans), max(spans)


class TestTiles:
    @pytest.mark.parametrize(("tokens", "visited"), [(128, 1), (256, 3), (512, 10), (1024, 36)])
    def test_square_tiles_count_a_triangle(self, tokens: int, visited: int) -> None:
        # n query tiles of 128 see 1, 2, ..., n key tiles of 128
        count, total, longest = score_tiles(np.array(float(tokens)), np.array(float(tokens)), np.array(0.0),
                                            np.array(128.0), np.array(128.0), causal=True)
        assert (count, total, longest) == (tokens / 128, visited, tokens / 128)

    def test_window_of_one_tile_sees_two(self) -> None:
        # the first tile sees one key tile, the seven others their own and the one before
        _, total, _ = score_tiles(np.array(1024.0), np.array(1024.0), np.array(128.0), np.array(128.0), np.array(128.0),
                                  causal=True)
        assert total == 15

    def test_without_a_mask_every_tile_sees_every_key(self) -> None:
        assert score_tiles(np.array(512.0), np.array(1000.0), np.array(0.0), np.array(128.0), np.array(64.0),
                           causal=False) == (4, 64, 16)

    @given(tiles=st.integers(1, 40), context=st.integers(0, 3000), window=st.sampled_from([0, 128, 1000, 4096]),
           rows=st.sampled_from([64, 128, 192, 256]), keys=st.sampled_from([32, 64, 96, 128]))
    def test_closed_form_is_the_count(self, tiles: int, context: int, window: int, rows: int, keys: int) -> None:
        tokens = tiles * rows
        count, total, longest = brute_force(tokens, tokens + context, window, rows, keys, causal=True)
        found = score_tiles(np.array(float(tokens)), np.array(float(tokens + context)), np.array(float(window)),
                            np.array(float(rows)), np.array(float(keys)), causal=True)
        assert found[0] == count
        assert found[1] == pytest.approx(total, rel=0.12, abs=count)   # rounding is counted on the average
        assert abs(found[2] - longest) <= 1


class TestForward:
    def test_hand_worked(self) -> None:
        # 8 heads x 10 tile pairs of 128 x 128 scores; 4 x 128 flop a score; 100 TFLOP/s; longest block: 4 of 80 tiles
        # over 32 blocks on 100 cores: the longest block (4 tiles on one core of 1 TFLOP/s) holds
        longest_s = 4 * 128 * 128 * 4 * 128 / 1e12
        passes_s = (2 * 512 * 256 * 8 + 2 * 512 * 256 * 8) / 1e12     # queries and outputs; keys and values
        found = attention_time_s(shape(512), chip=round_chip(), parameters=IDEAL, cache_element_bytes=0.0)
        assert float(found) == pytest.approx(longest_s + passes_s, rel=1e-9)

    def test_many_sequences_fill_the_chip(self) -> None:
        flop = 64 * 8 * 10 * 128 * 128 * 4 * 128
        passes_s = 64 * 2 * (2 * 512 * 256 * 8) / 1e12
        found = attention_time_s(shape(512, sequences=64), chip=round_chip(), parameters=IDEAL, cache_element_bytes=0.0)
        assert float(found) == pytest.approx(flop / 100e12 + passes_s, rel=1e-9)

    def test_whole_waves(self) -> None:
        # the 101st work group costs a second wave: one tile on a core of 1 TFLOP/s, and its start
        whole = dataclasses.replace(IDEAL, wave_share=1.0, block_s=1e-6)
        one, two = (float(attention_time_s(shape(128, sequences=count, heads=1, kv_heads=1), chip=round_chip(),
                                           parameters=whole, cache_element_bytes=0.0)) for count in (100, 101))
        assert two - one == pytest.approx(128 * 128 * 4 * 128 / 1e12 + 1e-6, rel=0.05)

    @pytest.mark.parametrize(("name", "variant"), SHIPPED)
    @settings(max_examples=25, deadline=None)
    @given(data=st.data())
    def test_never_beyond_the_peak(self, name: str, variant: str, data: st.DataObject) -> None:
        profile = read_profile(name)
        chip = read_chip(profile.chips[0]) if profile.chips else read_chip("h100")
        recipe = "fp8" if "fp8" in variant else "bf16"
        tokens, sequences = data.draw(st.integers(1, 20000)), data.draw(st.integers(1, 64))
        kv_heads, group = data.draw(st.integers(1, 16)), data.draw(st.integers(1, 16))
        head_dim = data.draw(st.sampled_from([64, 128, 192, 256, 512]))
        heads = kv_heads * group
        time_s = float(attention_time_s(shape(tokens, sequences=sequences, heads=heads, kv_heads=kv_heads,
                                              head_dim=head_dim), chip=chip, number_format=recipe,
                                        parameters=profile.families["attention"][variant]))
        # exactly the scores under the mask, at peak; and one pass over queries, keys, values and outputs
        flop = sequences * heads * tokens * (tokens + 1) / 2 * 4 * head_dim
        traffic_bytes = sequences * tokens * head_dim * 2 * (2 * heads + 2 * kv_heads)
        assert time_s >= flop / chip.matrix_peak_flop_per_s(recipe)
        assert time_s >= traffic_bytes / chip.need("hbm_bandwidth")

    @settings(max_examples=60, deadline=None)
    @given(tokens=st.integers(1, 8000), group=st.sampled_from([1, 2, 8, 64]), window=st.sampled_from([128, 1024, 5000]),
           more=st.sampled_from([0, 512, 5000]))
    def test_masks_only_take_away(self, tokens: int, group: int, window: int, more: int) -> None:
        chip = read_chip("h100")
        parameters = profile_for(chip).parameters("attention", "bf16")

        def time_s(*, window: float = 0.0, causal: bool = True) -> float:
            asked = shape(tokens, heads=64, kv_heads=64 / group, window=window, context=tokens + more)
            return float(attention_time_s(asked, chip=chip, parameters=parameters, causal=causal))

        slack = 1.02   # tiles are counted on the average
        assert time_s() <= time_s(causal=False) * slack
        assert time_s(window=window) <= time_s() * slack

    @settings(max_examples=40, deadline=None)
    @given(second=st.floats(0.01, 100), byte=st.floats(0.01, 100), flop=st.floats(0.01, 100),
           tokens=st.integers(1, 5000))
    def test_seconds_scale_as_seconds(self, second: float, byte: float, flop: float, tokens: int) -> None:
        # bytes and flop are counted in units of the chip only through element sizes; rescale both sides of each
        parameters = AttentionParameters()
        scaled = dataclasses.replace(parameters, **{name: getattr(parameters, name) * second
                                                    for name in ("tile_s", "block_s", "launch_s")})
        plain = attention_time_s(shape(tokens), chip=round_chip(), parameters=parameters)
        rescaled = attention_time_s(shape(tokens), chip=round_chip(second=second), parameters=scaled)
        assert float(rescaled) == pytest.approx(float(plain) * second, rel=1e-9)
        faster = attention_time_s(shape(tokens), chip=round_chip(byte=1 + byte, flop=1 + flop), parameters=parameters)
        assert float(faster) < float(plain)

    def test_more_of_anything_takes_longer(self) -> None:
        chip, parameters = round_chip(), AttentionParameters()
        base = float(attention_time_s(shape(2048), chip=chip, parameters=parameters))
        for more in (shape(4096), shape(2048, sequences=2), shape(2048, heads=16), shape(2048, context=4096)):
            assert float(attention_time_s(more, chip=chip, parameters=parameters)) > base

    def test_a_deep_scratchpad_hides_latency(self) -> None:
        deep = round_chip(cores=2.0, scratchpad_per_core=64 * 2**20)
        assert work_lanes(deep) == 256
        assert work_lanes(round_chip()) == 1
        slow = dataclasses.replace(IDEAL, block_s=1e-5)
        assert float(attention_time_s(shape(2048), chip=deep, parameters=slow)) < float(
            attention_time_s(shape(2048), chip=round_chip(cores=2.0), parameters=slow))


class TestBackward:
    BACKWARD = AttentionBackwardParameters(rate_ratio=1.0, vector_ratio=1.0, launch_s=0.0)

    def test_five_products_for_two(self) -> None:
        long = shape(32768, sequences=4, heads=32, kv_heads=32)
        forward = float(attention_time_s(long, chip=round_chip(), parameters=IDEAL, cache_element_bytes=0.0))
        backward = float(attention_backward_time_s(long, chip=round_chip(), parameters=IDEAL, backward=self.BACKWARD))
        assert backward / forward == pytest.approx(2.5, rel=0.02)

    @pytest.mark.parametrize(("name", "low", "high"), [("a100", 150, 200), ("h100", 400, 560), ("b200", 800, 1150)])
    def test_published_rates(self, name: str, low: float, high: float) -> None:
        # published flash backward rates at head dimension 128, causal, 8192 tokens, 16 heads, 2 sequences
        chip = read_chip(name)
        profile = profile_for(chip)
        long = shape(8192, sequences=2, heads=16, kv_heads=16)
        time_s = float(attention_backward_time_s(long, chip=chip, parameters=profile.parameters("attention", "bf16"),
                                                 backward=profile.parameters("attention_backward", "bf16")))
        assert low <= 2 * 16 * 8192**2 / 2 * 10 * 128 / time_s / 1e12 <= high

    @pytest.mark.parametrize("name", ["a100", "h100", "b200", "generic"])
    def test_between_two_and_three_times_forward(self, name: str) -> None:
        profile = read_profile(name)
        chip = read_chip(profile.chips[0]) if profile.chips else read_chip("mi300x")
        long = shape(4096, sequences=4, heads=32, kv_heads=8)
        forward = float(attention_time_s(long, chip=chip, parameters=profile.parameters("attention", "bf16"),
                                         cache_element_bytes=0.0))
        backward = float(attention_backward_time_s(
            long, chip=chip, parameters=profile.parameters("attention", "bf16"),
            backward=profile.parameters("attention_backward", "bf16")))
        assert 1.9 <= backward / forward <= 3.3


def test_tiles_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(BadInput, match="tiles"):
        AttentionParameters(tiles=((128, 128, 128), (64, 128, 128)))
    with pytest.raises(BadInput, match="tiles"):
        AttentionParameters(tiles=())
