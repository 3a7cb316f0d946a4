import numpy as np

from serried.workload import Elementwise, accumulation_operators, optimizer_operators


def moved(operators: tuple[object, ...]) -> float:
    return sum(float(operator.read_bytes + operator.write_bytes) for operator in operators
               if isinstance(operator, Elementwise))


def test_adam_in_mixed_precision_by_hand() -> None:
    # norm reads 4; the update reads gradient, two moments, master (16) and writes moments, master, weight (14);
    # clearing the gradient writes 4
    assert moved(optimizer_operators(np.asarray(1000.0))) == 1000 * (4 + 16 + 14 + 4)


def test_adam_without_a_master_copy() -> None:
    operators = optimizer_operators(np.asarray(1.0), weight_bytes=4.0, master_bytes=0.0)
    assert moved(operators) == 4 + (4 + 8 + 4) + (8 + 4) + 4


def test_gradients_are_added_in_single_precision() -> None:
    assert moved(accumulation_operators(np.asarray(10.0))) == 10 * (2 + 4 + 4)
