"""Command lines held against the documented arguments of their tools (data/emit/*-arguments.toml)."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from serried.catalogue.entry import DATA, read_toml

__all__ = ["check_words", "documented"]


@functools.cache
def documented(tool: str) -> Mapping[str, Mapping[str, Any]]:
    """Argument to type and choices; the file says which release they were read from."""
    arguments: Mapping[str, Mapping[str, Any]] = read_toml(DATA / "emit" / f"{tool}-arguments.toml")["arguments"]
    return arguments


def check_words(words: Sequence[str], tool: str) -> None:
    """Assert that every word is a documented argument with values of its type and choices: our fault if not."""
    known, position = documented(tool), 0
    while position < len(words):
        name = words[position]
        assert name in known, f"{name} is not an argument of {tool}"
        rule, values = known[name], []
        while position + 1 < len(words) and not words[position + 1].startswith("--"):
            position += 1
            values.append(words[position])
        many = rule["type"] in ("ints", "words")
        assert len(values) == (0 if rule["type"] == "flag" else 1) or (many and values), f"{name} got {values}"
        for value in values:
            assert value in rule.get("choices", [value]), f"{name} {value}: expected one of {rule.get('choices')}"
            assert rule["type"] not in ("int", "ints") or re.fullmatch(r"\d+", value) or "$" in value, f"{name} {value}"
            assert rule["type"] != "float" or float(value) >= 0
            assert rule["type"] != "json" or isinstance(json.loads(value), dict)
        position += 1
