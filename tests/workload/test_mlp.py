from dataclasses import replace
from typing import Any

import pytest

from serried.workload import Elementwise, Exchange, Gemm, GroupedGemm, block_operators
from tests.workload.models import LATENT, LETTERS, MIXTURE, model, shards


def operators_of(config: dict[str, Any], phase: Any = "forward", **cut: Any) -> dict[str, Any]:
    built = model(config)
    return {operator.name: operator for operator in block_operators(built, built.blocks[-1], shards(**cut),
                                                                    phase=phase)}


def test_rows_of_experts_by_hand() -> None:
    found = operators_of(MIXTURE, expert=8.0)
    up, down = found["moe.expert_up"], found["moe.expert_down"]
    assert isinstance(up, GroupedGemm)
    assert (up.groups, up.rows, up.n, up.k) == (16 / 8, 2 * 64 * 4, 2 * 64, 128)
    assert (down.n, down.k) == (128, 64)
    dispatched = found["moe.dispatch"]
    assert isinstance(dispatched, Exchange)
    assert (dispatched.operation, dispatched.axis) == ("all_to_all", "expert")
    assert dispatched.payload_bytes == 2 * 64 * 4 * 128 * 2
    assert found["moe.combine"].payload_bytes == dispatched.payload_bytes


def test_whole_experts_on_tensor_ranks_take_a_share_of_the_tokens() -> None:
    cut_experts = operators_of(MIXTURE, tensor=4.0, sequence_parallel=True, expert=2.0)
    whole_experts = operators_of(MIXTURE, tensor=4.0, sequence_parallel=True, expert=8.0, expert_tensor=1.0)
    assert whole_experts["moe.expert_up"].rows * 4 == cut_experts["moe.expert_up"].rows == 2 * 64 * 4
    assert whole_experts["moe.expert_up"].n == cut_experts["moe.expert_up"].n * 4
    assert cut_experts["moe.dispatch_gather"].payload_bytes == 2 * 64 * 4 * 128 * 2
    assert "moe.dispatch_gather" not in whole_experts
    assert whole_experts["moe.dispatch"].payload_bytes == cut_experts["moe.dispatch"].payload_bytes


def test_without_sequence_parallelism_the_sum_is_reduced() -> None:
    found = operators_of(MIXTURE, tensor=4.0)
    assert found["moe.all_reduce"].payload_bytes == 2 * 64 * 128 * 2
    assert "moe.dispatch" not in found
    assert found["moe.expert_up"].n == 2 * 64 / 4


def test_gradients_of_experts() -> None:
    built = model(MIXTURE)
    backward = [operator for operator in block_operators(built, built.blocks[0], shards(), phase="backward")
                if isinstance(operator, GroupedGemm)]
    assert [operator.phase for operator in backward] == ["backward_data", "backward_weight"] * 2
    assert len({float(operator.rows * operator.n * operator.k) for operator in backward[:2]}) == 1


def test_the_router_stays_in_high_precision_and_the_permutation_is_a_pass_of_its_own() -> None:
    found = operators_of(MIXTURE)
    router, permute = found["moe.router"], found["moe.permute"]
    assert isinstance(router, Gemm)
    assert router.high_precision
    assert isinstance(permute, Elementwise)
    assert not permute.fusible
    assert (permute.read_bytes, permute.write_bytes) == (2 * 64 * 128 * 2, 2 * 64 * 128 * 2 * 4)
    back = operators_of(MIXTURE, "backward")["moe.permute"]
    assert (back.read_bytes, back.write_bytes) == (permute.write_bytes, permute.read_bytes)


def test_every_token_passes_the_shared_expert() -> None:
    found = operators_of(LATENT, tensor=2.0, sequence_parallel=True, expert=2.0)
    up = found["moe.shared.up"]
    assert (up.m, up.n, up.k) == (2 * 64, 2 * 64 / 2, 256)
    assert found["moe.shared_gather"].payload_bytes == pytest.approx(2 * 64 * 256 * 2)


def test_experts_of_a_narrower_width_work_between_two_projections() -> None:
    found = operators_of(LETTERS, expert=4.0)
    assert (found["moe.latent_down"].n, found["moe.latent_up"].n) == (64, 128)
    assert (found["moe.expert_up"].n, found["moe.expert_up"].k) == (64, 64)
    assert found["moe.dispatch"].payload_bytes == 2 * 64 * 2 * 64 * 2


def test_every_rank_of_a_replicated_batch_scores_every_token() -> None:
    found = operators_of(MIXTURE, tensor=8.0, expert=8.0, expert_tensor=1.0, sequences=1.0, tokens=1.0)
    assert found["moe.router"].m == 1
    assert found["moe.expert_up"].rows == 1 * 4 / 8


def test_experts_without_fused_biases_pass_their_rows_op_by_op() -> None:
    built = model(MIXTURE)
    biased = replace(built, blocks=tuple(
        replace(block, mlp=replace(block.mlp, bias=True)) for block in built.blocks if block.mlp is not None))

    def apart(phase: Any, built: Any = biased, fused: bool = False) -> dict[str, Elementwise]:
        return {operator.name: operator for operator in block_operators(
            built, built.blocks[-1], shards(), phase=phase, fused_experts=fused) if isinstance(operator, Elementwise)}

    rows = 2 * 64 * 4
    limits, bias = apart("forward")["moe.activation_limits"], apart("forward")["moe.expert_bias"]
    assert (limits.read_bytes, limits.write_bytes) == (4 * rows * 64 * 2, 4 * rows * 64 * 2)
    assert (bias.read_bytes, bias.write_bytes) == (14 * rows * 128, 14 * rows * 128)
    assert apart("backward")["moe.expert_bias"].read_bytes == 24 * rows * 128
    for names in (apart("forward", fused=True), apart("forward", built=built)):
        assert not {"moe.activation_limits", "moe.expert_bias"} & set(names)
