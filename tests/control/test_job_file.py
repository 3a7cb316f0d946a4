"""A job file becomes the submission that it says, or one clear refusal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from serried.control.job_file import read_job
from serried.control.job_form import (
    HealthForm,
    JobForm,
    LimitsForm,
    TopologyForm,
    WorkloadForm,
    form_of,
    read_form,
    spec_of,
)
from serried.control.managed import written
from serried.control.spec import Health, JobSpec, Topology
from serried.errors import BadInput
from serried.runners import Limits

ROOT = Path(__file__).resolve().parents[2]
FORMS = {"": JobForm, "topology": TopologyForm, "health": HealthForm, "limits": LimitsForm, "workload": WorkloadForm}


def refusal(said: dict | bytes) -> BadInput:
    with pytest.raises(BadInput) as caught:
        spec_of(written(read_form(said)))
    return caught.value


def test_toml_and_yaml_say_the_same(tmp_path):
    toml, yaml = tmp_path / "a.toml", tmp_path / "a.yaml"
    toml.write_text('command = ["python", "train.py"]\nworkers = 4\nmemory = "2 GiB"\nbackoff = "1 min"\n'
                    'environment = {A = "1"}\n[topology]\nlevel = "leaf"\nrequired = true\n')
    yaml.write_text('command: [python, train.py]\nworkers: 4\nmemory: 2 GiB\nbackoff: 60\nenvironment: {A: "1"}\n'
                    'topology: {level: leaf, required: true}\n')
    assert read_job(toml) == read_job(yaml) == JobSpec(
        name="a", argv=("python", "train.py"), workers=4, memory_bytes=2 * 2**30, backoff_s=60.0,
        environment={"A": "1"}, topology=Topology(level="leaf", required=True), directory=str(tmp_path))


def test_directories_start_at_the_file(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('command = ["true"]\ndirectory = "code"\ncheckpoint_directory = "saved"\n')
    assert read_job(path).directory == f"{tmp_path}/code"
    assert read_job(path).checkpoint_directory == f"{tmp_path}/code/saved"
    assert refusal({"command": ["true"], "directory": "code"}).field == "directory"


@pytest.mark.parametrize(("said", "field", "remedy"), [
    ({"comand": ["a"]}, "comand", "command"),
    ({"command": ["a"], "heartbeat": "1 s"}, "heartbeat", r"health\.heartbeat"),
    ({"command": ["a"], "health": {"hartbeat": "1 s"}}, "health.hartbeat", "heartbeat"),
    ({"command": "python 'my train.py' -x"}, "command", r'\["python", "my train\.py", "-x"\]'),
    ({"command": "python 'my"}, "command", "Write command = "),
    ({}, "command", r"\[workload\]"),
    ({"command": []}, "command", ""),
    ({"command": [""]}, "command", ""),
    ({"command": ["a", 3]}, "command.1", "quotes"),
    ({"command": ["a\x00b"]}, "command.0", "NUL"),
    ({"command": ["a"], "workers": "4"}, "workers", "without quotes"),
    ({"command": ["a"], "workers": True}, "workers", ""),
    ({"command": ["a"], "workers": 0}, "workers", ""),
    ({"command": ["a"], "memory": "2 parsecs"}, "memory", '"2 GiB"'),
    ({"command": ["a"], "memory": True}, "memory", ""),
    ({"command": ["a"], "grace": "-1 s"}, "grace", "10 s"),
    ({"command": ["a"], "runtime": float("inf")}, "runtime", ""),
    ({"command": ["a"], "runtime": "100 years"}, "runtime", ""),
    ({"command": ["a"], "priority": 40_000}, "priority", ""),
    ({"command": ["a"], "share": 0.5, "workers": 2}, "share", "one worker"),
    ({"command": ["a"], "share": float("nan")}, "share", ""),
    ({"command": ["a"], "topology": {"required": True}}, "topology.required", "level"),
    ({"command": ["a"], "topology": {"spread_workers": 2}}, "topology.spread_workers", "both"),
    ({"command": ["a"], "workers": 4, "topology": {"island_workers": 3}}, "topology.island_workers", ""),
    ({"command": ["a"], "topology": "leaf"}, "topology", "table"),
    ({"command": ["a"], "environment": {"a b": "1"}}, "environment", ""),
    ({"command": ["a"], "environment": {"A": 1}}, "environment.A", "quotes"),
    ({"command": ["a"], "name": "two\nlines"}, "name", ""),
    (b"{", "body", ""),
    (b"[]", "job", ""),
    (b'{"command": ["\xff"]}', "body", ""),
    ({"command": ["a"], "workload": {"serve": "Qwen/Qwen3-8B"}}, "workload", "Leave one"),
    ({"workload": {}}, "workload", "serve"),
    ({"workload": {"serve": "Qwen/Qwen3-8B"}}, "workload.chip", "catalogue"),
    ({"workload": {"serve": "Qwen/Qwen3-8B", "chip": "h1000"}}, "workload.chip", "h100"),
    ({"workload": {"serve": "é" * 200, "chip": "h100"}}, "workload.serve", "catalogue"),
    ({"workload": {"serve": "/etc/passwd", "chip": "h100"}}, "workload.serve", "catalogue"),
    ({"workload": {"serve": "Qwen/Qwen3-8B", "chip": "h100", "layout": {"tp": 3}}}, "workload.layout", "heads"),
    ({"workload": {"serve": "Qwen/Qwen3-8B", "chip": "h100", "layout": {"tp": 16}}}, "workload.layout", ""),
    ({"workload": {"serve": "Qwen/Qwen3-8B", "chip": "h100", "layout": {"dp": 2}}}, "workload.layout.dp", "Degrees"),
    ({"workload": {"serve": "Qwen/Qwen3-8B", "chip": "h100", "weights": "bf61"}}, "workload.weights", "bf16"),
    ({"workload": {"train": "no such model"}}, "workload.model", ""),
    ({"workload": {"train": "meta-llama/Llama-3.1-8B"}, "workers": 8}, "workload.global_batch", "64"),
    ({"workload": {"train": "meta-llama/Llama-3.1-8B", "layout": {"tp": 3}}, "workers": 8}, "workload.layout", ""),
])
def test_what_is_wrong_is_named_with_its_remedy(said, field, remedy):
    error = refusal(said)
    assert error.field == field
    assert error.expected
    assert re.search(remedy, error.remedy)


@pytest.mark.parametrize(("name", "text"), [
    ("a.toml", "command = ["), ("a.toml", "x" * 10), ("a.yaml", "a: [1"), ("a.yaml", "- 1"), ("a.yaml", ""),
    ("a.yaml", "command: [a]\ncommand: [b]\n"), ("a.yaml", "a: &x [1]\nb: *x\n"), ("a.json", "{}"),
    ("a.yaml", "!!python/object/apply:os.getcwd []"), ("a.yaml", "{? [a] : b}"), ("a.yaml", "[" * 5000)])
def test_files_that_are_none(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(BadInput, match=re.escape(str(path))):
        read_job(path)


def test_a_missing_file(tmp_path):
    for name in ("none.toml", "none.yaml"):
        with pytest.raises(BadInput, match="readable file"):
            read_job(tmp_path / name)


def test_a_served_model_is_written_out():
    spec = spec_of(written(read_form({"workload": {"serve": "Qwen/Qwen3-8B", "engine": "sglang", "chip": "h100",
                                                   "layout": {"tp": 2}, "arguments": ["--seed", "1"]}})))
    assert spec.argv[:3] == ("python", "-m", "sglang.launch_server")
    assert spec.argv[-2:] == ("--seed", "1")
    assert (spec.workers, spec.chips_per_worker, spec.chips) == (1, 2, ("h100",))
    assert spec.workload == "serve Qwen/Qwen3-8B with sglang, tp=2"


def test_a_trained_model_is_written_out():
    spec = spec_of(written(read_form({"workers": 8, "workload": {
        "train": "meta-llama/Llama-3.1-8B", "layout": {"tp": 2, "sharding": 3}, "global_batch": 64}})))
    words = dict(zip(spec.argv, spec.argv[1:], strict=False))
    assert words["--parallelism.data_parallel_shard_degree"] == "4"
    assert (spec.workers, spec.chips_per_worker) == (8, 1)


names = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
numbers = st.floats(0, 1e9)


@given(st.builds(
    JobSpec, name=names, argv=st.lists(names.filter(str.strip), min_size=1, max_size=4).map(tuple),
    workers=st.integers(1, 999), chips_per_worker=st.integers(1, 64), chips=st.lists(names, max_size=2).map(tuple),
    cpu_cores=st.floats(0, 100), memory_bytes=st.integers(0, 2**50), tenant=names | st.just(""),
    priority=st.integers(-9, 9), preemptible=st.booleans(), directory=st.just("") | st.just("/srv/code"),
    environment=st.dictionaries(st.from_regex(r"[A-Z_]{1,9}", fullmatch=True), names, max_size=2),
    checkpoint_directory=st.just("") | st.just("/srv/saved"), retries=st.integers(0, 9), backoff_s=numbers,
    grace_s=numbers, runtime_s=numbers, workload=names,
    topology=st.builds(Topology, level=names, required=st.booleans(), island_workers=st.integers(0, 1),
                       spread_level=names, spread_workers=st.integers(1, 9)),
    health=st.builds(Health, heartbeat_s=numbers, start_s=numbers, straggler_ratio=st.floats(1, 9)),
    limits=st.builds(Limits, open_files=st.integers(0, 9), memory_bytes=st.integers(0, 2**50),
                     core_bytes=st.integers(0, 2**50))))
def test_a_submission_goes_out_and_comes_back_the_same(spec):
    assert spec_of(read_form(form_of(spec))) == spec


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("job-*")), ids=lambda path: path.name)
def test_examples_are_jobs(path):
    assert read_job(path).argv


def test_the_page_speaks_of_every_field():
    page = (ROOT / "docs" / "job-file.md").read_text(encoding="utf-8")
    for table, form in FORMS.items():
        for name in form.model_fields:
            assert f"| `{f'{table}.{name}' if table else name}` |" in page


def test_nearest_fields_know_every_form():
    tables = {name for name, field in JobForm.model_fields.items() for kind in FORMS.values()
              if (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel))
              or field.annotation == (kind | None)}
    assert tables == set(FORMS) - {""}
