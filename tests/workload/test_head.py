import numpy as np
import pytest

from serried.workload import (
    Elementwise,
    Exchange,
    Gemm,
    embedding_operators,
    head_operators,
    head_workspace_bytes,
    operator_flop,
)
from tests.workload.models import LLAMA, model, shards

ROWS, HIDDEN, VOCAB = 2 * 64, 128, 1024


def test_logits_are_cut_over_the_vocabulary() -> None:
    built = model(LLAMA)
    found = {operator.name: operator for operator in head_operators(built, shards(tensor=4.0), phase="forward")}
    logits = found["head.logits"]
    assert isinstance(logits, Gemm)
    assert (logits.m, logits.n, logits.k) == (ROWS, VOCAB / 4, HIDDEN)
    assert logits.high_precision
    loss = found["head.loss"]
    assert isinstance(loss, Elementwise)
    assert loss.read_bytes == ROWS * VOCAB / 4 * (2 + 5 * 4)
    sums = [operator for operator in head_operators(built, shards(tensor=4.0), phase="forward")
            if isinstance(operator, Exchange)]
    assert [float(operator.payload_bytes) for operator in sums] == [ROWS * 4.0] * 3


def test_backward_of_the_head_is_twice_its_forward() -> None:
    built = model(LLAMA)
    forward, backward = (sum(operator_flop(operator) for operator in head_operators(built, shards(), phase=phase))
                         for phase in ("forward", "backward"))  # type: ignore[arg-type]
    assert forward == 2 * ROWS * HIDDEN * VOCAB
    assert backward == 2 * forward


def test_serving_wants_no_loss_but_all_logits() -> None:
    found = head_operators(model(LLAMA), shards(tokens=1, tensor=4.0), phase="forward", loss=False, decode=True)
    assert not [operator for operator in found if operator.name == "head.loss"]
    gathered = next(operator for operator in found if isinstance(operator, Exchange))
    assert gathered.payload_bytes == 2 * 1 * VOCAB * 2


def test_the_embedding_is_summed_or_scattered() -> None:
    built = model(LLAMA)
    payload = ROWS * HIDDEN * 2
    both = embedding_operators(built, shards(tensor=[2.0, 2.0], sequence_parallel=[False, True]), phase="forward")
    exchanged = {operator.operation: operator.payload_bytes.tolist() for operator in both
                 if isinstance(operator, Exchange)}
    assert exchanged == {"all_reduce": [payload, 0], "reduce_scatter": [0, payload]}
    back = embedding_operators(built, shards(), phase="backward")
    assert isinstance(back[0], Elementwise)
    assert back[0].write_bytes == payload + VOCAB * HIDDEN * 2


def test_workspace_of_the_loss_by_hand() -> None:
    held = head_workspace_bytes(model(LLAMA), shards(tensor=[1.0, 4.0]))
    assert held == pytest.approx(np.array([1, 0.25]) * ROWS * VOCAB * (2 + 2 + 4))
    plain = head_workspace_bytes(model(LLAMA), shards(), fused_loss=False)
    assert plain == pytest.approx(ROWS * VOCAB * (2 + 4 + 4 + 4 + 2))
