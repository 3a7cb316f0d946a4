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

__all__ = ["NO_RECIPE", "Recipe", "read_recipes", "recipe_of"]

RECIPES_FILE = DATA / "evidence" / "serving-recipes.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Conditions, and what holds where all are met; 0, "" and () = not said.

    source, engine, chip, model: what the printed ones begin with. input_tokens, output_tokens, tensor_below: of the
    row. cache_format: of the KV cache. max_sequences, token_budget, prefill_wait_steps, prefill_wait_ratio: flags of
    the engine. memory_fraction: of HBM. expert_parallel: experts are spread over all chips of a replica.
    shortest_ratio: the shortest lengths over the longest; waves: requests sent over requests in flight.
    """

    source: tuple[str, ...] = ()
    engine: str = ""
    chip: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    tensor_below: int = 0
    cache_format: str = ""
    max_sequences: int = 0
    token_budget: int = 0
    prefill_wait_steps: int = 0
    prefill_wait_ratio: float = 0.0
    memory_fraction: float = 0.0
    expert_parallel: bool = False
    shortest_ratio: float = 1.0
    waves: int = 10
    origin: str = field(default="", repr=False)

    def holds(self, *, source: str, engine: str, chip: str, model: str, job: Serving, tp: int) -> bool:
        """Whether every condition is met."""
        return _begins(source, self.source) and engine.startswith(self.engine) and _begins(chip, self.chip) \
            and _begins(model, self.model) and self.input_tokens in (0, job.input_tokens) \
            and self.output_tokens in (0, job.output_tokens) and (not self.tensor_below or tp < self.tensor_below)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The engine's flags that it sets."""
        names = ("max_sequences", "token_budget", "prefill_wait_steps", "prefill_wait_ratio")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


NO_RECIPE = Recipe()


def _begins(text: str, beginnings: tuple[str, ...]) -> bool:
    return not beginnings or text.startswith(beginnings)


def recipe_of(*, source: str, engine: str, chip: str, model: str, job: Serving, tp: int) -> Recipe:
    """The first recipe that holds for a row; one without conditions when none does."""
    return next((recipe for recipe in read_recipes() if recipe.holds(
        source=source, engine=engine, chip=chip, model=model, job=job, tp=tp)), NO_RECIPE)


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
