import json
import os
import subprocess

import pytest

from serried.emit.torchtitan import torchtitan_arguments
from serried.errors import BadInput
from serried.workload import Training, read_model
from tests.emit.layouts import layout
from tests.laws.source import ROOT

TOOL = ROOT / ".venv-tools" / "bin" / "python"


def _parsed(words):
    if not TOOL.exists():
        assert "SERRIED_TOOLS" not in os.environ, "`make tools` did not install torchtitan"
        pytest.skip("torchtitan is not installed here; `make tools` installs it")
    reader = ROOT / "tests" / "emit" / "parse_torchtitan.py"
    done = subprocess.run([TOOL, reader, *words], capture_output=True, text=True, check=False, timeout=300)
    lines = [line for line in done.stdout.splitlines() if line.startswith("PARSED ")]
    assert lines, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(lines[0].removeprefix("PARSED "))


@pytest.mark.parametrize(("model", "chips", "changes"), [
    ("Llama-3.1-8B", 64, {"sharding": 3, "recompute": "selective"}),
    ("Llama-3.1-70B", 256, {"tp": 8, "pp": 4, "virtual_stages": 2, "schedule": "interleaved", "recompute": "full"}),
    ("DeepSeek-V3", 512, {"pp": 8, "ep": 32, "sharding": 1, "schedule": "1f1b", "sequence_parallel": False}),
])
def test_torchtitan_understands_what_we_emit(model, chips, changes):
    job = Training(model=read_model(model), sequence_tokens=4096, global_batch_sequences=1024)
    row = layout(**changes)
    understood = _parsed(torchtitan_arguments(job, row, chip_count=chips))
    parallel = understood["parallelism"]
    assert parallel["tensor_parallel_degree"] == row["tp"]
    assert parallel["pipeline_parallel_degree"] == row["pp"]
    data = parallel["data_parallel_replicate_degree"] * parallel["data_parallel_shard_degree"]
    assert data * row["tp"] * row["cp"] * row["pp"] == chips
    assert understood["training"]["global_batch_size"] == 1024
    assert row["recompute"].capitalize()[:4] in understood["recompute"]


def test_a_recipe_that_torchtitan_lacks_is_refused():
    job = Training(model=read_model("Llama-3.1-8B"), sequence_tokens=4096, global_batch_sequences=64)
    with pytest.raises(BadInput, match="number_format"):
        torchtitan_arguments(job, layout(number_format="nvfp4"), chip_count=64)
