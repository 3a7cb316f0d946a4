"""The repository as the laws see it: source files, their trees and their functions."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "serried"


@functools.cache
def tracked_files() -> tuple[Path, ...]:
    """Every file that git tracks and that exists; every file below the root when there is no git."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = listed.stdout.splitlines() if listed.returncode == 0 else [
        str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if ".venv" not in path.parts]
    return tuple(ROOT / name for name in names if (ROOT / name).is_file())


def python_files(*folders: str) -> Iterator[Path]:
    """Tracked Python files below the named folders of the root."""
    for path in tracked_files():
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders:
            yield path


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of one file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def functions_of(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file, nested ones too."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def words_of(name: str) -> list[str]:
    """A snake-case or camel-case name as lower-case words."""
    return [word for word in re.split(r"_+|(?<=[a-z])(?=[A-Z])", name) if word]
