import pytest

from serried.fabric import Pool, read_fleet
from serried.workload import read_model
from serried.workload.spec import Serving, Training


@pytest.fixture(scope="session")
def fleet() -> Pool:
    return read_fleet("zhenwu-810e:8").pools[0]


@pytest.fixture(scope="session")
def rival() -> Pool:
    return read_fleet("h20:8").pools[0]


@pytest.fixture(scope="session")
def serving() -> Serving:
    return Serving(model=read_model("qwen3-32b"), input_tokens=512, output_tokens=128, concurrency=64)


@pytest.fixture(scope="session")
def training() -> Training:
    return Training(model=read_model("llama-3.1-8b"), sequence_tokens=4096, global_batch_sequences=64)
