import argparse

import pytest

from serried.emit.documented import check_words, documented
from serried.emit.megatron import megatron_arguments
from serried.errors import BadInput
from serried.workload import Training, read_model
from tests.emit.layouts import layout


def _parser():
    """A parser made of the documented list alone, strict about what it does not know."""
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    kinds = {"int": int, "float": float, "text": str, "words": str}
    for name, rule in documented("megatron").items():
        if rule["type"] == "flag":
            parser.add_argument(name, action="store_true")
        else:
            parser.add_argument(name, type=kinds[rule["type"]], choices=rule.get("choices"),
                                nargs="*" if rule["type"] == "words" else None)
    return parser


MODELS = ["Llama-3.1-70B", "Qwen3-32B", "DeepSeek-V3", "Mixtral-8x7B", "Qwen3-235B-A22B", "gpt3-175b"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("changes", [
    {}, {"tp": 8, "pp": 4, "virtual_stages": 2, "schedule": "interleaved", "recompute": "full"},
    {"sharding": 3, "recompute": "mlp", "number_format": "mxfp8"},
    {"ep": 8, "recompute": "selective", "overlap_tensor": True},
])
def test_every_word_is_documented_and_means_the_layout(name, changes):
    job = Training(model=read_model(name), sequence_tokens=4096, global_batch_sequences=256)
    row = layout(**changes)
    parsed = _parser().parse_args(megatron_arguments(job, row))
    assert parsed.tensor_model_parallel_size == row["tp"]
    assert parsed.pipeline_model_parallel_size == row["pp"]
    assert parsed.num_layers == job.model.layer_count
    assert parsed.hidden_size == job.model.hidden
    assert parsed.micro_batch_size == row["micro_batch"]
    assert (parsed.num_experts or 0) == max(block.mlp.experts for block in job.model.blocks if block.mlp)
    assert parsed.use_distributed_optimizer == (row["sharding"] > 0)


def test_latent_attention_head_sizes_are_those_of_the_model():
    job = Training(model=read_model("DeepSeek-V3"), sequence_tokens=4096, global_batch_sequences=256)
    parsed = _parser().parse_args(megatron_arguments(job, layout()))
    assert (parsed.q_lora_rank, parsed.kv_lora_rank) == (1536, 512)
    assert (parsed.qk_head_dim, parsed.qk_pos_emb_head_dim, parsed.v_head_dim) == (128, 64, 128)
    assert parsed.moe_layer_freq == "([0]*3+[1]*58)"


@pytest.mark.parametrize("words", [["--no-such-thing"], ["--num-layers", "many"], ["--normalization", "BatchNorm"],
                                   ["--num-layers"], ["--swiglu", "yes"]])
def test_the_checker_can_fail(words):
    with pytest.raises((AssertionError, ValueError)):
        check_words(words, "megatron")


def test_a_schedule_that_the_tool_lacks_is_refused():
    job = Training(model=read_model("Llama-3.1-70B"), sequence_tokens=4096, global_batch_sequences=256)
    with pytest.raises(BadInput, match="zero-bubble"):
        megatron_arguments(job, layout(schedule="zero-bubble", pp=4))
