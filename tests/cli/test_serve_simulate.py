"""`serried serve simulate` end to end: answers, files, what is refused, and Ctrl-C."""

from __future__ import annotations

import csv
import json

import polars as pl
import pytest

from serried.cli import main, serve_simulate
from serried.engine import simulate

ONE = ["serve", "simulate", "Qwen3-0.6B", "--fleet", "h100:2", "--layout", "tp=1,replicas=2"]
LOAD = ["--poisson", "20", "--input", "256", "--output", "32", "--requests", "200", "--seed", "7"]


def answer_of(capsys, *words):
    assert main([*ONE, *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_answer_has_what_was_promised(capsys):
    found = answer_of(capsys, *LOAD, "--slo", "ttft=1s,tpot=40ms")
    for name in ("ttft_s", "tpot_s", "e2e_s", "queue_s", "inter_token_s"):
        assert 0 <= found[name]["p50"] <= found[name]["p90"] <= found[name]["p99"]
    assert found["e2e_s"]["mean"] == pytest.approx(found["ttft_s"]["mean"] + 31 * found["tpot_s"]["mean"])
    assert found["inter_token_s"]["mean"] == pytest.approx(found["tpot_s"]["mean"], rel=1e-3)
    assert found["goodput_tokens_per_s"] <= found["output_tokens_per_s"]
    assert found["output_tokens_per_s_per_chip"] * 2 == pytest.approx(found["output_tokens_per_s"])
    price = found["usd_per_million_tokens"]
    assert (price["input"] * 256 + price["output"] * 32) * 200 / 1e6 == pytest.approx(found["total_usd"])
    assert found["timing"]["items"] == 200


@pytest.mark.parametrize("load", [
    LOAD, ["--gamma", "20:3", "--requests", "100"], ["--burst", "20:5:1:4", "--requests", "100", "--input", "64-128"],
    ["--sessions", "5:4:0.5", "--requests", "80", "--input", "100", "--output", "9"],
    ["--concurrency", "8", "--requests", "64", "--range", "0.5"], ["--diurnal", "20:0.5", "--requests", "60"],
    ["--constant", "20", "--requests", "50", "--lengths-of", "azure-2023-code"],
    ["--poisson", "20", "--requests", "50", "--input", "200:0.8", "--output", "20:0.5"],
    ["--trace", "azure-2023-code", "--first", "50", "--repeat", "120", "--scale-rate", "2"],
    ["--trace", "mooncake-synthetic", "--window", "0:40", "--drop-longer", "--router", "prefix"]])
def test_every_traffic_is_its_seeds(capsys, load):
    first, again = answer_of(capsys, *load), answer_of(capsys, *load)
    assert first.pop("timing")["items"] == again.pop("timing")["items"] > 0
    assert first == again
    assert first["served"] + first["refused"] == first["requests"]


def test_clients_have_classes_and_objectives_of_their_own(capsys, tmp_path):
    path = tmp_path / "clients.toml"
    path.write_text('[[client]]\nname = "chat"\nrate_per_s = 4\ncount = 10\nskew = 1\ninput_median = 100\n'
                    'output_median = 20\n[[client]]\nname = "batch"\nrate_per_s = 1\ninput_median = 900\n'
                    "output_median = 50\n", encoding="utf-8")
    found = answer_of(capsys, "--clients", str(path), "--duration", "30", "--slo", "chat:ttft=1s;batch:e2e=60s")
    assert [group["name"] for group in found["classes"]] == ["all", "chat", "batch"]
    assert found["classes"][0]["requests"] == sum(group["requests"] for group in found["classes"][1:])
    assert main([*ONE, "--clients", str(path), "--duration", "30", "--slo", "chta:ttft=1s"]) == 2
    assert "chat" in capsys.readouterr().err


def test_pools_apart(capsys):
    found = answer_of(capsys, *LOAD, "--layout", "prefill:tp=1;decode:tp=1")
    assert len(found["pools"]) == 2
    assert found["served"] == 200


def test_files_say_what_was_simulated(capsys, tmp_path):
    log, table = tmp_path / "requests.csv", tmp_path / "requests.parquet"
    timeline, page = tmp_path / "timeline.json", tmp_path / "page.html"
    found = answer_of(capsys, *LOAD, "--log", str(log), "--timeline", str(timeline), "--html", str(page))
    answer_of(capsys, *LOAD, "--log", str(table))
    with log.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert pl.read_parquet(table).rows() == pl.read_csv(log).rows()
    ttft_s = [float(row["first_token_s"]) - float(row["arrival_s"]) for row in rows]
    assert sum(ttft_s) / 200 == pytest.approx(found["ttft_s"]["mean"], rel=1e-6)
    events = json.loads(timeline.read_text(encoding="utf-8"))["traceEvents"]
    busy_us = sum(event["dur"] for event in events if event["ph"] == "X")
    assert busy_us * 1e-6 / 2 / found["duration_s"] == pytest.approx(found["busy_fraction"], rel=1e-6)
    html = page.read_text(encoding="utf-8")
    assert html.count("<svg") == 6
    assert "http" not in html.replace("http://www.w3.org", "")
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(("words", "told"), [
    ([], "--poisson"), (["--poisson", "1", "--concurrency", "2"], "poisson, concurrency"),
    (["--poisson", "-1"], "rate"), (["--poisson", "nan"], "rate"), (["--gamma", "8"], "RATE:VARIATION"),
    (["--poisson", "1", "--input", "many"], "--input"), (["--poisson", "1", "--input", "0"], "--input"),
    (["--poisson", "1", "--output", "9-3"], "--output"), (["--poisson", "1", "--requests", "0"], "--requests"),
    (["--poisson", "1", "--input", "50000"], "context"), (["--trace", "nosuch.csv"], "azure-2023-code"),
    (["--trace", "mooncake-synthetic"], "line"), (["--poisson", "1", "--window", "9"], "BEGIN_S:END_S"),
    (["--poisson", "1", "--window", "1e6:2e6"], "window"), (["--poisson", "1", "--slo", "speed=1s"], "ttft"),
    (["--poisson", "1", "--slo", "chat:ttft=1s"], "class"), (["--poisson", "1", "--engine", "vlm"], "vllm"),
    (["--poisson", "1", "--layout", "tp=3"], "layout"), (["--poisson", "1", "--layout", "tp=4"], "chips"),
    (["--poisson", "1", "--layout", "prefill:tp=1"], "decode"), (["--poisson", "1", "--warm-up", "-1"], "warm-up"),
    (["--poisson", "1", "--log", "requests.txt"], ".parquet"), (["--poisson", "1", "--log", "no/such/a.csv"], "folder"),
    (["--concurrency", "0"], "concurrency"), (["--poisson", "1", "--scale-length", "0"], "length")])
def test_what_cannot_be_asked_is_told(capsys, tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    assert main([*ONE, *words]) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_bad_trace_leaves_what_was_written_before(capsys, tmp_path):
    trace, log = tmp_path / "trace.csv", tmp_path / "log.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n0,5,5\n-1,5,5\n", encoding="utf-8")
    log.write_text("kept", encoding="utf-8")
    assert main([*ONE, "--trace", str(trace), "--log", str(log)]) == 2
    assert "line 3" in (told := capsys.readouterr().err)
    assert "arrival_s" in told
    assert log.read_text(encoding="utf-8") == "kept"


def test_what_does_not_fit_says_by_how_much_and_what_would(capsys):
    assert main(["serve", "simulate", "Qwen/Qwen3-235B-A22B", "--fleet", "h100:8", "--layout", "tp=4", *LOAD]) == 1
    told = capsys.readouterr().err
    assert "GB" in told
    assert "tp=8" in told


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_ctrl_c_keeps_what_has_ended(capsys, tmp_path, monkeypatch, form):
    def impatient(requests, cluster, *, seed, progress, keep_spans):
        def interrupt(done, total):
            raise KeyboardInterrupt

        return simulate(requests, cluster, seed=seed, progress=interrupt, keep_spans=keep_spans)

    monkeypatch.setattr(serve_simulate, "simulate", impatient)
    log = tmp_path / f"log.{form}"
    assert main([*ONE, "--poisson", "20", "--requests", "2000", "--log", str(log), "--json"]) == 130
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["interrupted"]
    assert 0 < found["served"] < 2000
    assert f"{found['served']:,} of 2,000" in err
    rows = pl.read_parquet(log) if form == "parquet" else pl.read_csv(log)
    assert len(rows) == found["served"] == found["timing"]["items"]
    assert rows["last_token_s"].null_count() == 0
