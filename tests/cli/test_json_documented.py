"""docs/json.md names every top-level key of every answer, and no other."""

import json
import re

import pytest

from serried.cli import main
from tests.laws.source import ROOT

COMMON = {"schema", "timing"}
QUESTIONS = {
    "serried/gap/1": "gap Qwen3-0.6B --fleet h20:1 --rival h100:1 --serve 64/16@2 --json",
    "serried/plan/1": "plan Qwen3-0.6B --fleet h100:8 --train 2048x64 --top 2 --json",
    "serried/plan-serving/1": "plan Qwen3-0.6B --fleet h100:1 --serve 64/16@2 --json",
    "serried/serve-simulate/1": "serve simulate Qwen3-0.6B --fleet h100:1 --poisson 5 --requests 20 --json",
    "serried/plan-traffic/1": "plan Qwen3-0.6B --fleet h100:2 --serve poisson:2/64/16 --requests 20 --workers 1 --json",
    "serried/catalogue/1": "catalogue chips h100 --json",
    "serried/fleet-replay/1": "fleet replay --pods openb_pod_list_default.csv --load 0.02 --policy best-fit --json",
}


def _documented() -> dict[str, set[str]]:
    sections = re.split(r"^## ", (ROOT / "docs" / "json.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {section.splitlines()[0].strip(): {
        key for line in section.splitlines() if line.startswith("| `")
        for key in re.findall(r"`(\w+)`", line.split("|")[1])} for section in sections}


@pytest.mark.parametrize("schema", QUESTIONS)
def test_every_key_is_documented(schema, capsys):
    assert main(QUESTIONS[schema].split()) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == schema
    assert set(answer) - COMMON == _documented()[schema]
    assert set(answer["timing"]) == {"items", "unit", "wall_s"}
    assert answer["timing"]["unit"] in {"layouts", "cases", "requests", "decisions", "endpoints"}


def test_an_error_is_documented_too(capsys):
    assert main(["gap", "nosuchmodel", "--fleet", "h20:1", "--rival", "h100:1", "--serve", "64/16@2", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "serried/error/1"
    assert set(answer) - COMMON <= _documented()["serried/error/1"]
