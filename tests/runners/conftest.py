import pytest

from tests.runners.local_bench import LocalBench


@pytest.fixture
def local(tmp_path):
    """The local engine on two nodes, ended with everything it ran."""
    made = LocalBench(tmp_path)
    yield made
    made.engine.shutdown(0)
