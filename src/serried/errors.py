"""What goes wrong, as types.

    SerriedError
    ├── BadInput        the question is wrong: exit code 2
    │   └── MissingFigure   the question needs a figure that nobody has published
    └── NoAnswer        the question is right and has no answer: exit code 1
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["BadInput", "MissingFigure", "NoAnswer", "SerriedError", "nearest"]


class SerriedError(Exception):
    """Everything that serried raises on purpose."""

    exit_code = 2


class BadInput(SerriedError):
    """Input that cannot be used; names where it stands, what it is, what was expected, what mends it."""

    exit_code = 2

    def __init__(self, *, field: str, value: object, expected: str, remedy: str, file: str = "") -> None:
        self.file, self.field, self.value = file, field, value
        self.expected, self.remedy = expected, remedy
        where = f"{file}: {field}" if file else field
        super().__init__(f"{where} = {value!r}: expected {expected}. {remedy}")


class MissingFigure(BadInput):
    """A prediction needs a figure that the chip, fabric or model file does not give."""

    def __init__(self, *, owner: str, field: str, remedy: str, file: str = "") -> None:
        self.owner = owner
        super().__init__(file=file or owner, field=field, value=None,
                         expected="a figure; it is not published and stays unknown", remedy=remedy)


class NoAnswer(SerriedError):
    """A well-posed question without an answer: nothing fits, and `binding` says what binds."""

    exit_code = 1

    def __init__(self, message: str, *, binding: str = "", remedy: str = "") -> None:
        self.binding, self.remedy = binding, remedy
        super().__init__(" ".join(part for part in (message, remedy) if part))


def nearest(name: str, known: Iterable[str], *, count: int = 4) -> list[str]:
    """The known names that look most like `name`, best first."""
    folded = {candidate.casefold(): candidate for candidate in known}
    return [folded[hit] for hit in difflib.get_close_matches(name.casefold(), folded, n=count, cutoff=0.3)]
