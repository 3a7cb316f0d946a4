import numpy as np

from serried.workload import Exchange, Gemm
from serried.workload.linear import Region, exchange, linear, region_of
from tests.workload.models import shards


def region(phase: str = "forward", rank: int = 0, **cut: object) -> Region:
    return region_of(shards(**cut), phase=phase, element_bytes=2.0, adapter_rank=rank,  # type: ignore[arg-type]
                     decode=False)


def test_tokens_of_a_chip_between_and_inside_tensor_regions() -> None:
    cut = region(tensor=[2.0, 2.0], context=4.0, sequence_parallel=[False, True])
    assert cut.inner_tokens.tolist() == 2 * 64 / 4
    assert cut.resting_tokens.tolist() == [32, 16]


def test_a_decode_step_is_not_cut_over_the_context() -> None:
    cut = region_of(shards(tokens=1.0, context=4.0), phase="forward", element_bytes=2.0, adapter_rank=0, decode=True)
    assert cut.inner_tokens == 2


def test_adapters_stand_beside_a_frozen_product() -> None:
    names = [operator.name for operator in linear("x", np.asarray(8.0), 4.0, 6.0, region(rank=2), adapted=True)]
    assert names == ["x", "x.adapter_down", "x.adapter_up", "x.adapter_sum"]
    backward = linear("x", np.asarray(8.0), 4.0, 6.0, region("backward", rank=2), adapted=True)
    weights = {operator.name: (float(operator.m), float(operator.n), float(operator.k)) for operator in backward
               if isinstance(operator, Gemm) and operator.phase == "backward_weight"}
    assert weights == {"x.adapter_down": (2, 6, 8), "x.adapter_up": (4, 2, 8)}
    assert len(linear("x", np.asarray(8.0), 4.0, 6.0, region("backward", rank=2))) == 1


def test_a_group_of_one_exchanges_nothing() -> None:
    assert exchange("x", "all_reduce", "tensor", 7.0, np.ones(3)) == []
    found = exchange("x", "all_reduce", "tensor", 7.0, np.array([1.0, 2.0]))
    assert isinstance(found[0], Exchange)
    assert found[0].payload_bytes.tolist() == [0, 7]
