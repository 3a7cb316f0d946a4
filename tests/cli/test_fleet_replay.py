"""`serried fleet replay` end to end: answers, exit codes, and what is said of files that are wrong."""

from __future__ import annotations

import json

import pytest

from serried.cli import main

NODES = "sn,cpu_milli,memory_mib,gpu,model\nn0,64000,262144,8,T4\nn1,64000,262144,8,P100\n"
PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n" + "".join(
    f"p{number},4000,8192,1,{500 if number % 2 else 1000},{'T4|P100' if number % 3 else ''}\n" for number in range(12))


@pytest.fixture
def files(tmp_path):
    """A node list and a pod list of one's own."""
    nodes, pods = tmp_path / "nodes.csv", tmp_path / "pods.csv"
    nodes.write_text(NODES, encoding="utf-8")
    pods.write_text(PODS, encoding="utf-8")
    return nodes, pods


def run(files, *words: str) -> int:
    return main(["fleet", "replay", "--nodes", str(files[0]), "--pods", str(files[1]), *words])


def test_ones_own_files_are_replayed(files, capsys):
    assert run(files, "--policy", "all", "--seed", "1-2,7", "--load", "1.1", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert [(one["policy"], one["seed"]) for one in answer["runs"][:7]] == [
        *((rule, 1) for rule in ("random", "dot-product", "clustering", "packing", "best-fit", "fragmentation")),
        ("random", 2)]
    assert len(answer["runs"]) == 18
    assert answer["decisions"] == answer["invariant_checks"] == sum(one["decisions"] for one in answer["runs"])
    assert answer["timing"] == {"items": answer["decisions"], "unit": "decisions",
                                "wall_s": pytest.approx(sum(one["wall_s"] for one in answer["runs"]))}
    assert 100 < len(answer["allocation_ratio"]) <= 111
    assert all(0 < ratio <= 1 for one in answer["runs"] for ratio in one["allocation_ratio"] if ratio is not None)


def test_the_same_seed_gives_the_same_answer(files, capsys):
    answers = []
    for _ in range(2):
        assert run(files, "--policy", "random", "--seed", "5", "--json") == 0
        answer = json.loads(capsys.readouterr().out)
        answers.append((answer["allocation_ratio"], answer["placed"]))
    assert answers[0] == answers[1]


def test_people_get_a_table_with_what_was_published(capsys):
    words = ["--pods", "openb_pod_list_default.csv", "--policy", "best-fit", "--load", "0.81"]
    assert main(["fleet", "replay", *words]) == 0
    said = capsys.readouterr().out
    assert "at 80 %" in said
    assert "80.02 ± 0.02" in said
    assert "checks of capacity" in said


@pytest.mark.parametrize(("words", "named"), [
    (["--policy", "bestfit"], "best-fit"), (["--policy", ","], "at least one"), (["--load", "0"], "--load"),
    (["--load", "nan"], "--load"), (["--seed", "x"], "--seed"), (["--seed", "9-1"], "--seed"),
    (["--seed", "0-99999999999999999999"], "--seed")])
def test_bad_words_are_named(files, words, named, capsys):
    assert run(files, *words) == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(("old", "new", "where"), [
    ("num_gpu", "gpus", "line 1"), ("p3,4000", "p3,many", "line 5, cpu_milli"),
    ("p3,4000", "p3,-1", "line 5, cpu_milli"),
    ("1,1000,", "1,2000,", "line 2, gpu_milli"), ("1,500,", "2,500,", "line 3, gpu_milli"),
    ("1,1000,", "1,0,", "line 2, gpu_milli"), ("p0,4000,8192,1", "p0,4000,8192,9", "line 2, num_gpu"),
    ("T4|P100", "A1|A2", "gpu_spec"), ("p2,4000,8192,1,1000,T4|P100", "p2,4000", "line 4, memory_mib"),
    (PODS[PODS.index("\n"):], "\n", "file"), (PODS, "", "line 1"), ("p0", '"p0', "pods.csv")])
def test_a_broken_pod_list_is_named_by_line_and_column(files, old, new, where, capsys):
    files[1].write_text(PODS.replace(old, new, 1), encoding="utf-8")
    assert run(files) == 2
    said = capsys.readouterr().err
    assert where in said
    assert "pods.csv" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("old", "new", "where"), [
    ("model", "gpu_model", "line 1"), (",8,T4", ",65,T4", "line 2, gpu"), ("64000", "1e3", "line 2, cpu_milli")])
def test_a_broken_node_list_is_named_too(files, old, new, where, capsys):
    files[0].write_text(NODES.replace(old, new, 1), encoding="utf-8")
    assert run(files) == 2
    assert where in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"\xff\xfe\x00garbage", b"\x1f\x8bnot gzip", b""])
def test_what_is_no_table_is_refused(files, content, capsys):
    files[1].write_bytes(content)
    assert run(files) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_missing_file_lists_the_shipped_ones(capsys):
    assert main(["fleet", "replay", "--pods", "nowhere.csv"]) == 2
    assert "openb_pod_list_default.csv" in capsys.readouterr().err
