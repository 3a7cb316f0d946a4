from collections.abc import Callable

import pytest

from serried.compiler import profile_for
from serried.fabric import read_fabric
from serried.planner.spec import Machine
from serried.silicon import read_chip
from serried.software import stack_for
from serried.workload import read_model
from serried.workload.spec import Serving


@pytest.fixture
def machine() -> Callable[..., Machine]:
    def made(chip: str = "h100", count: int = 8) -> Machine:
        found = read_chip(chip)
        return Machine(chip=found, profile=profile_for(found), fabric=read_fabric(found.fabric), chip_count=count,
                       stack=stack_for(found.family, "serving", "vllm"))
    return made


@pytest.fixture
def job() -> Serving:
    return Serving(model=read_model("qwen3-32b"), input_tokens=512, output_tokens=128, concurrency=64)
