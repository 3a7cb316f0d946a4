import tomllib

import numpy as np
import pytest

from serried.catalogue.entry import DATA, names_of
from serried.workload import chip_parameters, parameters, read_model
from tests.workload.models import EVERY, GPT, LATENT, LLAMA, MIXTURE, model

#: Name, parameters in all and of one token with its embedding left out, as the publishers print them.
PUBLISHED = {
    "llama-2-70b": 68.98e9, "llama-3-8b": 8.03e9, "llama-3.1-405b": 405.9e9, "qwen3-32b": 32.8e9,
    "qwen2.5-72b": 72.7e9, "qwen3-235b-a22b": 235.1e9, "deepseek-v2": 235.7e9, "deepseek-v3": 671.0e9,
    "kimi-k2": 1026e9, "mixtral-8x7b": 46.7e9, "mixtral-8x22b": 140.6e9, "gpt-oss-120b": 116.8e9,
    "gpt3-175b": 174.6e9, "megatron-530b": 530e9, "megatron-1t": 1008e9, "gemma-2-27b": 27.2e9, "mpt-7b": 6.65e9,
    "nemotron-4-340b": 341e9, "llama-4-maverick-17b-128e": 400.7e9,
}
ACTIVE = {"deepseek-v3": 37e9, "gpt-oss-120b": 5.13e9, "gpt-oss-20b": 3.61e9, "mixtral-8x22b": 39e9,
          "qwen3-235b-a22b": 22e9, "kimi-k2": 32e9}


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_the_count_is_the_published_one(name: str, published: float) -> None:
    assert parameters(read_model(name)).total == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize("name", names_of("models"))
def test_every_catalogue_model_counts_what_its_entry_says(name: str) -> None:
    facts = tomllib.loads((DATA / "models" / f"{name}.toml").read_text(encoding="utf-8"))["facts"]
    if "published_parameters" not in facts:
        pytest.skip("nobody has published its count")
    assert parameters(read_model(name)).total == pytest.approx(float(facts["published_parameters"]), rel=0.005)


@pytest.mark.parametrize(("name", "published"), ACTIVE.items())
def test_active_parameters_are_the_published_ones(name: str, published: float) -> None:
    count = parameters(read_model(name))
    assert count.active - count.embedding == pytest.approx(published, rel=0.035)


def test_a_small_gpt_by_hand() -> None:
    hidden, layers, vocab, rows = 64, 3, 512, 128
    count = parameters(model(GPT))
    block = 12 * hidden**2 + 13 * hidden        # 3 + 1 + 4 + 4 matrices; 3 + 1 + 4 + 1 biases and 2 norms of 2
    assert count.total == vocab * hidden + rows * hidden + layers * block + 2 * hidden
    assert (count.embedding, count.head) == ((vocab + rows) * hidden, 0)


def test_a_small_latent_model_by_hand() -> None:
    count = parameters(model(LATENT))
    hidden, heads = 256, 8
    query = hidden * 96 + 96 + 96 * heads * 48
    key_value = hidden * (48 + 16) + 48 + 48 * heads * (32 + 32)
    assert count.attention_B == (query + key_value + heads * 32 * hidden,) * 2
    assert count.experts_B == (0, 16 * 3 * hidden * 64)
    assert count.shared_B == (0, 3 * hidden * 64)
    assert count.router_B == (0, hidden * 16)
    assert count.prediction == count.block_B[1] + 2 * hidden**2 + 3 * hidden
    assert count.total - count.active == 4 * 12 * 3 * hidden * 64      # 4 blocks, 12 of 16 experts idle


def test_an_adapter_is_counted_apart() -> None:
    from dataclasses import replace
    plain = model(LLAMA)
    adapted = parameters(replace(plain, adapter_rank=8))
    ends = (128 + 128 + 2 * 2 * 16) + (128 + 128) + (128 + 2 * 384) + (384 + 128)
    assert adapted.adapter == 4 * 8 * ends
    assert adapted.total == parameters(plain).total


@pytest.mark.parametrize("name", EVERY)
def test_one_chip_alone_holds_everything(name: str) -> None:
    built = model(EVERY[name])
    for block, whole in zip(built.blocks, parameters(built).block_B, strict=True):
        held = chip_parameters(built, block, tensor=np.ones(1), expert=np.ones(1))
        assert (held.dense + held.expert).item() == pytest.approx(whole)


def test_chips_share_the_matrices() -> None:
    built = model(MIXTURE)
    count = parameters(built)
    held = chip_parameters(built, built.blocks[0], tensor=np.array([2.0, 8.0]), expert=np.array([4.0, 4.0]),
                           expert_tensor=np.ones(2))
    assert held.expert.tolist() == [count.experts_B[0] / 4] * 2
    kv = 128 * 4 * 2 * 32                                     # four key-value heads, repeated on eight ranks
    rest = count.router_B[0] + count.norms_B[0]
    assert held.dense[0] == pytest.approx(count.attention_B[0] / 2 + rest)
    assert held.dense[1] == pytest.approx((count.attention_B[0] - kv) / 8 + kv / 4 + rest)
