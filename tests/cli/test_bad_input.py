"""What bad input gets: field, value, expectation and remedy, exit code 2, and nothing half-written."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serried.cli import main

SERVE = "--rival h20:8 --serve 512/128@64"


@pytest.mark.parametrize(("command", "words"), [
    (f"gap Qwen3-32BB --fleet h100:8 {SERVE}", ["model", "Qwen3-32BB", "qwen3-32b"]),
    (f"gap Qwen3-32B --fleet h1000:8 {SERVE}", ["chip", "h1000", "h100"]),
    (f"gap Qwen3-32B --fleet mlu590:8 {SERVE}", ["mlu590.toml", "figures.", "not given", "Copy the file"]),
    (f"gap Qwen3-32B --fleet h100:0 {SERVE}", ["--fleet", "positive"]),
    (f"gap Qwen3-32B --fleet h100 {SERVE}", ["--fleet", "h100:8"]),
    (f"gap Qwen3-32B --fleet mixed-h20-zhenwu {SERVE}", ["--fleet", "h20:64"]),
    (f"gap Qwen3-32B --fleet h100:8 {SERVE} --format fp17", ["--format", "fp17", "fp16"]),
    (f"gap Qwen3-32B --fleet a100:8 {SERVE} --format fp8", ["--format", "a100", "int8"]),
    (f"gap Qwen3-32B --fleet h100:8 {SERVE} --stack nope", ["stack", "nope"]),
    (f"gap Qwen3-32B --fleet h100:8 {SERVE} --profile nope.toml", ["nope.toml"]),
    (f"gap Qwen3-32B --fleet h100:8 {SERVE} --measured nope.csv", ["nope.csv", "readable"]),
    (f"gap Qwen3-32B --fleet h100:8 {SERVE} --recalibrate x.toml", ["--measured"]),
    (f"gap Qwen3-32B --fleet h100:8 {SERVE} --train 8192x64", ["exactly one"]),
    ("gap Qwen3-32B --fleet h100:8 --rival h20:8", ["--train / --serve"]),
    ("gap Qwen3-32B --fleet h100:8 --serve 512/128@64", ["--rival"]),
    ("plan llama-3.1-8b --fleet h100:8 --train 8192", ["--train", "SEQxGLOBAL_BATCH"]),
    ("plan llama-3.1-8b --fleet h100:8 --train 0x4", ["--train", "above 0"]),
    ("plan llama-3.1-8b --fleet h100:8 --serve 1/2", ["--serve", "INPUT/OUTPUT@CONCURRENCY"]),
    ("plan llama-3.1-8b --fleet h100:8 --train 8192x64 --pin tp=3", ["--pin", "chips divide"]),
    ("plan llama-3.1-8b --fleet h100:8 --train 8192x64 --pin zz=3", ["--pin", "tp"]),
    ("plan llama-3.1-8b --fleet h100:8 --train 8192x64 --pin recompute=foo", ["recompute", "selective"]),
    ("plan llama-3.1-8b --fleet h100:8 --serve 512/128@64 --pin weight_formats=foo", ["weight_formats", "fp8"]),
    ("plan llama-3.1-8b --fleet a100:8 --serve 512/128@64 --pin weight_formats=fp8", ["a100", "int8"]),
    ("plan llama-3.1-8b --fleet h100:8 --train 8192x64 --emit yaml", ["--emit", "megatron"]),
    ("plan llama-3.1-8b --fleet h100:8 --train 8192x64 --objective speed", ["objective", "step_time"]),
    ("plan llama-3.1-8b --fleet h100:8 --train 8192x64 --top 0", ["--top"]),
    ("catalogue chipz", ["KIND", "chips"]), ("catalogue chips nope", ["chip", "nope"]),
    ("evidence --area everything", ["area", "kernels"]),
    ("calibrate h100", ["--gemm"]), ("calibrate h100 --gemm nope.csv", ["nope.csv"]),
    ("calibrate ../x! --gemm nope.csv", ["NAME"]),
    ("gapp", ["gapp", "'gap'"]), ("evidense", ["evidence"]), ("gap --nope", ["--nope"]),
])
def test_field_value_and_remedy(command, words, capsys):
    assert main(command.split()) == 2
    said = capsys.readouterr().err
    for word in words:
        assert word in said
    assert main([*command.split(), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "serried/error/1"
    assert found["error"] == "bad input"


@pytest.mark.parametrize(("command", "words"), [
    ("plan llama-3.1-405b --fleet h100:8 --train 8192x64", ["fits on", "optimizer"]),
    ("plan llama-3.1-405b --fleet h100:1 --serve 512/128@4", ["smallest fleet", "weights"]),
    (f"gap llama-3.1-405b --fleet h100:1 {SERVE}", ["smallest fleet", "weights"]),
])
def test_nothing_fits(command, words, capsys):
    assert main(command.split()) == 1
    said = capsys.readouterr().err
    for word in words:
        assert word in said
    assert main([*command.split(), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"] == "no answer"


def test_an_architecture_that_is_not_known_is_named(tmp_path, capsys):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper",
                                  "d_model": 512, "encoder_layers": 6, "vocab_size": 51865}))
    assert main(f"gap {config} --fleet h100:8 {SERVE}".split()) == 2
    assert "whisper" in capsys.readouterr().err.casefold()
    config.write_text("{")
    assert main(f"gap {config} --fleet h100:8 {SERVE}".split()) == 2
    assert "config.json" in capsys.readouterr().err


def test_a_throughput_above_the_peak_is_refused_with_the_arithmetic(tmp_path, capsys):
    bench = tmp_path / "bench.json"
    bench.write_text(json.dumps({"completed": 640, "max_concurrency": 64, "total_input_tokens": 327680,
                                 "total_output_tokens": 81920, "output_throughput": 9e6}))
    assert main(f"gap Qwen2.5-7B --fleet h20:1 --rival h100:1 --serve 512/128@64 --measured {bench}".split()) == 2
    said = capsys.readouterr().err
    assert "TFLOP/s" in said
    assert "tokens/s" in said


def test_nothing_is_left_where_nothing_can_be_written(tmp_path, capsys):
    gap = f"gap Qwen3-0.6B --fleet h20:1 --rival h100:1 --serve 64/16@2 --html {tmp_path / 'no' / 'gap.html'}"
    assert main(gap.split()) == 2
    assert "can be written" in capsys.readouterr().err
    plan = "plan llama-3.2-1b --fleet h100:8 --train 2048x64 --top 1"
    (tmp_path / "file").write_text("")
    assert main([*plan.split(), "--emit", "trace", "--out", str(tmp_path / "file")]) == 2
    folder = tmp_path / "plan"
    assert main([*plan.split(), "--emit", "trace,megatron", "--pin", "schedule=zero-bubble", "--out",
                 str(folder)]) in (1, 2)
    assert not folder.exists() or not list(folder.iterdir())
    (tmp_path / "taken").mkdir()
    assert main([*gap.split()[:-1], str(tmp_path / "taken")]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken"]


WORDS = st.one_of(
    st.sampled_from(["Qwen3-0.6B", "llama-3.2-1b", "--fleet", "--rival", "h20:1", "h100:8", "h100:-1", "zhenwu-810e:1",
                     "--serve", "--train", "64/16@2", "2048x8", "0/0@0", "--pin", "tp=1", "tp=", "=", "pp=99", "--emit",
                     "trace", "--top", "1", "-1", "nan", "--format", "fp8", "--json", "--stack", "vllm", "--measured",
                     "/dev/null", "/", "--seed", "chips", "h100", "models", "--gemm", "--chip", "--out", "/nonexist/x",
                     "--profile", "--collectives", "nvlink4", "--html"]),
    st.text(max_size=8))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(verb=st.sampled_from(["gap", "plan", "catalogue", "calibrate", "", "gap Qwen3-0.6B --fleet h20:1 --rival h100:1",
                             "plan Qwen3-0.6B --fleet h20:1"]), words=st.lists(WORDS, max_size=6))
def test_no_command_line_ends_in_a_traceback(verb, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*verb.split(), *words]) in (0, 1, 2)
    capsys.readouterr()
