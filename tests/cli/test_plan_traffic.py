"""`serried plan --serve` for a load in time."""

import json

import pytest

from serried.cli import main

LOAD = ["--serve", "poisson:8:256/32", "--first", "60"]
PLAN = ["plan", "Qwen3-0.6B", "--fleet", "h100:2", *LOAD, "--slo", "ttft=2s,tpot=50ms"]


def _json(capsys, *words):
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_answer_is_on_the_screen_and_in_a_page(capsys, tmp_path):
    page = tmp_path / "plan.html"
    assert main([*PLAN, "--top", "3", "--html", str(page)]) == 0
    shown = capsys.readouterr().out
    assert "Best deployments" in shown
    assert "Pareto front" in shown
    assert "Best first" in page.read_text(encoding="utf-8")


def test_launches_are_written_from_the_best(capsys, tmp_path):
    answer = _json(capsys, *PLAN, "--emit", "vllm,sglang,kubernetes", "--out", str(tmp_path / "plan"), "--top", "2")
    assert [path.rpartition("/")[2] for path in answer["written"]] == ["vllm.sh", "sglang.sh", "kubernetes.yaml"]
    best = answer["deployments"][0]["pools"][-1]
    assert f"--max-num-seqs {best['max_sequences']}" in (tmp_path / "plan" / "vllm.sh").read_text(encoding="utf-8")


def test_workers_give_the_same_answer(capsys):
    answers = [_json(capsys, *PLAN, "--top", "2", "--workers", count) for count in ("1", "2")]
    for answer in answers:
        answer.pop("timing")
    assert answers[0] == answers[1]


def test_a_steady_load_with_objectives_is_simulated_too(capsys):
    answer = _json(capsys, "plan", "Qwen3-0.6B", "--fleet", "h100:1", "--serve", "64/16@2", "--slo", "tpot=50ms")
    assert answer["schema"] == "serried/plan-traffic/1"
    assert _json(capsys, "plan", "Qwen3-0.6B", "--fleet", "h100:1", "--serve", "64/16@2")["schema"] == \
        "serried/plan-serving/1"


def test_infeasible_says_what_binds(capsys):
    assert main([*PLAN[:-1], "tpot=1us", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["error"] == "no answer"
    assert answer["binding"] == "tpot"


@pytest.mark.parametrize(("words", "field"), [
    (["--serve", "poisson:x:1/2"], "--serve"), (["--serve", "poisson:8"], "--serve"),
    (["--serve", "trace:/no/such"], "trace"), (["--slo", "tttf=1s"], "--slo"), (["--attain", "1.5"], "--attain"),
    (["--emit", "helm"], "--emit"), (["--objective", "speed"], "--objective"), (["--router", "dice"], "--router"),
    (["--drafts", "2"], "--drafts"), (["--pin", "max_sequences=lots"], "--pin max_sequences"),
    (["--pin", "disaggregated=maybe"], "--pin disaggregated"),
    (["--pin", "weight_formats=fp3"], "--pin weight_formats"),
    (["--workers-on", "slurm"], "--workers-on"), (["--serve", "poisson:8:9999999/1"], "request"),
])
def test_bad_input_names_the_field(capsys, tmp_path, words, field):
    assert main([*PLAN, "--out", str(tmp_path / "plan"), *words, "--json"]) == 2
    assert field in json.loads(capsys.readouterr().out)["field"]
    assert not (tmp_path / "plan").exists()
