"""The harness recognises files by their columns, skips rows and refuses files."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from serried.catalogue.entry import DATA
from serried.errors import BadInput
from serried.evidence.cases import answer
from serried.evidence.harness import READERS, column_sets, read_cases, run_evidence

MEASUREMENTS = DATA / "measurements"
PUBLISHED = MEASUREMENTS / "training" / "published.csv"


def some_rows(path: Path, every: int) -> Path:
    """Every so-manieth shipped run, as a cases file."""
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows[::every])
    return path


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.module)
def test_every_shipped_file_is_known_by_its_columns(reader) -> None:  # type: ignore[no-untyped-def]
    for file in reader.files:
        columns = set(read_cases(MEASUREMENTS / file).columns)
        assert any(set(one) <= columns for one in column_sets(reader)), file
        others = [other for other in READERS if other.module != reader.module and file not in other.files
                  for one in column_sets(other) if set(one) <= columns]
        assert not others, f"{file} is also taken for {[other.module for other in others]}"


def test_a_cases_file_is_predicted_row_by_row(tmp_path: Path) -> None:
    path = some_rows(tmp_path / "mine.csv", every=40)
    told: list[tuple[int, str]] = []
    said = answer(run_evidence(cases_file=path, progress=lambda done, text: told.append((done, text))))
    assert len(said["cases"]) == 17
    assert said["timing"]["items"] == 17
    predicted = [case for case in said["cases"] if case["skipped"] is None]
    assert len(predicted) >= 12
    assert all(case["low"] < case["predicted"] < case["high"] for case in predicted)
    assert told[-1] == (17, "done")


def test_a_users_rows_are_unseen_unless_they_are_the_shipped_ones(tmp_path: Path) -> None:
    path = some_rows(tmp_path / "mine.csv", every=40)
    ours = answer(run_evidence(cases_file=path))["groups"]["split"]
    path.write_text(path.read_text(encoding="utf-8").replace("T0", "U0").replace("T1", "U1"), encoding="utf-8")
    theirs = answer(run_evidence(cases_file=path))["groups"]["split"]
    assert "calibrate (fitted)" in ours
    assert "calibrate (fitted)" not in theirs


def test_malformed_cells_are_skipped_not_raised(tmp_path: Path) -> None:
    path = some_rows(tmp_path / "mine.csv", every=160)
    text = path.read_text(encoding="utf-8").replace(",8,", ",eight,").replace("4096", "-4096")
    path.write_text(text, encoding="utf-8")
    said = answer(run_evidence(cases_file=path))
    assert any("eight" in (case["skipped"] or "") or "-4096" in (case["skipped"] or "") for case in said["cases"])


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe\x00nonsense", b"a,b\n1,2,3,4\n", b"id,what\n1,2\n"])
def test_a_file_that_is_no_cases_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.csv"
    path.write_bytes(content)
    with pytest.raises(BadInput):
        run_evidence(cases_file=path)


def test_a_missing_file_and_an_unknown_area_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere\.csv"):
        run_evidence(cases_file=tmp_path / "nowhere.csv")
    with pytest.raises(BadInput, match="poetry"):
        run_evidence(["poetry"])
