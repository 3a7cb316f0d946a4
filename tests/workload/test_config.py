import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.errors import BadInput, SerriedError
from serried.workload import ARCHITECTURES, model_of_config, model_of_dimensions, parameters, read_model, with_layers
from tests.workload.models import EVERY, GPT, HYBRID, LATENT, LETTERS, LLAMA, MIXTURE, SINKS, model


def test_a_config_is_read_from_a_file_and_from_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "tiny" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(LLAMA))
    by_file, by_folder = read_model(str(path)), read_model(str(path.parent))
    assert by_file == by_folder
    assert by_file.name == "tiny"
    assert (by_file.hidden, by_file.vocab, by_file.layer_count) == (128, 1024, 4)


@pytest.mark.parametrize("name", ["Qwen/Qwen3-32B", "qwen3-32b", "QWEN3-32B", "Someone-Else/qwen3-32b"])
def test_a_catalogue_name_needs_neither_case_nor_organisation(name: str) -> None:
    found = read_model(name)
    spec = found.blocks[0].attention
    assert spec is not None
    assert (found.hidden, found.layer_count, spec.heads, spec.kv_heads) == (5120, 64, 64, 8)


def test_an_unknown_name_brings_the_nearest() -> None:
    with pytest.raises(BadInput, match="qwen3-32b"):
        read_model("qwen3-33b")


def test_an_unsupported_architecture_is_named_and_not_guessed() -> None:
    with pytest.raises(BadInput) as refused:
        model_of_config({"model_type": "rwkv9", "hidden_size": 64}, name="x", file="some/config.json")
    assert refused.value.field == "model_type"
    assert "some/config.json" in str(refused.value)
    assert all(known in str(refused.value) for known in ARCHITECTURES)


@pytest.mark.parametrize(("key", "value"), [
    ("hidden_size", None), ("hidden_size", "wide"), ("hidden_size", -8), ("hidden_size", 0), ("hidden_size", 12.5),
    ("hidden_size", True), ("hidden_size", float("nan")), ("hidden_size", float("inf")), ("hidden_size", [128]),
    ("num_hidden_layers", 10**8), ("vocab_size", 10**12), ("tie_word_embeddings", "yes"), ("head_dim", -1),
    ("num_attention_heads", None), ("intermediate_size", {}), ("num_key_value_heads", 3),
])
def test_a_bad_value_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(BadInput) as refused:
        model(LLAMA, **{key: value})
    assert refused.value.field == key
    assert refused.value.file == "config.json"


def test_heads_must_divide_the_hidden_width_unless_a_head_width_is_given() -> None:
    with pytest.raises(BadInput, match="hidden_size"):
        model(LLAMA, num_attention_heads=6, num_key_value_heads=6)
    assert model(LLAMA, num_attention_heads=6, num_key_value_heads=6, head_dim=16).blocks[0].attention


def test_no_token_visits_more_experts_than_there_are() -> None:
    with pytest.raises(BadInput) as refused:
        model(MIXTURE, num_experts_per_tok=17)
    assert refused.value.field == "num_experts_per_tok"
    assert refused.value.value == (17, 16)


def test_leading_dense_blocks_come_first() -> None:
    blocks = model(LATENT).blocks
    assert [(block.count, bool(block.mlp and block.mlp.experts)) for block in blocks] == [(2, False), (4, True)]
    assert blocks[0].mlp is not None
    assert blocks[0].mlp.width == 512
    assert blocks[1].attention is not None
    assert (blocks[1].attention.head_dim, blocks[1].attention.rope_head_dim) == (48, 16)


def test_interleaved_kinds_are_runs_of_their_counts() -> None:
    hybrid = {block.attention.kind: block.count for block in model(HYBRID).blocks if block.attention}
    assert hybrid == {"linear": 6, "full": 2}
    windows = {block.attention.window_tokens: block.count for block in model(SINKS).blocks if block.attention}
    assert windows == {16: 2, 0: 2}
    listed = model(SINKS, layer_types=["full_attention"] * 3 + ["sliding_attention"])
    assert {block.attention.window_tokens: block.count for block in listed.blocks if block.attention} == {0: 3, 16: 1}
    with pytest.raises(BadInput, match="layer_types"):
        model(SINKS, layer_types=["full_attention"])


def test_a_sliding_window_is_read_only_where_it_is_switched_on() -> None:
    base = LLAMA | {"model_type": "qwen2", "sliding_window": 256}
    off = model(base, use_sliding_window=False)
    silent = model(base)
    on = model(base, use_sliding_window=True, max_window_layers=3)
    for built in (off, silent):
        assert [block.attention.window_tokens for block in built.blocks if block.attention] == [0]
    windows = [(block.count, block.attention.window_tokens) for block in on.blocks if block.attention]
    assert windows == [(3, 0), (1, 256)]


def test_a_pattern_of_letters_has_blocks_of_one_part() -> None:
    blocks = model(LETTERS).blocks
    assert [block.count for block in blocks] == [3, 1, 1, 1]
    mixer, dense, full, mixture = blocks
    assert mixer.attention is not None
    assert (mixer.attention.kind, mixer.attention.state_space, mixer.mlp) == ("linear", True, None)
    assert dense.attention is None
    assert full.mlp is None
    assert mixture.mlp is not None
    assert (mixture.mlp.experts, mixture.mlp.shared_width, mixture.mlp.latent_width) == (8, 96, 64)
    with pytest.raises(BadInput, match="hybrid_override_pattern"):
        model(LETTERS, hybrid_override_pattern="MXM*ME")


def test_positions_are_learned_unless_something_takes_their_place() -> None:
    mpt = {"model_type": "mpt", "d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 256, "vocab_size": 512}
    assert model(mpt).learned_positions == 256
    assert model(mpt, attn_config={"alibi": True}).learned_positions == 0
    assert model(mpt, learned_pos_emb=False).learned_positions == 0
    spec = model(mpt).blocks[0].attention
    assert spec is not None
    assert not spec.rotary


def test_a_nested_config_needs_its_inner_table() -> None:
    inner = {key: value for key, value in LLAMA.items() if key != "model_type"} | {"sliding_window": 1024}
    outer = {"model_type": "gemma3", "text_config": inner}
    assert model(outer, tie_word_embeddings=True).layer_count == 4
    with pytest.raises(BadInput) as refused:
        model({"model_type": "gemma3"})
    assert refused.value.field == "text_config"


def test_experts_on_every_second_layer() -> None:
    llama4 = {
        "model_type": "llama4_text", "hidden_size": 128, "num_hidden_layers": 8, "num_attention_heads": 8,
        "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64, "intermediate_size_mlp": 256,
        "num_local_experts": 4, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2, "vocab_size": 512}
    blocks = model(llama4).blocks
    sparse = sum(block.count for block in blocks if block.mlp and block.mlp.experts)
    whole = sum(block.count for block in blocks if block.attention and not block.attention.window_tokens)
    assert (sparse, whole) == (4, 2)
    chunked = next(block for block in blocks if block.attention and block.attention.window_tokens)
    assert chunked.attention is not None
    assert chunked.attention.chunked
    shared = next(block.mlp for block in blocks if block.mlp and block.mlp.experts)
    assert shared.shared_width == 64


def test_a_plain_mlp_is_four_times_as_wide_when_nothing_is_said() -> None:
    mlp = model(GPT).blocks[0].mlp
    assert mlp is not None
    assert (mlp.width, mlp.gated, mlp.bias) == (256, False, True)


def test_columns_of_a_table_make_the_same_model_as_its_config() -> None:
    built = model_of_dimensions(name="l", n_layers=4, hidden=128, n_heads=8, n_kv_heads=2, ffn=384, vocab=1024,
                                gated_mlp=True, attention="GQA")
    assert parameters(built).total == parameters(model(LLAMA)).total
    with pytest.raises(BadInput, match="attention"):
        model_of_dimensions(name="d", n_layers=4, hidden=128, n_heads=8, vocab=1024, ffn=64, attention="MLA")


def test_a_cut_model_keeps_its_leading_dense_blocks() -> None:
    whole = model(LATENT, num_hidden_layers=60, first_k_dense_replace=3)
    assert [block.count for block in with_layers(whole, 10).blocks] == [3, 7]
    assert [block.count for block in with_layers(whole, 4, dense_layers=1).blocks] == [1, 3]
    assert [block.count for block in with_layers(whole, 2).blocks] == [1, 1]
    assert [block.count for block in with_layers(whole, 5, dense_layers=0).blocks] == [5]
    assert [block.count for block in with_layers(model(HYBRID), 4).blocks] == [3, 1]
    with pytest.raises(BadInput):
        with_layers(whole, 0)


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", "null", "\xff"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(BadInput):
        read_model(str(path))


_JUNK = st.one_of(st.none(), st.booleans(), st.integers(-10, 10**10), st.floats(), st.text(max_size=5),
                  st.lists(st.integers(-2, 9), max_size=3), st.dictionaries(st.text(max_size=3), st.integers(),
                                                                            max_size=2))


@settings(max_examples=200, deadline=None)
@given(kind=st.sampled_from(sorted(EVERY)), data=st.data())
def test_a_spoilt_config_is_read_or_refused_and_nothing_else(kind: str, data: st.DataObject) -> None:
    config: dict[str, Any] = dict(EVERY[kind])
    for key in data.draw(st.lists(st.sampled_from([*config, "layer_types", "sliding_window", "head_dim"]), max_size=3)):
        config[key] = data.draw(_JUNK)
    try:
        built = model_of_config(config, name="x", file="f")
    except SerriedError:
        return
    assert built.layer_count >= 1
    assert math.isfinite(parameters(built).total)
