"""The repository tests itself: what STYLE asks of every file, with today's debts in a list that may only shrink."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest

import serried
from tests.laws.source import PACKAGE, ROOT, functions_of, python_files, tracked_files, tree_of

FUNCTION_LINES = 70
FILE_LINES = 500
DEBTS = tomllib.loads((ROOT / "tests" / "laws" / "debts.toml").read_text(encoding="utf-8"))
FORBIDDEN_MODULES = {"utils", "helpers", "common", "manager", "base", "misc"}
#: A quantity must say its unit; these words alone do not.
FORBIDDEN_NAMES = {"size", "bw", "lat", "eff", "util"}


def _name(path) -> str:
    return str(path.relative_to(ROOT))


def test_functions_fit_on_a_page():
    long = {f"{_name(path)}::{node.name}": node.end_lineno - node.lineno + 1
            for path in python_files("src", "tests", "benchmarks") for node in functions_of(path)
            if node.end_lineno - node.lineno + 1 > FUNCTION_LINES}
    _only_known_debts(long, DEBTS["long_functions"], FUNCTION_LINES)


def test_files_stay_small():
    long = {_name(path): lines for path in python_files("src", "tests", "benchmarks")
            if (lines := len(path.read_text(encoding="utf-8").splitlines())) > FILE_LINES}
    _only_known_debts(long, DEBTS["long_files"], FILE_LINES)


def _only_known_debts(found: dict[str, int], debts: dict[str, int], limit: int) -> None:
    grown = {name: lines for name, lines in found.items() if lines > debts.get(name, limit)}
    assert not grown, f"longer than {limit} lines, or grown beyond the debt on record: {grown}"
    paid = {name for name in debts if name not in found}
    assert not paid, f"paid debts must leave tests/laws/debts.toml: {paid}"


def test_no_room_is_called_after_nothing():
    bad = [_name(path) for path in python_files("src")
           if path.stem in FORBIDDEN_MODULES or set(path.parts) & FORBIDDEN_MODULES]
    assert not bad


def test_quantities_say_their_unit():
    bad = []
    for path in python_files("src"):
        for node in ast.walk(tree_of(path)):
            name = getattr(node, "arg", None) if isinstance(node, ast.arg) else (
                node.id if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else None)
            if name in FORBIDDEN_NAMES:
                bad.append(f"{_name(path)}:{node.lineno}: {name}")
    assert not bad


def test_numbers_inside_carry_no_prefix():
    """No milliseconds, no gigabytes inside: prefixes belong to the door (cli, display) and to file columns.

    The event clock alone counts integer nanoseconds.
    """
    prefixed = re.compile(r"_(ms|us|gb|mb|kb|gib|mib|tb|gbps|tflops|gflops|ghz|mhz|pct)(_[A-Z]+)?$")
    doors = {"cli", "display", "evidence", "calibration"}
    bad = []
    for path in python_files("src"):
        if path.relative_to(PACKAGE).parts[0] in doors:
            continue
        bad += [f"{_name(path)}:{node.lineno}: {node.id}" for node in ast.walk(tree_of(path))
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and prefixed.search(node.id)]
    assert not bad


def test_a_rival_is_a_row_never_a_branch():
    """No chip, vendor or product name in code; docstrings and comments may speak of them."""
    names = re.compile(r"(?<![a-z0-9])(a100|h100|h200|h800|h20|b200|b300|gb200|gb300|mi\d{3}x?|910[bc]\d?|810e|zhenwu|"
                       r"nvidia|ascend|huawei|amd|trainium|gaudi|hopper|ampere|blackwell|cdna\d?)(?![a-z0-9])", re.I)
    bad = []
    for path in python_files("src"):
        docstrings = {id(node.value) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree_of(path)):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else (
                node.id if isinstance(node, ast.Name) else None)
            if text and id(node) not in docstrings and names.search(text):
                bad.append(f"{_name(path)}:{node.lineno}: {text[:60]!r}")
    allowed = set(DEBTS["chip_names_in_help"])
    assert not [line for line in bad if line.split(":")[0] not in allowed], bad


def test_no_room_is_dead():
    """Every module is imported by another one, is loaded by its name from a table, or is run as `python -m`."""
    imported, named = set(), set()
    for path in (*python_files("src"), *python_files("tests"), *python_files("benchmarks")):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module)
                imported.update(f"{node.module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Import):
                imported.update(alias.name for alias in node.names)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                named.add((path.parent, node.value.replace(" ", "_")))   # verbs of two words
    dead = [_name(path) for path in python_files("src") if path.stem not in ("__init__", "__main__")
            and ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) not in imported
            and (path.parent, path.stem) not in named and "__main__" not in path.read_text(encoding="utf-8")]
    assert not dead


def test_public_face():
    """The door is small, and changing it is a decision."""
    pinned = (ROOT / "tests" / "laws" / "public_face.txt").read_text(encoding="utf-8").split()
    assert sorted(serried.__all__) == pinned
    for name in serried.__all__:
        assert getattr(serried, name) is not None
        assert getattr(serried, name).__doc__, f"{name} has no docstring"


@pytest.mark.parametrize("pattern", [r"pickle\.load", r"\beval\(", r"\bexec\(", r"shell=True", r"os\.system"])
def test_input_is_hostile_until_checked(pattern):
    bad = [_name(path) for path in python_files("src") if re.search(pattern, path.read_text(encoding="utf-8"))]
    assert not bad


def test_the_repository_speaks_of_itself_alone():
    """No path of a machine and no address of a package index in any tracked text."""
    places = re.compile(r"(?<![\w.])/(?:work|home|root|tmp|opt)/\w|https?://[^ )\"']*/simple\b|--(?:extra-)?index-url|"
                        r"--find-links")
    bad = []
    for path in tracked_files():
        if path.suffix in {".gz", ".png"} or "measurements" in path.parts or path.name == "test_laws.py":
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if places.search(line):
                bad.append(f"{_name(path)}:{number}: {line.strip()[:80]}")
    assert not bad
