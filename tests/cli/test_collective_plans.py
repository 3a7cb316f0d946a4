"""synthesise, verify and run from the command line."""

import json
import os
import re
from pathlib import Path

import pytest

from serried.cli import main
from serried.weave import faults, read_wires, schedule_of_json, synthesise
from tests.laws.source import ROOT

TOOL = Path(os.environ.get("SERRIED_TORCH_PYTHON", ROOT / ".venv-tools" / "bin" / "python"))
DOCUMENT = (ROOT / "docs" / "schedule.md").read_text(encoding="utf-8")


@pytest.fixture
def fabric(tmp_path):
    """The graph of the document, with its missing links and its bridge."""
    text = re.search(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL).group(1)
    for ends, rate in (("a1 a", 100), ("b0 b", 100), ("b1 b", 100), ("a b", 50)):
        one, other = ends.split()
        text += f'[[link]]\nfrom = "{one}"\nto = "{other}"\nbandwidth = "{rate} Mbit/s"\n'
    path = tmp_path / "islands.toml"
    path.write_text(text, encoding="utf-8")
    return path


def _documented(schema):
    section = (ROOT / "docs" / "json.md").read_text(encoding="utf-8").split(f"## {schema}\n")[1].split("\n## ")[0]
    return {key for line in section.splitlines() if line.startswith("| `")
            for key in re.findall(r"`(\w+)`", line.split("|")[1])}


def test_from_wires_to_a_proven_plan(fabric, tmp_path, capsys):
    plan = tmp_path / "plan"
    assert main(["collective", "synthesise", "all-reduce", "--fabric", str(fabric), "--bytes", "1MiB", "--chunks", "4",
                 "--emit", "schedule,msccl-xml,mscclpp-json,chakra,goal", "-o", str(plan), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert set(made) - {"schema", "timing"} == _documented("serried/collective-synthesise/1")
    assert made["bound_s"] <= made["packed_s"] * (1 + 1e-6) <= made["bound_s"] * 1.01
    endings = [".json", ".xml", ".mscclpp.json", ".0.et", ".1.et", ".2.et", ".3.et", ".goal"]
    assert made["written"] == [f"{plan}{ending}" for ending in endings]
    for path in made["written"]:
        assert main(["collective", "verify", path, "--ranks", "4", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert set(told) - {"schema", "timing"} == _documented("serried/collective-verify/1")
        assert told["proven"] == ("traffic" if path.endswith(".goal") else "data")
        assert main(["collective", "verify", path, "--ranks", "8"]) == 2
        assert "a plan for 8 ranks" in capsys.readouterr().err


def test_chunks_are_as_many_as_the_forms_can_hold(tmp_path, capsys):
    plan = tmp_path / "plan"
    words = ["collective", "synthesise", "all-reduce", "--fabric", str(ROOT / "examples" / "two-islands.toml"),
             "--emit", "schedule,msccl-xml,mscclpp-json", "-o", str(plan)]
    assert main([*words, "--json"]) == 0
    said = capsys.readouterr()
    assert "mscclpp-json cannot hold so many steps" in said.err
    assert json.loads(said.out)["chunk_count"] < synthesise(
        "all_reduce", read_wires(ROOT / "examples" / "two-islands.toml"), 2.0**26).schedule.chunk_count
    for ending in (".json", ".xml", ".mscclpp.json"):
        assert main(["collective", "verify", f"{plan}{ending}"]) == 0
    assert main([*words, "--chunks", "64"]) == 2       # what is asked for is not changed
    assert "--chunks" in capsys.readouterr().err


def test_a_table_for_the_tuner_is_read_back(tmp_path, capsys):
    table = tmp_path / "tuner.csv"
    lines = "allreduce,0,65536,tree,ll,-1,2,16\nallreduce,65537,9999999,ring,simple,-1,2,16\n"
    table.write_text(lines, encoding="utf-8")
    assert main(["collective", "verify", str(table), "--ranks", "16"]) == 0
    assert "2 lines for allreduce" in capsys.readouterr().out
    assert main(["collective", "verify", str(table), "--ranks", "8"]) == 2
    table.write_text(lines.replace("65537", "4096"), encoding="utf-8")
    assert main(["collective", "verify", str(table)]) == 2
    assert "row 2, min_bytes" in capsys.readouterr().err


def test_a_plan_that_drops_data_is_refused(fabric, tmp_path, capsys):
    assert main(["collective", "synthesise", "all-gather", "--fabric", str(fabric), "--chunks", "1", "-o",
                 str(tmp_path / "plan")]) == 0
    told = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    told["ranks"][0]["lanes"][0].pop()
    (tmp_path / "plan.json").write_text(json.dumps(told), encoding="utf-8")
    capsys.readouterr()
    assert main(["collective", "verify", str(tmp_path / "plan.json")]) == 2
    assert re.search(r"rank \d+, lane \d+, step \d+", capsys.readouterr().err)


def test_the_example_of_the_document_is_right():
    assert faults(schedule_of_json(json.loads(re.search(r"```json\n(.*?)```", DOCUMENT, re.DOTALL).group(1)))) == []


def test_a_plan_runs(fabric, tmp_path, capsys):
    if not TOOL.exists():
        assert "SERRIED_TOOLS" not in os.environ, "`make tools` did not install PyTorch"
        pytest.skip("PyTorch is not installed here; `make tools` installs it")
    main(["collective", "synthesise", "reduce-scatter", "--fabric", str(fabric), "--chunks", "2", "-o",
          str(tmp_path / "plan")])
    capsys.readouterr()
    assert main(["collective", "run", str(tmp_path / "plan.json"), "--nproc", "4", "--bytes", "64KiB", "--repeats", "2",
                 "--python", str(TOOL), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) - {"schema", "timing"} == _documented("serried/collective-run/1")
    assert told["wrong"] == 0
    assert len(told["times_s"]) == 2


@pytest.mark.parametrize("words", [
    ["synthesise", "all-shuffle", "--fabric", "x.toml"], ["synthesise", "all-reduce", "--fabric", "missing.toml"],
    ["verify", "missing.json"], ["verify", "missing.goal"], ["verify", "missing.0.et"], ["verify", "missing.csv"],
    ["run", "missing.xml", "--nproc", "2"]])
def test_bad_words_are_bad_input(words):
    assert main(["collective", *words]) == 2
