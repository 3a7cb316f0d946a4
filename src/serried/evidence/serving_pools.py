"""Pools of disaggregated runs that tables leave blank, from `data/evidence/serving-pools.toml`; never fitted.

A table of such runs often prints the degrees of one engine of each pool, or the chips of all, and neither how many
engines there are nor whether each of their chips holds requests of its own. The benchmark's own recipes say so.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serried.catalogue.entry import DATA, read_toml
from serried.errors import BadInput

__all__ = ["POOLS_FILE", "PoolRun", "PoolShape", "PrintedPools", "draft_acceptance", "pool_run",
           "read_pool_runs"]

POOLS_FILE = DATA / "evidence" / "serving-pools.toml"
#: Chips of one host: what engines that serve both phases run on in these sources.
LARGEST_ENGINE_CHIPS = 8
_GROUP_KEYS = {"engine", "chip", "model", "format", "lengths", "since", "until", "runs", "origin", "chunk",
               "chunk_shared"}
_RUN = re.compile(r"([\d ]+): (\d+) (TP|TEP|DEP)(\d+) > (\d+) (TP|TEP|DEP)(\d+)(?: batch (\d+))?(?: drafts (\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolShape:
    """Equal engines. chips: of one engine; groups: of requests on it; expert_degree: chips that its experts are spread
    over."""

    engines: int
    chips: int
    groups: int
    expert_degree: int

    @property
    def chip_count(self) -> int:
        """Chips of all engines."""
        return self.engines * self.chips


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRun:
    """One recipe. batch: running requests of a group of a decode engine, 0 = what the engine allows. drafts: tokens
    drafted in a decode step. chunk_tokens: of a prefill step of a group, 0 = the engine's default."""

    loads: tuple[int, ...]
    prefill: PoolShape
    decode: PoolShape
    batch: int = 0
    drafts: int = 0
    chunk_tokens: int = 0

    def fits(self, printed: PrintedPools) -> bool:
        """Whether a row may be of this recipe."""
        total = self.prefill.chip_count + self.decode.chip_count
        if printed.concurrency not in self.loads:
            return False
        if printed.one_engine:
            return printed.decode_chips == total > LARGEST_ENGINE_CHIPS
        if printed.prefill_chips == printed.decode_chips and printed.decode_chips in (1, total):
            return True   # the chips of all, or nothing
        return all(given in (0, own) for given, own in (
            (printed.prefill_chips, self.prefill.chips), (printed.decode_chips, self.decode.chips),
            (printed.prefill_engines, self.prefill.engines), (printed.decode_engines, self.decode.engines)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PrintedPools:
    """What a row says: the day of the measurement, the load, chips of an engine of each pool, engines (0 = blank).

    one_engine: it names a single engine of so many chips. On more than one host and of a number that is the total of
    a recipe under the same load, that is a row of two pools which lost its words.
    """

    source: str
    engine: str
    chip: str
    model: str
    number_format: str
    measured: str
    lengths: tuple[int, int]
    concurrency: int
    prefill_chips: int
    decode_chips: int
    prefill_engines: int = 0
    decode_engines: int = 0
    one_engine: bool = False


def pool_run(printed: PrintedPools) -> PoolRun | None:
    """The recipe that a row is of: the first that fits, one without drafts before one with; None when none does."""
    raw = read_toml(POOLS_FILE)["source"]
    if not printed.source.startswith(tuple(raw["begins"])):
        return None
    fitting = [run for group, runs in read_pool_runs() if _holds(group, printed) for run in runs if run.fits(printed)]
    if printed.source.startswith(tuple(raw["never_drafts"])):
        fitting = [run for run in fitting if not run.drafts]
    return min(fitting, key=lambda run: run.drafts > 0, default=None)


def draft_acceptance(drafts: int) -> tuple[float, ...]:
    """Chance of each draft of a step to be accepted given all before it were."""
    return tuple(read_toml(POOLS_FILE)["source"]["acceptance"][:drafts])


def _holds(group: Mapping[str, Any], printed: PrintedPools) -> bool:
    return printed.engine.startswith(group["engine"]) and printed.chip.startswith(tuple(group["chip"])) \
        and printed.model.startswith(tuple(group["model"])) and printed.number_format == group["format"] \
        and printed.lengths == tuple(group["lengths"]) \
        and group.get("since", "") <= printed.measured < group.get("until", "~")


@functools.cache
def read_pool_runs(path: Path = POOLS_FILE) -> tuple[tuple[Mapping[str, Any], tuple[PoolRun, ...]], ...]:
    """The groups with their runs, in the order in which they are tried; BadInput where one cannot be read."""
    return tuple((group, tuple(_runs(group, path))) for group in read_toml(path)["group"])


def _runs(group: Mapping[str, Any], path: Path) -> Iterator[PoolRun]:
    if unknown := set(group) - _GROUP_KEYS:
        raise BadInput(file=str(path), field="group", value=sorted(unknown),
                       expected=f"only {', '.join(sorted(_GROUP_KEYS))}", remedy="Correct or remove the key.")
    for text in group["runs"]:
        found = _RUN.fullmatch(text)
        if found is None:
            raise BadInput(file=str(path), field="group.runs", value=text,
                           expected="e.g. '8 16: 1 DEP4 > 2 TEP8 batch 32 drafts 3'", remedy="Correct the run.")
        prefill, decode = _shape(found.groups()[1:4]), _shape(found.groups()[4:7])
        chunk = int(group.get("chunk", 0)) // (prefill.groups if group.get("chunk_shared") else 1)
        yield PoolRun(loads=tuple(int(load) for load in found.group(1).split()), prefill=prefill, decode=decode,
                      batch=int(found.group(8) or 0), drafts=int(found.group(9) or 0), chunk_tokens=chunk)


def _shape(words: Sequence[str]) -> PoolShape:
    engines, kind, chips = int(words[0]), words[1], int(words[2])
    return PoolShape(engines=engines, chips=chips, groups=chips if kind == "DEP" else 1,
                     expert_degree=1 if kind == "TP" else chips)
