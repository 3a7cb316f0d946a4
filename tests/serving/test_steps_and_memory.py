"""Step tables against direct evaluation, memory by hand, and a log that a real engine printed."""

from dataclasses import replace

import numpy as np
import pytest

from serried.engine.timing import StepClock
from serried.errors import BadInput, NoAnswer
from serried.fabric import read_fleet
from serried.serving import serving_machine
from serried.serving.cluster import PoolPlan, cache_memory, cluster_of, engine_models, transfer_between
from serried.serving.memory import weight_bytes, wide_attention
from serried.serving.profile import find_engine, read_engine
from serried.serving.spec import deployment
from serried.serving.static import device_causes_s
from serried.serving.steps import TOKEN_GRID, step_times
from serried.serving.tables import StageTiming
from serried.workload import parameters, read_model


@pytest.fixture(scope="module")
def machine():
    return serving_machine(read_fleet("h100:8").pools[0])


@pytest.mark.parametrize(("tokens", "context"), [(1, 700), (24, 1500), (100, 5000), (48, 20_000)])
def test_a_decode_step_from_tables_is_the_step_itself(machine, tokens, context):
    """Interpolated on the grids, a step is that of the kernels evaluated at its very shape."""
    model, row = read_model("Qwen/Qwen3-32B"), deployment(tp=4)
    engine = engine_models(model, machine, row, read_engine("vllm").with_settings(capture_sizes=()))[0]
    flat_s, *_ = StepClock(engine).decode_parts(tokens, tokens)
    found_s = flat_s + StepClock(engine).decode_attention(tokens, context)[0]
    from serried.workload.spec import Serving
    job = Serving(model=model, input_tokens=1, output_tokens=1, concurrency=1)
    timing = StageTiming(machine, "bf16", "bf16", tp=np.array([4.0]), ep=np.ones(1), attention_dp=np.ones(1))
    phase = timing.stage(job, np.array([float(tokens)]), 1.0, float(context), np.ones(1), True)
    direct_s = sum(device_causes_s(phase, machine.stack.parameters, decode=True).values())[0]
    assert found_s == pytest.approx(direct_s, rel=0.03)


def test_tables_grow_with_work_and_shrink_with_chips(machine):
    model = read_model("Qwen/Qwen3-30B-A3B")
    one, four = step_times(model, machine, deployment(tp=1))[0], step_times(model, machine, deployment(tp=4, ep=4))[0]
    for table in (one.dense_s_T, one.expert_s_T):
        assert (np.diff(table) > -0.2 * table[:-1]).all()
    assert (one.expert_s_T > 0).all()
    assert one.dense_s_T[-1] > 1.5 * four.dense_s_T[-1]
    assert len(one.tokens_T) == len(TOKEN_GRID)


def test_many_layouts_are_timed_together_as_one_by_one(machine):
    from serried.serving.spec import Deployments
    model = read_model("Qwen/Qwen3-8B")
    rows = [deployment(tp=tp, pp=pp) for tp, pp in ((1, 1), (2, 1), (2, 2), (4, 1))]
    together = Deployments(**{name: np.concatenate([getattr(row, name) for row in rows]) for name in rows[0].__slots__})
    for found, row in zip(step_times(model, machine, together), rows, strict=True):
        alone = step_times(model, machine, row)[0]
        assert np.allclose(found.dense_s_T, alone.dense_s_T)
        assert np.allclose(found.decode_attention_s_BC, alone.decode_attention_s_BC)


def test_four_bits_of_a_mixture_narrow_its_experts_alone():
    """gpt-oss and the four-bit DeepSeek keep two bytes in attention; a dense model is narrowed whole."""
    mixture, dense = read_model("openai/gpt-oss-120b"), read_model("Qwen/Qwen3-8B")
    assert wide_attention(mixture, "nvfp4")
    assert not wide_attention(mixture, "fp8")
    assert not wide_attention(dense, "nvfp4")
    saved = weight_bytes(mixture, deployment(weight_format="fp8")) - weight_bytes(mixture, deployment(
        weight_format="nvfp4"))
    counted = parameters(mixture)
    attention = sum(block.count * counted.attention_B[index] for index, block in enumerate(mixture.blocks))
    experts = sum(block.count * (counted.experts_B[index] + counted.shared_B[index])
                  for index, block in enumerate(mixture.blocks))
    assert saved == pytest.approx(experts * (1.0 - 0.5625) - attention, rel=1e-6)


def test_cache_bytes_by_hand(machine):
    """Llama 3.1 8B keeps 2 x 32 layers x 8 heads x 128 x 2 bytes = 131,072 bytes a token; a quarter of it on each of 4
    chips, and no less than one head on 16."""
    model, profile = read_model("meta-llama/Llama-3.1-8B"), read_engine("vllm")
    for tp, token_bytes in ((1, 131_072), (4, 32_768), (8, 16_384)):
        found = cache_memory(model, machine, deployment(tp=tp), profile)
        assert found.token_bytes[0] == token_bytes
        assert found.blocks[0] == np.floor(found.free_bytes[0] / token_bytes / 16)


def test_latent_caches_are_held_whole_and_windows_end(machine):
    profile = read_engine("vllm")
    row = deployment(tp=8, weight_format="fp8")
    latent = cache_memory(read_model("deepseek-ai/DeepSeek-V3"), machine, row, profile)
    assert latent.token_bytes[0] == 61 * (512 + 64) * 2
    windowed = cache_memory(read_model("google/gemma-3-27b"), machine, deployment(tp=1), profile)
    assert windowed.request_bytes[0] > 0


def test_a_share_of_what_is_free_leaves_more_to_large_models(machine):
    """Nine tenths of all memory less the weights is less than nine tenths of what the weights leave."""
    model, row, capacity = read_model("Qwen/Qwen3-32B"), deployment(tp=1), machine.chip.need("hbm_capacity")
    engine = read_engine("vllm")
    of_all, of_free = (cache_memory(model, machine, row, replace(engine, fraction_of_free=share)).free_bytes[0]
                       for share in (False, True))
    held = 0.9 * capacity - of_all
    assert of_free == pytest.approx(0.9 * (capacity - held))
    assert of_free - of_all == pytest.approx(0.1 * held)
    assert read_engine("trtllm").fraction_of_free


def test_what_does_not_fit_says_by_how_much_and_what_would(machine):
    plan = PoolPlan(machine=machine, row=deployment(tp=1), profile=read_engine("vllm"))
    with pytest.raises(NoAnswer, match=r"lacks .*GB.*tp=2 would fit"):
        cluster_of(read_model("meta-llama/Llama-3.1-70B"), plan)


def test_a_cache_crosses_at_the_speed_of_the_slower_end(machine):
    model, profile = read_model("meta-llama/Llama-3.1-8B"), read_engine("vllm")
    front, back = (PoolPlan(machine=machine, row=deployment(tp=tp), profile=profile) for tp in (1, 4))
    wires = transfer_between(model, front, back)
    assert wires.bytes_per_token == 131_072
    tier = machine.fabric.tiers[-1]
    assert wires.send_bytes_per_s == tier.bandwidth_bytes_per_s
    assert wires.receive_bytes_per_s == 4 * tier.bandwidth_bytes_per_s


def test_engines_are_found_by_what_people_print():
    assert find_engine("vLLM 0.19.1").name == "vllm"
    assert find_engine("TensorRT-LLM v0.20").name == "trtllm"
    assert find_engine("nobody's engine") is None


def test_an_engine_file_is_checked(tmp_path):
    from serried.catalogue.entry import DATA
    text = (DATA / "engines" / "vllm.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("token_budget = 8192", "token_budget = 0"))
    with pytest.raises(BadInput, match="token_budget"):
        read_engine(str(path))
    path.write_text(text.replace("token_budget", "token_bugdet"))
    with pytest.raises(BadInput, match="token_budget"):
        read_engine(str(path))
