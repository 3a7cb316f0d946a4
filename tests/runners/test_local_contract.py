"""The local engine keeps the promises of every engine, with and without cgroups."""

import pytest

from tests.runners.contract import EngineContract
from tests.runners.local_bench import LocalBench


@pytest.fixture(params=[True, False], ids=["cgroups", "no cgroups"])
def bench(tmp_path, request):
    made = LocalBench(tmp_path, cgroups=request.param)
    yield made
    made.engine.shutdown(0)


class TestLocalEngine(EngineContract):
    pass
