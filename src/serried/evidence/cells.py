"""One row of a cases file as text cells, read with complaints that name column and value."""

from __future__ import annotations

import math
from collections.abc import Mapping

__all__ = ["Cells", "Unusable"]


class Unusable(Exception):
    """A row that cannot be predicted; the text is the reason that the page prints."""


class Cells:
    """A row by column; a blank is None, a cell that is no number is Unusable with column and value."""

    def __init__(self, row: Mapping[str, object], fill: Mapping[str, str] | None = None) -> None:
        self._row = {name: "" if value is None else str(value).strip() for name, value in row.items()}
        self._fill = dict(fill or {})

    def __getitem__(self, column: str) -> str:
        """The cell as printed, else what the source's assumption puts there, else the empty text."""
        return self._row.get(column, "") or self._fill.get(column, "")

    def printed(self, column: str) -> str:
        """The cell as printed, without any assumption."""
        return self._row.get(column, "")

    def filled(self, fill: Mapping[str, str]) -> Cells:
        """The same row with other values where it is blank; values given before give way to these."""
        return Cells(self._row, self._fill | dict(fill))

    def texts(self) -> Mapping[str, str]:
        """Every printed cell by column."""
        return self._row

    def number(self, column: str) -> float | None:
        """A finite number above zero, None when blank."""
        text = self[column]
        if not text:
            return None
        try:
            value = float(text.replace(",", ""))
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value <= 0:
            raise Unusable(f"{column} = {text!r} is not a number above 0")
        return value

    def whole(self, column: str, *, most: float = 1e9, zero: bool = False) -> int | None:
        """A whole number from 1 (0 where `zero`) to `most`, None when blank."""
        text = self[column]
        if not text:
            return None
        try:
            value = float(text.replace(",", ""))
        except ValueError:
            value = math.nan
        if not (0 if zero else 1) <= value <= most or value != math.floor(value):
            raise Unusable(f"{column} = {text!r} is not a whole number from {0 if zero else 1} to {most:.0e}")
        return int(value)

    def need(self, column: str, *, most: float = 1e9) -> int:
        """A whole number that a prediction cannot do without."""
        value = self.whole(column, most=most)
        if value is None:
            raise Unusable(f"{column} is blank")
        return value
