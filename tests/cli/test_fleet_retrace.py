"""`serried fleet retrace` end to end: a ledger that holds, one that was tampered with, and files that are none."""

from __future__ import annotations

import json

import pytest

from serried.cli import main
from serried.control.ledger_sql import SqlLedger
from serried.control.reconciler import Submit
from serried.control.records import record_line
from tests.control.test_reconciler import Bench, nodes, spec_of


@pytest.fixture
def records():
    bench = Bench(nodes(2))
    bench.run(5, *(Submit(spec=spec_of(workers=4, life_s=1), key=str(number)) for number in range(3)))
    return bench.ledger.records


def test_a_ledger_that_holds(records, tmp_path, capsys):
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join(map(record_line, records)), encoding="utf-8")
    assert main(["fleet", "retrace", str(path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["attempts"], answer["records"]) == (3, len(records))
    assert answer["decisions"] >= 3
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger.append(records)
    ledger.close()
    assert main(["fleet", "retrace", "--state", str(tmp_path)]) == 0
    assert "decides every one of them in the same way" in capsys.readouterr().out


def test_a_ledger_that_was_tampered_with(records, tmp_path, capsys):
    path = tmp_path / "records.jsonl"
    lines = [record_line(record) for record in records]
    placed = next(number for number, line in enumerate(lines) if '"PLACE"' in line)
    path.write_text("\n".join(line.replace('"node_R": [0]', '"node_R": [1]') if number == placed else line
                              for number, line in enumerate(lines)), encoding="utf-8")
    assert main(["fleet", "retrace", str(path)]) == 1
    assert capsys.readouterr().err


@pytest.mark.parametrize(("text", "said"), [('{"seq": 0}', "line 1"), ("none", "line 1"), ("", "")])
def test_files_that_are_none(text, said, tmp_path, capsys):
    path = tmp_path / "records.jsonl"
    path.write_text(text, encoding="utf-8")
    code = main(["fleet", "retrace", str(path)])
    assert code == (2 if text else 0)
    assert said in capsys.readouterr().err


def test_nobody_there(tmp_path, capsys):
    assert main(["fleet", "retrace", "--state", str(tmp_path / "nowhere")]) == 1
    assert "serried up" in capsys.readouterr().err
