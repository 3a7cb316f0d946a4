from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serried.workload import (
    Attend,
    Elementwise,
    Exchange,
    Gemm,
    GroupedGemm,
    Model,
    Operator,
    block_operators,
    operator_flop,
    parameters,
    prediction_operators,
    recomputed_operators,
)
from tests.workload.models import EVERY, GPT, HYBRID, LATENT, LLAMA, MIXTURE, model, shards


def flop(operators: tuple[Operator, ...]) -> Any:
    return sum(operator_flop(operator) for operator in operators)


def matrix_elements(operators: tuple[Operator, ...]) -> float:
    """Elements of the parameter matrices that forward products read."""
    total = 0.0
    for operator in operators:
        if isinstance(operator, Gemm) and operator.weight:
            total += float(operator.n * operator.k * operator.batch)
        elif isinstance(operator, GroupedGemm):
            total += float(operator.groups * operator.n * operator.k)
    return total


def named(operators: tuple[Operator, ...], name: str) -> Any:
    found = [operator for operator in operators if operator.name == name]
    assert found, f"{name} is not among {[operator.name for operator in operators]}"
    return found[0]


@pytest.mark.parametrize("name", EVERY)
def test_backward_is_twice_forward(name: str) -> None:
    built = model(EVERY[name])
    for block in built.blocks:
        once = flop(block_operators(built, block, shards(), phase="forward"))
        assert flop(block_operators(built, block, shards(), phase="backward")) == pytest.approx(2 * once)


@pytest.mark.parametrize("fused", [True, False])
def test_backward_is_twice_forward_with_scores_in_memory_too(fused: bool) -> None:
    built = model(GPT)
    once = flop(block_operators(built, built.blocks[0], shards(), phase="forward", fused_attention=fused))
    twice = flop(block_operators(built, built.blocks[0], shards(), phase="backward", fused_attention=fused))
    assert twice == pytest.approx(2 * once)


@pytest.mark.parametrize(("name", "cut"), [
    ("gpt", {"tensor": 4.0}), ("gpt", {"tensor": 2.0, "context": 2.0, "sequence_parallel": True}),
    ("llama", {"tensor": 2.0, "sequence_parallel": True}), ("llama", {"context": 4.0}),
    ("mixture", {"tensor": 4.0, "sequence_parallel": True, "expert": 8.0}),
    ("mixture", {"tensor": 4.0, "sequence_parallel": True, "expert": 8.0, "expert_tensor": 1.0}),
    ("latent", {"tensor": 8.0, "sequence_parallel": True, "expert": 4.0, "expert_tensor": 1.0}),
    ("sinks", {"tensor": 2.0, "sequence_parallel": True, "context": 2.0}),
    ("hybrid", {"tensor": 2.0, "sequence_parallel": True}),
])
def test_chips_share_the_work_and_none_is_lost(name: str, cut: dict[str, Any]) -> None:
    built = model(EVERY[name])
    ranks = cut.get("tensor", 1.0) * cut.get("context", 1.0)
    for block in built.blocks:
        for phase in ("forward", "backward"):
            whole = flop(block_operators(built, block, shards(), phase=phase))            # type: ignore[arg-type]
            share = flop(block_operators(built, block, shards(**cut), phase=phase))      # type: ignore[arg-type]
            assert share * ranks == pytest.approx(whole)


def vectors(built: Model, row: int) -> float:
    """Parameters of a block that no product reads: norms, biases, convolutions, decays."""
    block, found = built.blocks[row], float(parameters(built).norms_B[row])
    spec, mlp = block.attention, block.mlp
    if spec is not None and spec.qkv_bias:
        found += (spec.heads + 2 * spec.kv_heads) * spec.head_dim + built.hidden + (spec.heads if spec.sinks else 0)
    if spec is not None and spec.qk_norm and spec.kind == "full":
        found += 2 * spec.head_dim
    if spec is not None and spec.kind == "mla":
        found += spec.query_rank + spec.kv_rank
    if spec is not None and spec.kind == "linear":
        values = spec.state_value_heads * spec.state_value_dim
        mixed = 2 * spec.state_key_heads * spec.state_key_dim + values
        found += mixed * 5 + 3 * spec.state_value_heads + values if spec.state_space else \
            mixed * 4 + 2 * spec.state_value_heads + spec.state_value_dim
    if mlp is not None and mlp.bias:
        found += (mlp.width * (2 if mlp.gated else 1) + built.hidden) * max(mlp.experts, 1)
        found += mlp.experts if mlp.router_bias else 0
    return found


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("name", EVERY)
def test_products_read_the_parameters_that_are_counted(name: str, decode: bool) -> None:
    built = model(EVERY[name])
    cut = shards(tokens=1, context_tokens=99) if decode else shards()
    for row, (block, whole) in enumerate(zip(built.blocks, parameters(built).block_B, strict=True)):
        operators = block_operators(built, block, cut, phase="forward", decode=decode)
        assert matrix_elements(operators) == pytest.approx(whole - vectors(built, row))


def test_a_prediction_block_reads_the_parameters_that_are_counted() -> None:
    built = model(LATENT)
    operators = prediction_operators(built, shards(), phase="forward")
    left_out = vectors(built, 1) + 3 * built.hidden
    assert matrix_elements(operators) == pytest.approx(parameters(built).prediction - left_out)


def test_columns_say_what_single_shapes_say() -> None:
    built = model(LATENT)
    tensor, parallel = [1.0, 2.0, 8.0], [False, False, True]
    many = block_operators(built, built.blocks[1], shards(tensor=tensor, sequence_parallel=parallel, expert=4.0),
                           phase="backward")
    for column in range(3):
        one = block_operators(built, built.blocks[1], shards(
            tensor=tensor[column], sequence_parallel=parallel[column], expert=4.0), phase="backward")
        assert flop(one) == pytest.approx(flop(many)[column])
        for kind, field in ((Elementwise, "read_bytes"), (Exchange, "payload_bytes")):
            single = sum(getattr(operator, field) for operator in one if isinstance(operator, kind))
            columns = sum(getattr(operator, field) for operator in many if isinstance(operator, kind))
            assert single == pytest.approx(np.broadcast_to(columns, 3)[column])


@given(element_bytes=st.floats(0.5, 8), factor=st.floats(0.1, 10))
def test_bytes_scale_as_bytes(element_bytes: float, factor: float) -> None:
    built = model(LLAMA)

    def moved(width: float) -> float:
        operators = block_operators(built, built.blocks[0], shards(tensor=2.0), phase="backward", element_bytes=width)
        return sum(float(operator.read_bytes + operator.write_bytes) if isinstance(operator, Elementwise)
                   else float(operator.payload_bytes) if isinstance(operator, Exchange) else 0.0
                   for operator in operators)

    assert moved(element_bytes * factor) == pytest.approx(factor * moved(element_bytes))


def test_shapes_of_a_dense_block_by_hand() -> None:
    built = model(LLAMA)
    operators = block_operators(built, built.blocks[0], shards(tensor=4.0), phase="forward")
    rows = 2 * 64
    qkv, up, down = (named(operators, name) for name in ("attention.qkv", "mlp.up", "mlp.down"))
    # 8 query heads over 4 ranks; 2 key-value heads are repeated, one a rank; 16 dims a head
    assert (qkv.m, qkv.n, qkv.k) == (rows, 2 * 16 + 2 * 16, 128)
    assert (up.n, up.k, down.n, down.k) == (2 * 384 / 4, 128, 128, 384 / 4)
    core = named(operators, "attention.core")
    assert isinstance(core, Attend)
    assert (core.heads, core.kv_heads, core.query_tokens) == (2, 1, 64)
    activation = named(operators, "mlp.activation")
    assert activation.read_bytes == 3 * rows * 96 * 2
    assert activation.write_bytes == 2 * rows * 96 * 2


def test_gradients_of_a_product_have_its_shape() -> None:
    built = model(LLAMA)
    backward = block_operators(built, built.blocks[0], shards(), phase="backward")
    data, weight = (operator for operator in backward if isinstance(operator, Gemm) and operator.name == "mlp.down")
    assert (data.phase, data.m, data.n, data.k, data.weight) == ("backward_data", 128, 384, 128, True)
    assert (weight.phase, weight.m, weight.n, weight.k, weight.weight) == ("backward_weight", 128, 384, 128, False)


@pytest.mark.parametrize("parallel", [False, True])
def test_what_a_tensor_region_exchanges(parallel: bool) -> None:
    built = model(LLAMA)
    cut = shards(tensor=2.0, sequence_parallel=parallel)
    payload = 2 * 64 * 128 * 2.0

    def exchanged(phase: Any) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for operator in block_operators(built, built.blocks[0], cut, phase=phase):
            if isinstance(operator, Exchange):
                found.setdefault(operator.operation, []).append(float(operator.payload_bytes))
        return found

    forward, backward = exchanged("forward"), exchanged("backward")
    if parallel:       # gather and scatter a region; backward gathers the input once more for the weight gradient
        assert forward == {"all_gather": [payload] * 2, "reduce_scatter": [payload] * 2}
        assert backward == {"all_gather": [payload] * 4, "reduce_scatter": [payload] * 2}
    else:
        assert forward == backward == {"all_reduce": [payload] * 2}


def test_nothing_is_exchanged_by_one_chip() -> None:
    for config in EVERY.values():
        built = model(config)
        for block in built.blocks:
            operators = block_operators(built, block, shards(), phase="backward")
            assert not [operator for operator in operators if isinstance(operator, Exchange)]


def test_context_ranks_pass_keys_and_values() -> None:
    built = model(LLAMA)
    operators = block_operators(built, built.blocks[0], shards(context=4.0), phase="forward")
    gathered = named(operators, "attention.context_gather")
    assert gathered.axis == "context"
    assert gathered.payload_bytes == 2 * 64 * 2 * (16 + 16) * 2      # both sequences, all tokens, two heads, k and v
    assert gathered.beside == "attention.core"


def test_context_ranks_of_a_mixer_pass_states() -> None:
    built = model(HYBRID)
    mixer = next(block for block in built.blocks if block.attention and block.attention.kind == "linear")
    operators = block_operators(built, mixer, shards(context=4.0), phase="forward")
    assert named(operators, "attention.state_gather").payload_bytes == 4 * 2 * 8 * 32 * 32 * 4
    assert not [operator for operator in operators if operator.name == "attention.context_gather"]


def test_recompute_runs_the_named_parts_again() -> None:
    built = model(MIXTURE)
    forward = block_operators(built, built.blocks[0], shards(), phase="forward")
    assert recomputed_operators(forward, "none") == ()
    assert recomputed_operators(forward, "full") == forward
    assert [operator.name for operator in recomputed_operators(forward, "selective")] == ["attention.core"]
    halves = recomputed_operators(forward, "attention") + recomputed_operators(forward, "mlp")
    assert sorted(operator.name for operator in halves) == sorted(operator.name for operator in forward)


def test_recompute_by_operator_runs_every_second_product_again() -> None:
    built = model(LLAMA)
    forward = block_operators(built, built.blocks[0], shards(), phase="forward")
    again = recomputed_operators(forward, "operators")
    products = {operator.name: float(operator.n) for operator in again if isinstance(operator, Gemm)}
    assert products == {"attention.qkv": 2 * 16, "attention.out": 128, "mlp.up": 384}      # key, output, up
    gpt = model(GPT)
    plain = recomputed_operators(block_operators(gpt, gpt.blocks[0], shards(), phase="forward"), "operators")
    assert [operator.name for operator in plain if isinstance(operator, Gemm)] == ["attention.qkv", "attention.out"]
    assert not [operator for operator in again if isinstance(operator, Attend)]
    assert [operator.name for operator in again if isinstance(operator, Elementwise)] == \
        [operator.name for operator in forward if isinstance(operator, Elementwise)]


def test_frozen_weights_have_no_weight_gradient_but_adapters_do() -> None:
    built = replace(model(LLAMA), adapter_rank=8)
    backward = block_operators(built, built.blocks[0], shards(), phase="backward")
    weights = [operator for operator in backward if isinstance(operator, Gemm) and operator.phase == "backward_weight"]
    assert weights
    assert all(".adapter_" in operator.name for operator in weights)
    forward = block_operators(built, built.blocks[0], shards(), phase="forward")
    narrow = sum(float(operator.n * operator.k) for operator in forward
                 if isinstance(operator, Gemm) and ".adapter_" in operator.name)
    assert narrow * built.layer_count == parameters(built).adapter


def test_decode_of_a_latent_model_reads_one_shared_head() -> None:
    built = model(LATENT)
    operators = block_operators(built, built.blocks[0], shards(tokens=1, context_tokens=512, tensor=2.0),
                                phase="forward", decode=True)
    core = named(operators, "attention.core")
    assert core.latent
    assert core.decode
    assert (core.heads, core.kv_heads, core.head_dim, core.value_head_dim) == (4, 1, 64, 48)
    assert not [operator for operator in operators if operator.name == "attention.kv_up"]
    written = named(operators, "attention.cache_write")
    assert written.write_bytes == 2 * (48 + 16) * 2


def test_a_window_bounds_what_decode_reads() -> None:
    built = model(EVERY["sinks"])
    reads = {named(block_operators(built, block, shards(tokens=1, context_tokens=512), phase="forward", decode=True),
                   "attention.core").context_tokens.item() for block in built.blocks}
    assert reads == {16, 512}


def test_a_hybrid_has_a_mixer_and_attention() -> None:
    built: Model = model(HYBRID)
    kinds = {named(block_operators(built, block, shards(), phase="forward"), "attention.core").linear
             for block in built.blocks}
    assert kinds == {True, False}


def test_recompute_of_activations_and_of_up_projections() -> None:
    latent, mixture = model(LATENT), model(MIXTURE)
    forward = block_operators(latent, latent.blocks[-1], shards(), phase="forward")
    names = {operator.name for operator in recomputed_operators(forward, "up_projections")}
    assert names == {"attention.query", "attention.kv_up", "attention.rope", "attention.join"}
    forward = block_operators(mixture, mixture.blocks[-1], shards(), phase="forward")
    again = recomputed_operators(forward, "activations")
    assert {operator.name for operator in again} >= {"norm.mlp", "moe.activation"}
    assert all(isinstance(operator, Elementwise) for operator in again)
