"""How an engine batches, as data: one file an engine in `data/engines`, or a user's own of the same form."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from serried.catalogue import names_of, read_entry
from serried.catalogue.entry import fold
from serried.catalogue.spec import Figure
from serried.engine import EngineSettings
from serried.errors import BadInput, nearest

__all__ = ["ENGINE_FACTS", "ENGINE_FIGURES", "EngineProfile", "find_engine", "read_engine"]

#: Every fact of an engine file with the type and the least value that it must have (None = any).
ENGINE_FACTS: Mapping[str, tuple[type, int | None]] = {
    "release": (str, None), "stack": (str, None), "source": (str, None), "max_sequences": (int, 1),
    "token_budget": (int, 1), "chunked_prefill": (bool, None), "mixed_steps": (bool, None), "block_tokens": (int, 1),
    "prefix_caching": (bool, None), "largest_captured": (int, 0), "captured_every": (int, 1),
    "captures_prompts": (bool, None), "fraction_of_free": (bool, None),
    "asynchronous": (bool, None), "ahead_steps": (int, 0), "keeps_preempted": (bool, None)}
#: What an engine file may leave out.
_LEFT_OUT: Mapping[str, Any] = {"keeps_preempted": False, "captures_prompts": True, "fraction_of_free": False}
#: Every figure and its base unit. memory_fraction: share of HBM that the engine uses, or, where the fact
#: fraction_of_free says so, share for caches of what weights and working set leave free; runtime_memory: what it
#: holds of that besides weights, caches and its working set; request_time: what a request costs outside the engine
#: before its first token; token_time: to turn the text of a prompt into tokens, each, one prompt after another.
ENGINE_FIGURES: Mapping[str, str] = {"memory_fraction": "1", "runtime_memory": "bytes", "request_time": "s",
                                     "token_time": "s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProfile:
    """An engine: its batching rules, the stack that runs its steps, and its figures with provenance."""

    name: str
    stack: str
    settings: EngineSettings
    memory_fraction: float
    fraction_of_free: bool = False
    runtime_bytes: float
    request_s: float
    token_s: float
    figures: Mapping[str, Figure]
    release: str = ""
    source: str = ""

    def with_settings(self, **changes: Any) -> EngineProfile:
        """The same engine under other flags."""
        return replace(self, settings=replace(self.settings, **changes))


def read_engine(name_or_path: str) -> EngineProfile:
    """The engine called so in the catalogue, or in the file at that path; BadInput names file and field."""
    entry = read_entry("engines", name_or_path, ENGINE_FIGURES)
    for name, value in entry.facts.items():
        if name not in ENGINE_FACTS:
            raise BadInput(file=entry.file, field=f"facts.{name}", value=value, expected="a fact of an engine",
                           remedy=f"Nearest: {', '.join(nearest(name, ENGINE_FACTS) or ENGINE_FACTS)}.")
    facts = {name: _fact(entry.facts.get(name, _LEFT_OUT.get(name)), name, entry.file) for name in ENGINE_FACTS}
    for name in ENGINE_FIGURES:
        if name not in entry.figures:
            raise BadInput(file=entry.file, field=f"figures.{name}", value=None, expected="a figure with provenance",
                           remedy="Take it from the nearest engine of the catalogue, with status = \"assumed\".")
    largest, every = facts["largest_captured"], facts["captured_every"]
    settings = EngineSettings(
        capture_sizes=tuple(sorted({count for count in (1, 2, 4) if count <= largest} | set(range(every, largest + 1,
                                                                                               every)))),
        **{name: facts[name] for name in ("max_sequences", "token_budget", "chunked_prefill", "mixed_steps",
                                          "block_tokens", "prefix_caching", "asynchronous", "ahead_steps",
                                          "captures_prompts", "keeps_preempted")})
    return EngineProfile(
        name=entry.name, stack=str(facts["stack"]), settings=settings, figures=entry.figures,
        memory_fraction=entry.figures["memory_fraction"].value, request_s=entry.figures["request_time"].value,
        runtime_bytes=entry.figures["runtime_memory"].value, token_s=entry.figures["token_time"].value,
        release=str(facts["release"]), fraction_of_free=bool(facts["fraction_of_free"]),
        source=str(facts["source"]))


@functools.cache
def find_engine(printed: str) -> EngineProfile | None:
    """The engine that people print so ("vLLM 0.19.1"): the one whose longest name or alias it begins with, or None."""
    found = [(len(fold(alias)), name) for name in names_of("engines")
             for alias in (name, *read_entry("engines", name, ENGINE_FIGURES).aliases)
             if fold(printed).startswith(fold(alias))]
    return read_engine(max(found)[1]) if found else None


def _fact(value: Any, name: str, file: str) -> Any:
    kind, least = ENGINE_FACTS[name]
    is_kind = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not is_kind or (least is not None and isinstance(value, int) and value < least):
        raise BadInput(file=file, field=f"facts.{name}", value=value,
                       expected=f"{kind.__name__}" + (f" of at least {least}" if least is not None else ""),
                       remedy="See data/engines for the form of an engine file.")
    return value
