import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serried.workload import Attend, Elementwise, Gemm, attend_flop, block_operators, causal_pairs
from serried.workload.attention import rank_heads
from tests.workload.models import GPT, LATENT, model, shards


@given(query=st.integers(1, 300), past=st.integers(0, 300), window=st.integers(0, 400))
def test_pairs_are_counted_as_one_by_one(query: int, past: int, window: int) -> None:
    context = past + query
    exact = sum(min(position + 0.5, window or np.inf) for position in range(past, context))
    counted = causal_pairs(np.float64(query), np.float64(context), window)  # type: ignore[arg-type]
    assert float(counted) == pytest.approx(exact, abs=0.5, rel=1e-9)


def test_a_whole_sequence_is_half_a_square_and_decode_a_row() -> None:
    assert float(causal_pairs(np.asarray(100.0), np.asarray(100.0))) == 5000
    assert float(causal_pairs(np.asarray(1.0), np.asarray(1000.0))) == pytest.approx(1000, rel=1e-3)


def test_key_value_heads_are_repeated_when_ranks_are_more() -> None:
    spec = model({"model_type": "llama", "hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 8,
                  "num_key_value_heads": 2, "intermediate_size": 64, "vocab_size": 64}).blocks[0].attention
    assert spec is not None
    heads, kv_heads = rank_heads(spec, np.array([1.0, 2.0, 8.0]))
    assert heads.tolist() == [8, 4, 1]
    assert kv_heads.tolist() == [2, 1, 1]


def test_scores_in_memory_by_hand() -> None:
    built = model(GPT)
    operators = block_operators(built, built.blocks[0], shards(tensor=2.0), phase="forward", fused_attention=False)
    cores = [operator for operator in operators if operator.name.startswith("attention.core")]
    products = [operator for operator in cores if isinstance(operator, Gemm)]
    scores = 2 * (4 / 2) * 64 * 64             # sequences, heads of a rank, a whole square
    assert [float(operator.m * operator.n * operator.batch) for operator in products] == [scores, 2 * 2 * 64 * 16]
    assert not any(operator.weight for operator in products)
    passes = [operator for operator in cores if isinstance(operator, Elementwise)]
    assert sum(operator.read_bytes for operator in passes) == scores * 4
    assert sum(operator.write_bytes for operator in passes) == scores * 5


@pytest.mark.parametrize("window", [0, 8, 40])
def test_context_ranks_share_the_pairs(window: int) -> None:
    config = {"model_type": "mistral", "hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 8,
              "intermediate_size": 64, "vocab_size": 64, "sliding_window": window or None}
    built = model(config)

    def core(context: float) -> Attend:
        operators = block_operators(built, built.blocks[0], shards(context=context), phase="forward")
        return next(operator for operator in operators if isinstance(operator, Attend))

    assert attend_flop(core(4.0)) * 4 == pytest.approx(attend_flop(core(1.0)))
    assert core(4.0).context_tokens == 16


def test_chunks_are_many_short_sequences() -> None:
    config = {"model_type": "llama4_text", "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 8,
              "intermediate_size": 64, "num_local_experts": 4, "num_experts_per_tok": 1, "vocab_size": 64,
              "attention_chunk_size": 16}
    built = model(config)
    operators = block_operators(built, built.blocks[0], shards(), phase="forward")
    core = next(operator for operator in operators if isinstance(operator, Attend))
    assert (core.sequences, core.query_tokens, core.context_tokens, core.window_tokens) == (2 * 64 / 16, 16, 16, 0)


def test_engines_put_the_down_projections_of_a_latent_side_by_side() -> None:
    """The same weights in one product less; training, where adapters hang on each, keeps them apart."""
    built = model(LATENT)

    def downs(serving: bool) -> list[Gemm]:
        return [operator for operator in block_operators(built, built.blocks[0], shards(), phase="forward",
                                                         serving=serving)
                if isinstance(operator, Gemm) and "down" in operator.name and operator.name.startswith("attention.")]

    apart, joint = downs(False), downs(True)
    assert (len(apart), len(joint)) == (2, 1)
    assert sum(float(operator.n) for operator in apart) == float(joint[0].n) == 96 + 48 + 16
