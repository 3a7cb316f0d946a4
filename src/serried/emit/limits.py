"""What a form cannot hold, though the schedule is right."""

from __future__ import annotations

from serried.errors import BadInput

__all__ = ["TooManySteps"]


class TooManySteps(BadInput):
    """A schedule that its form could hold if it had fewer chunks."""

    def __init__(self, form: str, expected: str) -> None:
        super().__init__(field="--emit", value=form, expected=expected, remedy="Use fewer chunks: --chunks.")
