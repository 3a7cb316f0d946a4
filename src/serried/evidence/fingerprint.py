"""A cheap mark of everything the evidence page follows from, so that a test can say when the page is stale."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

from serried.catalogue.entry import DATA

__all__ = ["fingerprint"]

_PACKAGE = DATA.parent
#: The rooms whose code decides a prediction, an interval or a figure.
_ROOMS = ("catalogue", "units.py", "silicon", "workload", "software", "compiler", "fabric", "planner", "serving",
          "fleet", "evidence")
#: Data that no prediction reads.
_UNREAD = {"emit", "prices"}


def fingerprint() -> str:
    """Sixteen hex digits over the shipped data and the model's code; comments and docstrings do not count."""
    digest = hashlib.sha256()
    for path in sorted(DATA.rglob("*")):
        if path.is_file() and path.relative_to(DATA).parts[0] not in _UNREAD:
            digest.update(path.relative_to(DATA).as_posix().encode() + b"\0" + path.read_bytes())
    for room in _ROOMS:
        place = _PACKAGE / room
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + _code(path).encode())
    return digest.hexdigest()[:16]


def _code(path: Path) -> str:
    """The code without its words: the syntax tree with docstrings taken out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_word(body[0]):
            body[0] = ast.Pass()
    return ast.dump(tree)


def _is_word(statement: ast.AST) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
