"""The doors of the simulation: text, page, JSON, and what is said of bad input."""

import json

from serried.cli import main
from tests.laws.source import ROOT

SMALL = str(ROOT / "examples" / "fleet-small.toml")


def test_text_and_page(tmp_path, capsys):
    html = tmp_path / "fleet.html"
    assert main(["fleet", "simulate", SMALL, "--days", "0.5", "--html", str(html)]) == 0
    shown = capsys.readouterr().out
    for words in ("Where chip-time went", "nobody asked", "Who waited", "training", "events in"):
        assert words in shown
    page = html.read_text(encoding="utf-8")
    assert "Switch by switch" in page
    assert "http" not in page.replace("http-equiv", "")
    assert len(page) < 200_000


def test_the_same_seed_answers_the_same(capsys):
    answers = []
    for seed in ("1", "1", "2"):
        assert main(["fleet", "simulate", SMALL, "--days", "0.5", "--seed", seed, "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
        answers[-1].pop("timing")
    assert answers[0] == answers[1]
    assert answers[0]["digest"] != answers[2]["digest"]


def test_policies_meet_the_same_jobs_and_failures(capsys):
    assert main(["fleet", "compare", SMALL, "--policy", "strict,full", "--days", "0.5", "--json"]) == 0
    strict, full = json.loads(capsys.readouterr().out)["runs"]
    assert (strict["policy"], full["policy"]) == ("strict", "full")
    assert strict["failures"] == full["failures"]
    assert [one["submitted"] for one in strict["classes"]][:2] == [one["submitted"] for one in full["classes"]][:2]
    assert main(["fleet", "compare", SMALL, "--policy", "strict,full", "--days", "0.2"]) == 0
    assert "same failures" in capsys.readouterr().out


def test_bad_input_exits_with_two(tmp_path, capsys):
    path = tmp_path / "bad.toml"
    path.write_text('schema = "serried/fleet-scenario/1"\nname = "x"\npools = []\n', encoding="utf-8")
    for words in (["simulate", str(path)], ["simulate", str(tmp_path / "none.toml")],
                  ["compare", SMALL, "--policy", "nice"], ["compare", SMALL, "--policy", ","]):
        assert main(["fleet", *words]) == 2
    assert "Nearest: pool" in capsys.readouterr().err
    target = tmp_path / "no" / "page.html"
    assert main(["fleet", "simulate", SMALL, "--days", "0.1", "--html", str(target)]) == 2
