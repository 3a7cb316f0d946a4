"""Architectures against published counts: the figures of each config are those its publisher released."""

from typing import Any

import pytest

from serried.workload import ARCHITECTURES, model_of_config, parameters


def config(model_type: str, hidden: int, layers: int, heads: int, kv_heads: int, vocab: int,
           **rest: Any) -> dict[str, Any]:
    return {"model_type": model_type, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "vocab_size": vocab, **rest}


PUBLISHED: dict[str, tuple[float, dict[str, Any]]] = {
    "Qwen2 57B-A14B": (57.4e9, config(
        "qwen2_moe", 3584, 28, 28, 4, 151936, moe_intermediate_size=2560, num_experts=64, num_experts_per_tok=8,
        shared_expert_intermediate_size=20480, intermediate_size=18944)),
    "Qwen3-Next 80B-A3B": (79.7e9, config(
        "qwen3_next", 2048, 48, 16, 2, 151936, head_dim=256, num_experts=512, num_experts_per_tok=10,
        moe_intermediate_size=512, shared_expert_intermediate_size=512, linear_num_key_heads=16,
        linear_num_value_heads=32, linear_key_head_dim=128, linear_value_head_dim=128, linear_conv_kernel_dim=4)),
    "GLM-4.5": (352.8e9, config(
        "glm4_moe", 5120, 92, 96, 8, 151552, head_dim=128, attention_bias=True, use_qk_norm=True,
        intermediate_size=12288, moe_intermediate_size=1536, n_routed_experts=160, n_shared_experts=1,
        num_experts_per_tok=8, first_k_dense_replace=3, num_nextn_predict_layers=1)),
    "Nemotron 3 Nano 30B-A3B": (31.6e9, config(
        "nemotron_h", 2688, 52, 32, 2, 131072, head_dim=128, intermediate_size=1856,
        hybrid_override_pattern="MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME", mamba_num_heads=64,
        mamba_head_dim=64, ssm_state_size=128, n_groups=8, conv_kernel=4, n_routed_experts=128, n_shared_experts=1,
        num_experts_per_tok=6, moe_intermediate_size=1856, moe_shared_expert_intermediate_size=3712)),
    "ERNIE 4.5 300B-A47B": (299e9, config(
        "ernie4_5_moe", 8192, 54, 64, 8, 103424, intermediate_size=28672, moe_intermediate_size=3584,
        moe_num_experts=64, moe_k=8, moe_layer_start_index=3)),
    "dots.llm1": (142.8e9, config(
        "dots1", 4096, 62, 32, 32, 152064, head_dim=128, intermediate_size=10944, moe_intermediate_size=1408,
        n_routed_experts=128, n_shared_experts=2, num_experts_per_tok=6, first_k_dense_replace=1)),
    "BLOOM 176B": (176.2e9, {"model_type": "bloom", "hidden_size": 14336, "n_layer": 70, "n_head": 112,
                             "vocab_size": 250880}),
    "OPT 66B": (65.7e9, config("opt", 9216, 64, 72, 72, 50272, ffn_dim=36864, max_position_embeddings=2048)),
    "GPT-NeoX 20B": (20.55e9, config("gpt_neox", 6144, 44, 64, 64, 50432, intermediate_size=24576)),
    "Phi-3 mini": (3.82e9, config("phi3", 3072, 32, 32, 32, 32064, intermediate_size=8192, sliding_window=2047)),
    "OLMoE 7B-A1B": (6.92e9, config("olmoe", 2048, 16, 16, 16, 50304, intermediate_size=1024, num_experts=64,
                                    num_experts_per_tok=8)),
    "StarCoder2 3B": (3.03e9, config("starcoder2", 3072, 30, 24, 2, 49152, intermediate_size=12288)),
    "Mistral Small 24B": (23.57e9, config("mistral", 5120, 40, 32, 8, 131072, head_dim=128, intermediate_size=32768)),
    "Gemma 7B": (8.54e9, config("gemma", 3072, 28, 16, 16, 256000, head_dim=256, intermediate_size=24576)),
    "OLMo 2 13B": (13.72e9, config("olmo2", 5120, 40, 40, 40, 100352, intermediate_size=13824)),
    "SmolLM3 3B": (3.08e9, config("smollm3", 2048, 36, 16, 4, 128256, intermediate_size=11008)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_count_is_the_published_one(name: str) -> None:
    published, figures = PUBLISHED[name]
    assert parameters(model_of_config(figures, name=name)).total == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_row_speaks_only_of_what_is_read(name: str) -> None:
    """A config with nothing but its type is refused by the first key it lacks, never by a fault of the table."""
    architecture = ARCHITECTURES[name]
    empty: dict[str, Any] = {"model_type": name}
    if architecture.nested:
        empty[architecture.nested] = {}
    with pytest.raises(Exception, match="needs it"):
        model_of_config(empty, name="x", file="f")
    assert set(architecture.bias) <= {"qkv", "output", "mlp", "router"}
