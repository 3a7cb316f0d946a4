"""Every verb end to end: exit codes, answers for people and for programs, and nothing half-written."""

import json
import subprocess
import sys

import polars as pl
import pytest

from serried.catalogue.measurements import file_of
from serried.cli import main
from serried.cli.app import VERBS
from serried.compiler import profile_for, read_profile
from serried.evidence.harness import MEASUREMENTS
from serried.fabric import read_collectives
from serried.silicon import read_chip
from serried.software import read_stack

GAP = "gap Qwen3-0.6B --fleet h20:1 --rival h100:1 --serve 64/16@2"
PLAN = "plan llama-3.2-1b --fleet h100:8 --train 2048x64 --top 2"
DIAGNOSE = "gap Qwen2.5-7B --fleet zhenwu-810e:1 --rival h20:1 --serve 512/128@64 --measured"


@pytest.fixture
def gemm_csv(tmp_path):
    frame = pl.read_csv(file_of("gemm"), infer_schema=False)
    own = frame.filter((pl.col("chip") == "h100_sxm") & (pl.col("dtype") == "bfloat16")
                       & pl.col("vllm_us").is_not_null())
    path = tmp_path / "gemm.csv"
    own.sample(80, seed=1).select("m", "n", "k", "dtype", pl.col("vllm_us").alias("time_us")).write_csv(path)
    return path


@pytest.fixture
def nccl_log(tmp_path):
    lines = ["# Collective test starting: all_reduce_perf"]
    lines += [f"#  Rank  {rank} Group  0 Pid  1 on node1 device  {rank} [0x00] X" for rank in range(8)]
    for power in range(10, 31, 2):
        payload = 2**power
        time_us = 12 + payload * 1.75 / 370e3
        rate = payload / time_us / 1e3
        half = f"{time_us:.2f} {rate:.2f} {rate * 1.75:.2f} 0"
        lines.append(f"{payload} {payload // 4} float sum -1 {half} {half}")
    path = tmp_path / "nccl.txt"
    path.write_text("\n".join(lines))
    return path


def answer(command, capsys):
    assert main([*command.split(), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"].startswith("serried/")
    assert found["timing"]["items"] > 0
    assert found["timing"]["unit"] in {"layouts", "cases", "requests", "decisions", "endpoints"}
    assert found["timing"]["wall_s"] >= 0
    return found


@pytest.mark.parametrize("command", [GAP, PLAN, "plan Qwen3-0.6B --fleet h100:1 --serve 64/16@2",
                                     "catalogue chips", "catalogue fabrics hgx-h100", "catalogue fleets",
                                     "catalogue models qwen3-32b", "catalogue stacks", "catalogue stacks vllm",
                                     "catalogue profiles h100", "catalogue collectives", "catalogue prices defaults"])
def test_answers_for_programs_and_for_people(command, capsys):
    answer(command, capsys)
    assert main(command.split()) == 0
    shown = capsys.readouterr().out
    assert shown.strip()
    assert "{'" not in shown, "a raw dictionary"
    assert max(map(len, shown.splitlines())) <= 118


def test_a_year_is_not_a_quantity(capsys):
    main(["catalogue", "chips", "h100"])
    assert "year: 2022" in capsys.readouterr().out


def test_a_gemm_profile_is_fitted_written_and_used(gemm_csv, tmp_path, capsys):
    out = tmp_path / "own.toml"
    found = answer(f"calibrate my-h100 --chip h100 --gemm {gemm_csv} --out {out}", capsys)
    fit = found["fits"][0]
    assert fit["rows"] == 80
    assert fit["after"]["median_abs_error"] < fit["before"]["median_abs_error"]
    assert fit["held_out"]["n"] > 0
    profile = read_profile(str(out))
    assert profile.chips == ("h100",)
    assert profile_for(read_chip("h100"), str(out)).evidence_class == "kernel-calibrated chip"
    moved = {one["name"]: one["after"] for one in fit["parameters"]}
    assert profile.parameters("gemm", "bf16").hbm_ratio == pytest.approx(moved["hbm_ratio"], rel=1e-3)
    base = answer("gap Qwen3-0.6B --fleet h100:1 --rival h20:1 --serve 64/16@2", capsys)
    own = answer(f"gap Qwen3-0.6B --fleet h100:1 --rival h20:1 --serve 64/16@2 --profile {out}", capsys)
    assert own["fleet"]["time_s"]["value"] != base["fleet"]["time_s"]["value"]
    assert own["rival"]["time_s"]["value"] == base["rival"]["time_s"]["value"]


def test_few_rows_stay_near_the_family_and_too_few_are_refused(gemm_csv, tmp_path, capsys):
    lines = gemm_csv.read_text().splitlines()
    few, fewer = tmp_path / "few.csv", tmp_path / "fewer.csv"
    few.write_text("\n".join(lines[:11]))
    fewer.write_text("\n".join(lines[:5]))
    many = answer(f"calibrate a --chip h100 --gemm {gemm_csv} --out {tmp_path / 'a.toml'}", capsys)
    little = answer(f"calibrate b --chip h100 --gemm {few} --out {tmp_path / 'b.toml'}", capsys)
    assert little["fits"][0]["held_out"] is None
    assert many["fits"][0]["rows"] > little["fits"][0]["rows"]
    out = tmp_path / "c.toml"
    assert main(f"calibrate c --chip h100 --gemm {fewer} --out {out}".split()) == 2
    assert "at least 8" in capsys.readouterr().err
    assert not out.exists()


def test_a_kernel_above_the_peak_is_refused_with_the_arithmetic(gemm_csv, tmp_path, capsys):
    assert main(f"calibrate x --chip h20 --gemm {gemm_csv} --out {tmp_path / 'x.toml'}".split()) == 2
    said = capsys.readouterr().err
    assert "148 TFLOP/s" in said
    assert "GFLOP" in said


def test_collectives_are_fitted_from_a_log(nccl_log, tmp_path, capsys):
    out = tmp_path / "own.toml"
    found = answer(f"calibrate mine --chip h100 --collectives {nccl_log} --out {out}", capsys)
    fit = found["fits"][0]
    assert fit["after"]["median_abs_error"] < min(0.1, fit["before"]["median_abs_error"])
    assert read_collectives(str(out)).evidence_class == "kernel-calibrated chip"
    assert main([*PLAN.split(), "--collectives", str(out)]) == 0


def test_a_stack_is_fitted_from_runs(tmp_path, capsys):
    runs = pl.read_csv(MEASUREMENTS / "training" / "published.csv", infer_schema=False)
    path, out = tmp_path / "runs.csv", tmp_path / "own.toml"
    runs.filter(pl.col("framework") == "Megatron-LM 0.14").write_csv(path)
    found = answer(f"calibrate mine --stack {path} --out {out}", capsys)
    assert found["fits"][0]["after"]["median_abs_error"] < 0.1
    assert {one["name"] for one in found["fits"][0]["parameters"]} >= {"gemm_rate_ratio", "data_overlap"}
    stack = read_stack(str(out), "blackwell")
    assert stack.fitted_rows == found["fits"][0]["rows"]


def test_fits_read_well_and_stand_beside_the_asker(gemm_csv, nccl_log, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(f"calibrate mine --chip h100 --gemm {gemm_csv} --collectives {nccl_log}".split()) == 0
    shown = capsys.readouterr().out
    for word in ("before the fit", "after, on the rows fitted", "held out", "captured launch floor", "--profile"):
        assert word in shown
    assert max(map(len, shown.splitlines())) <= 118
    assert {path.name for path in tmp_path.glob("*.toml")} == {"mine.profile.toml", "mine.collectives.toml"}
    assert main(f"calibrate mine --chip h100 --gemm {gemm_csv} --collectives {nccl_log} --out x.toml".split()) == 2


def test_points_that_nothing_explains_are_called_so(capsys):
    table = MEASUREMENTS / "serving" / "zhenwu_810e_measured.csv"
    assert main([*DIAGNOSE.split(), str(table)]) == 0
    shown = capsys.readouterr().out
    best = float(shown.split("off by ")[1].split("%")[0])
    assert ("No combination explains" in shown) == (best > 25)
    assert max(map(len, shown.splitlines())) <= 118 + len(str(table))


def test_points_of_a_table_are_diagnosed_and_the_stack_written(tmp_path, capsys):
    out = tmp_path / "found.toml"
    found = answer(f"{DIAGNOSE} {MEASUREMENTS / 'serving' / 'zhenwu_810e_measured.csv'} --recalibrate {out}", capsys)
    assert found["schema"] == "serried/diagnosis/1"
    assert len(found["points"]) == 8
    assert found["explanations"][0]["probability"] >= found["explanations"][-1]["probability"]
    for marginal in found["marginals"].values():
        assert sum(marginal.values()) == pytest.approx(1.0)
    assert read_stack(str(out), read_chip("zhenwu-810e").family).fitted_rows == 8
    assert main(f"gap Qwen2.5-7B --fleet zhenwu-810e:1 --rival h20:1 --serve 512/128@64 --stack {out}".split()) == 0


def test_a_vllm_benchmark_and_a_megatron_log_are_diagnosed(tmp_path, capsys):
    bench, log = tmp_path / "bench.json", tmp_path / "train.log"
    bench.write_text(json.dumps({"completed": 640, "max_concurrency": 64, "total_input_tokens": 327680,
                                 "total_output_tokens": 81920, "output_throughput": 1100.0, "mean_ttft_ms": 410.0,
                                 "mean_tpot_ms": 50.0}))
    assert len(answer(f"{DIAGNOSE} {bench}", capsys)["points"]) == 3
    log.write_text("  tensor_model_parallel_size ...... 4\n  pipeline_model_parallel_size .... 4\n"
                   + "\n".join(f"elapsed time per iteration (ms): {time_ms} | global batch size: 128"
                               for time_ms in (45000.1, 16010.0, 15990.5)))
    found = answer(f"gap llama-3.1-70b --fleet h100:64 --rival h200:64 --train 8192x128 --measured {log}", capsys)
    assert found["points"][0]["measured"] == pytest.approx(16.0, rel=1e-3)
    assert main(f"gap llama-3.1-70b --fleet h100:64 --rival h200:64 --train 8192x128 --measured {log}".split()) == 0
    assert "most probable" in capsys.readouterr().out


def test_a_page_and_emitted_files_are_whole(tmp_path, capsys):
    page = tmp_path / "gap.html"
    assert main([*GAP.split(), "--html", str(page)]) == 0
    assert page.read_text().endswith("</html>\n")
    plan = "plan Qwen3-0.6B --fleet h100:8 --train 2048x64 --emit megatron,torchtitan,trace --out"
    assert main([*plan.split(), str(tmp_path / "plan")]) == 0
    assert sorted(path.name for path in (tmp_path / "plan").iterdir()) == ["megatron.sh", "torchtitan.sh", "trace.json"]
    json.loads((tmp_path / "plan" / "trace.json").read_text())


def test_evidence_of_a_file(gemm_csv, tmp_path, capsys):
    cases = tmp_path / "cases.csv"
    pl.read_csv(file_of("gemm"), infer_schema=False).head(30).write_csv(cases)
    found = answer(f"evidence --cases {cases}", capsys)
    assert len(found["cases"]) >= 30


def test_every_verb_has_help(capsys):
    for verb in VERBS:
        assert main([*verb.split(), "--help"]) == 0
        assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize(("work", "heavy"), [
    (f"from serried.cli import main; assert main({GAP.split()!r}) == 0", ("polars", "scipy")),
    # the command-line library reads its words with pydantic; the rooms that answer do without
    ("import serried.insight, serried.display.gap, serried.planner", ("polars", "scipy", "pydantic")),
])
def test_starting_a_gap_pays_for_no_tables_and_no_solver(work, heavy):
    check = f"import sys; {work}; print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.strip().splitlines()[-1] == "[]"
