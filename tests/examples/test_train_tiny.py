"""The training example: a rank dies halfway, the gang is started again, and the loss curve is that of a calm run."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from serried.api.client import Client
from serried.control.spec import JobPhase
from serried.workload import parameters, read_model
from tests.laws.source import ROOT

EXAMPLE = ROOT / "examples" / "train-tiny"
TOOL = Path(os.environ.get("SERRIED_TORCH_PYTHON", ROOT / ".venv-tools" / "bin" / "python"))
STEPS, EVERY = 240, 50
#: Small enough that a step takes milliseconds; the parts are those of the example.
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8, "vocab_size": 64}
PATIENCE_S = 300.0   # a machine that does other things as well


@pytest.fixture(scope="module")
def python():
    if not TOOL.exists():
        assert "SERRIED_TOOLS" not in os.environ, "`make tools` did not install PyTorch"
        pytest.skip("PyTorch is not installed here; `make tools` installs it")
    return str(TOOL)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """The words after `train.py`: a model so small that starting PyTorch is most of the test."""
    config = json.loads((EXAMPLE / "config.json").read_text(encoding="utf-8")) | SMALL
    path = tmp_path_factory.mktemp("model") / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return ["--config", str(path), "--steps", str(STEPS), "--checkpoint-every", str(EVERY), "--batch", "2",
            "--sequence", "32", "--learning-rate", "1e-2", "--timeout", "60"]


class Gang:
    """The least launcher there is: two ranks, torchrun's variables, nobody who watches."""

    def __init__(self, python, words, folder, attempt, *, size=2):
        folder.mkdir(exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.folder = folder
        self.logs = [folder / f"attempt-{attempt}.rank-{rank}.log" for rank in range(size)]
        self.ranks = []
        for rank, log in enumerate(self.logs):
            place = {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                     "OMP_NUM_THREADS": "1", "SERRIED_CHECKPOINT": str(folder), "SERRIED_ATTEMPT": f"1.{attempt}",
                     "SERRIED_HEARTBEAT": str(folder / f"beat.{rank}"), "TORCHELASTIC_RESTART_COUNT": str(attempt)}
            with log.open("wb") as out:
                self.ranks.append(subprocess.Popen([python, str(EXAMPLE / "train.py"), *words], stdout=out,
                                                   stderr=subprocess.STDOUT, env={**os.environ, **place}))

    def wait(self):
        codes = [one.wait(timeout=PATIENCE_S) for one in self.ranks]
        return codes, "\n".join(log.read_text(encoding="utf-8", errors="replace") for log in self.logs)


def curve_of(folder):
    path = folder / "curve.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def wait_until(true, what):
    end_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end_s, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def curves(python, words, tmp_path_factory):
    """(folder of a run that nobody disturbs, folder of one whose rank 1 is killed halfway and whose newest checkpoint
    is then cut by hand, what the second attempt said)."""
    calm = Gang(python, words, tmp_path_factory.mktemp("calm"), 0)
    folder = tmp_path_factory.mktemp("disturbed")
    first = Gang(python, words, folder, 0)
    wait_until(lambda: len(curve_of(folder)) >= STEPS // 2, "half of the steps")
    first.ranks[1].kill()
    codes, said = first.wait()
    assert codes[1] == -signal.SIGKILL
    assert codes[0] != 0, "rank 0 must not think that it is done\n" + said
    assert STEPS // 2 <= len(curve_of(folder)) < STEPS
    codes, said = calm.wait()
    assert codes == [0, 0], said

    newest = max(folder.glob("step-*.pt"))
    newest.write_bytes(newest.read_bytes()[:1000])
    (folder / "unfinished.part").write_bytes(b"a checkpoint that nobody finished")
    codes, said = Gang(python, words, folder, 1).wait()
    assert codes == [0, 0], said
    return calm.folder, folder, newest, said


def test_a_rank_dies_halfway_and_the_curve_goes_on(curves):
    """Every step is there, repeated ones say the same again, and all of it is the calm run to the last bit."""
    calm, disturbed = curve_of(curves[0]), curve_of(curves[1])
    expected = {line["step"]: line["loss"] for line in calm}
    assert len(calm) == len(expected) == STEPS
    assert {line["step"] for line in disturbed} == set(expected)
    assert [(line["step"], line["loss"]) for line in disturbed if line["loss"] != expected[line["step"]]] == []
    steps = [line["step"] for line in disturbed]
    jumps = [(before, after) for before, after in pairwise(steps) if after != before + 1]
    assert len(jumps) == 1, "one attempt after another, each without a gap"
    assert len(disturbed) > STEPS, "some steps were done twice"
    assert calm[-1]["loss"] < 0.5 * calm[0]["loss"], "it learns"


def test_a_broken_checkpoint_costs_one_interval(curves):
    """A file that was cut by hand (a rename is never half) is named, and the one before it is taken, not the start."""
    _, folder, newest, said = curves
    before = int(newest.stem.partition("-")[2]) - EVERY
    assert before > 0
    assert f"{newest.name} cannot be read" in said
    assert f"from step {before} of {STEPS}" in said
    resumed = [line for line in curve_of(folder) if line["restarts"] == 1]
    assert resumed[0]["step"] == before
    assert {line["attempt"] for line in resumed} == {"1.1"}


def test_ranks_say_that_they_live(curves):
    for rank in range(2):
        step, busy_s = (curves[0] / f"beat.{rank}").read_text(encoding="ascii").split()
        assert int(step) == STEPS
        assert 0 < float(busy_s) < 10
    assert len(list(curves[0].glob("step-*.pt"))) == 2, "old checkpoints go"


def test_serried_reads_the_very_model():
    """The config beside the script is one that `serried plan` takes, with the parameters that PyTorch counts."""
    model = read_model(str(EXAMPLE))
    assert (model.layer_count, model.hidden) == (4, 256)
    assert parameters(model).total == 3_410_176   # what train.py prints


@pytest.fixture
def plane(tmp_path):
    """A control plane with two virtual chips; whatever it runs ends with the test."""
    state, nodes = tmp_path / "state", tmp_path / "nodes.toml"
    nodes.write_text('[[node]]\nname = "laptop"\nkind = "virtual"\nchips = 2\n', encoding="utf-8")
    begun = serried("up", "--background", "--state", state, "--nodes", nodes)
    assert begun.returncode == 0, begun.stderr
    yield state
    serried("down", "--jobs", "--state", state)


def serried(*words):
    return subprocess.run([sys.executable, "-m", "serried.cli", *map(str, words)], capture_output=True, text=True,
                          timeout=PATIENCE_S, check=False)


def job_file(python, words, folder):
    """The example's own job file, with this test's Python, model and folders in it."""
    text = (EXAMPLE / "job.toml").read_text(encoding="utf-8")
    for name, value in (("command", json.dumps([python, "train.py", *words])),
                        ("checkpoint_directory", json.dumps(str(folder / "checkpoints")))):
        text, count = re.subn(rf"(?m)^{name} = .*$", lambda _, line=f"{name} = {value}": line, text)
        assert count == 1, name
    path = folder / "job.toml"
    path.write_text(f"directory = {json.dumps(str(EXAMPLE))}\n{text}", encoding="utf-8")
    return path


def test_the_control_plane_restarts_the_gang_and_the_curve_goes_on(python, words, curves, plane, tmp_path):
    submitted = serried("submit", job_file(python, words, tmp_path), "--state", plane, "--json")
    assert submitted.returncode == 0, submitted.stderr
    number, folder = json.loads(submitted.stdout)["job"], tmp_path / "checkpoints"
    with Client(state=plane) as client:
        wait_until(lambda: len(curve_of(folder)) >= STEPS // 2, "half of the steps")
        seen = client.job(number)
        assert seen.phase is JobPhase.RUNNING
        assert max(rank.step for rank in seen.ranks) > 0, "their heartbeats are heard"
        os.kill(seen.ranks[1].pid, signal.SIGKILL)
        wait_until(lambda: client.job(number).phase in (JobPhase.SUCCEEDED, JobPhase.FAILED), "the end of the job")
        job = client.job(number)
        said = list(client.logs(number, tail=20))
    assert (job.phase, job.restarts) == (JobPhase.SUCCEEDED, 1), (job, said)
    lines = curve_of(folder)
    assert {line["restarts"] for line in lines} == {0, 1}
    expected = {line["step"]: line["loss"] for line in curve_of(curves[0])}
    assert {line["step"] for line in lines} == set(expected)
    assert [line for line in lines if line["loss"] != expected[line["step"]]] == []
    resumed = [line["step"] for line in lines if line["restarts"] == 1]
    assert resumed == list(range(resumed[0], STEPS))
    assert resumed[0] >= STEPS // 2 // EVERY * EVERY, "it goes on from the newest checkpoint, not from the start"


def test_from_this_very_processor_to_a_predicted_step(python, curves, tmp_path):
    """What is measured is what calibrate reads, what it writes is what plan takes, and the two stand side by side.

    Only that every form fits: on a busy machine, with a few small sizes, the seconds mean little.
    """
    measured = subprocess.run([python, str(EXAMPLE / "measure_cpu.py"), "--quick", "--rounds", "1", "--out",
                               str(tmp_path)], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert measured.returncode == 0, measured.stderr

    def here(*words):
        done = subprocess.run([sys.executable, "-m", "serried.cli", *words], cwd=tmp_path, capture_output=True,
                              text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout.splitlines()[-1])

    fitted = here("calibrate", "this-cpu.toml", "--gemm", "gemm.csv", "--attention", "attention.csv", "--memory",
                  "memory.csv", "--collectives", "all_reduce-2.log", "--json")
    assert {fit["subject"].split(" ")[0] for fit in fitted["fits"]} == {
        "gemm.fp32", "attention.fp32", "attention_backward.fp32", "memory_bound.bf16", "collectives"}
    plan = here("plan", str(EXAMPLE), "--fleet", "this-cpu.toml:2", "--train", "128x16", "--stack",
                str(EXAMPLE / "stack.toml"), "--profile", "this-cpu.profile.toml", "--collectives",
                "this-cpu.collectives.toml", "--json", "--pin", "number_format=fp32,tp=1,cp=1,pp=1,micro_batch=8,"
                "sharding=0,recompute=none,overlap_data=0")
    assert plan["evidence_class"] == "kernel-calibrated chip"
    causes = plan["layouts"][0]["time_by_cause_s"]
    assert all(causes[cause] > 0 for cause in ("gemm", "attention", "memory_bound", "data_exposed", "optimizer"))
    (tmp_path / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    beside = subprocess.run([python, str(EXAMPLE / "compare.py"), str(tmp_path / "plan.json"),
                             str(curves[0] / "curve.jsonl")], capture_output=True, text=True, check=False)
    assert beside.returncode == 0, beside.stderr
    assert beside.stdout.count("predicted / median") == 2
