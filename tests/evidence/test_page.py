"""The committed page is the page of this code and this data."""

from __future__ import annotations

from pathlib import Path

from serried.evidence.fingerprint import fingerprint
from serried.evidence.page import README_MARKERS, fingerprint_of_page, with_table

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_page_is_not_stale() -> None:
    page = (REPOSITORY / "docs" / "evidence.md").read_text(encoding="utf-8")
    assert fingerprint_of_page(page) == fingerprint(), \
        "docs/evidence.md is stale: run `python -m serried.evidence.page` in the repository and commit what it writes"


def test_a_page_without_a_mark_is_stale() -> None:
    assert fingerprint_of_page("# Is it true?") == ""
    assert fingerprint() != ""


def test_the_table_goes_between_its_markers_and_nowhere_else() -> None:
    begin, end = README_MARKERS
    new = f"{begin}\nnew\n{end}"
    assert with_table(f"before\n{begin}\nold\n{end}\nafter", new) == f"before\n{new}\nafter"
    assert with_table("no markers", "table") == "no markers"
