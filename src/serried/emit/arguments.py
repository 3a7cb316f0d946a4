"""Documented command lines of other tools: what we write is held against them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serried.catalogue.entry import DATA, read_toml

__all__ = ["check_arguments", "documented_arguments"]


def documented_arguments(tool: str) -> dict[str, dict[str, Any]]:
    """Name to type and choices, from the tool's documented argument list (see the file for its release)."""
    arguments: dict[str, dict[str, Any]] = read_toml(DATA / "emit" / f"{tool}-arguments.toml")["arguments"]
    return arguments


def check_arguments(words: Sequence[str], tool: str) -> None:
    """Assert that every word is a documented argument with a value of its type and choices: our fault if not."""
    documented, position = documented_arguments(tool), 0
    while position < len(words):
        name = words[position]
        assert name in documented, f"{name} is not a documented argument"
        rule, values = documented[name], []
        while position + 1 < len(words) and not words[position + 1].startswith("--"):
            position += 1
            values.append(words[position])
        kinds = {"flag": 0, "words": len(values) or -1}
        assert len(values) == kinds.get(rule["type"], 1), f"{name} takes {rule['type']}, got {values}"
        for value in values:
            assert value in rule.get("choices", [value]), f"{name} {value}: expected one of {rule.get('choices')}"
            assert rule["type"] not in ("int", "float") or float(value) is not None
        position += 1
