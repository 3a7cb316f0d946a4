"""What stands in for a blank: per source, never per row, read from `data/evidence/assumptions.toml`."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serried.catalogue.entry import DATA, read_toml
from serried.errors import BadInput

__all__ = ["ASSUMPTIONS_FILE", "Assumptions", "RecipeVariant", "SourceAssumption", "read_assumptions", "source_of"]

ASSUMPTIONS_FILE = DATA / "evidence" / "assumptions.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeVariant:
    """A recipe that a source names in its notes, and what it changes in the facts of the stack.

    pipeline: only runs with one (True) or without (False); None = both.
    """

    note: str
    facts: Mapping[str, object]
    pipeline: bool | None = None

    def speaks_of(self, notes: str, *, pipeline: bool) -> bool:
        """Whether a row with these notes ran it."""
        return self.note.casefold() in notes.casefold() and self.pipeline in (None, pipeline)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceAssumption:
    """The assumptions of one source.

    match: text that url, source or framework of its rows contain ("" = any). reason: the physical argument.
    fill: column to value where the column is blank; fsdp: likewise for rows that shard everything. sequences,
    recomputes: tokens and recompute by the beginning of the model's name, as the source's recipes have them.
    recompute_words: what the source's words for recompute mean in the planner's. one_layer_chunks: a pipeline without a
    printed number of chunks has one layer in each. most_idle: one that would idle for more than this share of its work
    is taken to be interleaved in chunks of two layers (0 = never). adapter_mlp: low-rank adapters stand on the MLP too.
    prediction_blocks: blocks that predict further tokens, where the recipe trains them whatever the row says.
    facts_of: facts of the stack that the source's recipe for a model changes, by the beginning of the model's name.
    variants: recipes that the source tells apart in words (`note` in the notes of a row, and where `pipeline` stands
    whether the run has one) and the facts of the stack that they change, in order.
    flop_count: how the source counts the FLOPs behind its TFLOP/s ("" = unknown, such rows are skipped).
    """

    name: str
    match: str
    reason: str
    fill: Mapping[str, str] = field(default_factory=dict)
    fsdp: Mapping[str, str] = field(default_factory=dict)
    sequences: Mapping[str, int] = field(default_factory=dict)
    recomputes: Mapping[str, str] = field(default_factory=dict)
    recompute_words: Mapping[str, str] = field(default_factory=dict)
    facts_of: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    variants: tuple[RecipeVariant, ...] = ()
    prediction_blocks: Mapping[str, int] = field(default_factory=dict)
    dtype_of_chip: Mapping[str, str] = field(default_factory=dict)
    fabric_of_chip: Mapping[str, str] = field(default_factory=dict)
    recompute_choices: tuple[str, ...] = ("none", "selective", "mlp", "full")
    flop_count: str = ""
    finer_fp8_note: str = ""
    adapter_rank: int = 16
    adapter_mlp: bool = True
    one_layer_chunks: bool = False
    most_idle: float = 0.0
    expert_tp: int = 0
    one_micro_batch: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """The whole file: sources in the order they are tried, framework habits, names and architectures."""

    sources: tuple[SourceAssumption, ...]
    fully_sharded: tuple[str, ...]
    no_sequence_parallel: tuple[str, ...]
    models: Mapping[str, str]
    architectures: Mapping[str, Mapping[str, int]]


@functools.cache
def read_assumptions(path: Path = ASSUMPTIONS_FILE) -> Assumptions:
    """The assumptions at `path`; BadInput when a source carries a key that is not known."""
    raw = read_toml(path)
    frameworks = raw.get("frameworks", {})
    return Assumptions(
        sources=tuple(_source(table, path) for table in raw["source"]),
        fully_sharded=tuple(frameworks.get("fully_sharded", ())),
        no_sequence_parallel=tuple(frameworks.get("no_sequence_parallel", ())),
        models=raw.get("models", {}), architectures=raw.get("architectures", {}))


def source_of(row: Mapping[str, str], assumptions: Assumptions) -> SourceAssumption:
    """The first source whose `match` stands in the row's url, source or framework."""
    text = " ".join(row.get(column, "") for column in ("url", "source", "framework")).casefold()
    return next(source for source in assumptions.sources if source.match.casefold() in text)


def _source(table: Mapping[str, Any], path: Path) -> SourceAssumption:
    known = set(SourceAssumption.__dataclass_fields__)
    if unknown := set(table) - known:
        raise BadInput(file=str(path), field=f"source {table.get('name')!r}", value=sorted(unknown),
                       expected=f"only {', '.join(sorted(known))}", remedy="Correct or remove the key.")
    values = dict(table)
    for name in ("fill", "fsdp"):
        values[name] = {column: str(value) for column, value in values.get(name, {}).items()}
    values["variants"] = tuple(RecipeVariant(**variant) for variant in values.get("variants", ()))
    if "recompute_choices" in values:
        values["recompute_choices"] = tuple(values["recompute_choices"])
    values["reason"] = re.sub(r"\s+", " ", values["reason"]).strip()
    return SourceAssumption(**values)
