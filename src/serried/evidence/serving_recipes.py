"""What a benchmark's own scripts set and its table leaves out, read from data and never fitted."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from serried.catalogue.entry import DATA, read_toml
from serried.errors import BadInput
from serried.workload.spec import Serving

__all__ = ["NO_RECIPE", "Recipe", "checkpoint_format", "multiplies_degrees", "read_recipes", "recipe_of"]

RECIPES_FILE = DATA / "evidence" / "serving-recipes.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Conditions, and what holds where all are met; 0, "" and () = not said.

    source, engine, chip, model: what the printed ones begin with. measured: the day that the row gives. input_tokens,
    output_tokens, number_format, tensor_below, groups_from (least attention groups), load_from and load_below (requests
    in flight): of the row. cache_format: of the KV cache. max_sequences, token_budget, prefill_wait_steps,
    prefill_wait_ratio: flags of the engine. prompt_budget: a step takes what runs, drafts included, a prompt and 64
    tokens, if that is more than token_budget. budget_prompts: a step takes so many prompts. acceptance: of drafts
    by position. memory_fraction: of HBM. captures_prompts: passes with prompt tokens are captured in pieces, which the
    engine leaves off by default. expert_parallel: experts are spread over all chips of a replica.
    shortest_ratio: the shortest lengths over the longest; waves: requests sent over requests in flight.
    """

    source: tuple[str, ...] = ()
    engine: str = ""
    chip: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    number_format: str = ""
    tensor_below: int = 0
    load_from: int = 0
    load_below: int = 0
    groups_from: int = 0
    measured: str = ""
    cache_format: str = ""
    max_sequences: int = 0
    token_budget: int = 0
    prefill_wait_steps: int = 0
    prefill_wait_ratio: float = 0.0
    prompt_budget: bool = False
    budget_prompts: int = 0
    acceptance: tuple[float, ...] = ()
    memory_fraction: float = 0.0
    captures_prompts: bool = False
    expert_parallel: bool = False
    shortest_ratio: float = 1.0
    waves: int = 10
    origin: str = field(default="", repr=False)

    def holds(self, *, source: str, engine: str, chip: str, model: str, job: Serving, tp: int, groups: int,
              number_format: str = "") -> bool:
        """Whether every condition is met."""
        return _begins(source, self.source) and engine.startswith(self.engine) and _begins(chip, self.chip) \
            and (not self.measured or f"measured={self.measured}" in source) and groups >= self.groups_from \
            and _begins(model, self.model) and self.input_tokens in (0, job.input_tokens) \
            and self.output_tokens in (0, job.output_tokens) and (not self.tensor_below or tp < self.tensor_below) \
            and number_format.startswith(self.number_format) and job.concurrency >= self.load_from \
            and (not self.load_below or job.concurrency < self.load_below)

    def settings(self, job: Serving, groups: int) -> Mapping[str, Any]:
        """The engine's flags that it sets."""
        names = ("max_sequences", "token_budget", "prefill_wait_steps", "prefill_wait_ratio", "acceptance",
                 "captures_prompts")
        flags = {name: getattr(self, name) for name in names if getattr(self, name)}
        if self.budget_prompts:
            flags["token_budget"] = self.budget_prompts * job.input_tokens
        if self.prompt_budget:
            running = -(-job.concurrency // groups) * (1 + len(self.acceptance))
            flags["token_budget"] = max(self.token_budget, running + job.input_tokens + 64)
        return flags


NO_RECIPE = Recipe()


def _begins(text: str, beginnings: tuple[str, ...]) -> bool:
    return not beginnings or text.startswith(beginnings)


def recipe_of(*, source: str, engine: str, chip: str, model: str, job: Serving, tp: int, groups: int,
              number_format: str = "") -> Recipe:
    """The first recipe that holds for a row; one without conditions when none does."""
    return next((recipe for recipe in read_recipes() if recipe.holds(
        source=source, engine=engine, chip=chip, model=model, job=job, tp=tp, groups=groups,
        number_format=number_format)), NO_RECIPE)


def checkpoint_format(model: str, number_format: str) -> str:
    """The format of a model's public checkpoint where a table only says its width: scaled by block, or as printed."""
    names = _names("checkpoints", "block_scaled") if number_format == "fp8" else ()
    return f"{number_format}-block" if names and model.startswith(names) else number_format


def multiplies_degrees(source: str) -> bool:
    """Whether a source prints the degree of attention multiplied by that of the experts."""
    return source.startswith(_names("multiplied", "sources"))


@functools.cache
def _names(table: str, key: str, path: Path = RECIPES_FILE) -> tuple[str, ...]:
    return tuple(read_toml(path)[table][key])


@functools.cache
def read_recipes(path: Path = RECIPES_FILE) -> tuple[Recipe, ...]:
    """The recipes in the order they are tried; BadInput when one carries a key that is not known."""
    known = {column.name for column in fields(Recipe)}
    found = []
    for table in read_toml(path)["recipe"]:
        if unknown := set(table) - known:
            raise BadInput(file=str(path), field="recipe", value=sorted(unknown),
                           expected=f"only {', '.join(sorted(known))}", remedy="Correct or remove the key.")
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value
                                  for key, value in table.items()}
        found.append(Recipe(**values))
    return tuple(found)
