"""docs/json.md names every top-level key of every answer, and no other."""

import json
import re

import pytest

from serried.cli import main
from tests.laws.source import ROOT

COMMON = {"schema", "timing"}
QUESTIONS = {
    "serried/gap/1": "gap Qwen3-0.6B --fleet h20:1 --rival h100:1 --serve 64/16@2 --json",
    "serried/gap-traffic/1": "gap Qwen3-0.6B --fleet h20:1 --rival h100:1 --serve poisson:8:256/32 --first 60 "
                             "--slo ttft=2s --json",
    "serried/plan/1": "plan Qwen3-0.6B --fleet h100:8 --train 2048x64 --top 2 --json",
    "serried/plan-serving/1": "plan Qwen3-0.6B --fleet h100:1 --serve 64/16@2 --json",
    "serried/serve-simulate/1": "serve simulate Qwen3-0.6B --fleet h100:1 --poisson 5 --requests 20 --json",
    "serried/plan-traffic/1": "plan Qwen3-0.6B --fleet h100:2 --serve poisson:8:256/32 --first 60 --slo ttft=2s --json",
    "serried/fleet-simulate/1": "fleet simulate examples/fleet-small.toml --days 0.1 --json",
    "serried/fleet-compare/1": "fleet compare examples/fleet-small.toml --policy fair --days 0.1 --json",
    "serried/catalogue/1": "catalogue chips h100 --json",
    "serried/fabric-build/1": "fabric build rail --chips 128 --set leaf=64 -o {folder}/built.toml --json",
    "serried/fabric-show/1": "fabric show {wires} --json",
    "serried/fabric-export/1": "fabric export {wires} --to slurm-conf --json",
    "serried/fabric-import/1": "fabric import {conf} -o {folder}/read.toml --json",
    "serried/collective-choose/1": "collective choose all-reduce --fabric {wires} --bytes 1MiB --json",
    "serried/collective-simulate/1": "collective simulate all-reduce --fabric {wires} --fail spine:1 --json",
    "serried/collective-import/1": "collective import {log} --fabric {wires} --json",
    "serried/fleet-replay/1": "fleet replay --pods openb_pod_list_default.csv --load 0.02 --policy best-fit --json",
}


def _documented() -> dict[str, set[str]]:
    sections = re.split(r"^## ", (ROOT / "docs" / "json.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {section.splitlines()[0].strip(): {
        key for line in section.splitlines() if line.startswith("| `")
        for key in re.findall(r"`(\w+)`", line.split("|")[1])} for section in sections}


@pytest.mark.parametrize("schema", QUESTIONS)
def test_every_key_is_documented(schema, capsys, tmp_path):
    files = {"wires": tmp_path / "wires.toml", "conf": tmp_path / "topology.conf", "log": tmp_path / "nccl.log"}
    files["wires"].write_text('schema = "serried/topology/1"\nname = "it"\nkind = "rail"\n'
                              "[parameters]\nchips = 128\nleaf = 64\n", encoding="utf-8")
    files["conf"].write_text("SwitchName=s0 Nodes=n[0-3]\n", encoding="utf-8")
    files["log"].write_text("# Collective test starting: all_reduce_perf\n" + "".join(
        f"#  Rank {rank} Group 0 Pid 1 on node{rank // 8} device {rank % 8}\n" for rank in range(16))
        + "1073741824 268435456 float sum -1 6000 178.9 335.5 0 6000 178.9 335.5 0\n", encoding="utf-8")
    assert main(QUESTIONS[schema].format(folder=tmp_path, **files).split()) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == schema
    assert set(answer) - COMMON == _documented()[schema]
    assert set(answer["timing"]) == {"items", "unit", "wall_s"}
    assert answer["timing"]["unit"] in {"layouts", "cases", "requests", "decisions", "endpoints", "events"}


def test_an_error_is_documented_too(capsys):
    assert main(["gap", "nosuchmodel", "--fleet", "h20:1", "--rival", "h100:1", "--serve", "64/16@2", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "serried/error/1"
    assert set(answer) - COMMON <= _documented()["serried/error/1"]
