"""What is assumed of each source of serving figures: per source, never per row, from `data/evidence/serving.toml`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serried.catalogue.entry import DATA, read_toml
from serried.errors import BadInput

__all__ = ["SERVING_SOURCES_FILE", "ServingSource", "read_serving_sources", "serving_source"]

SERVING_SOURCES_FILE = DATA / "evidence" / "serving.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSource:
    """The assumptions of one source.

    match: text that the source of its rows begins with ("" = any). reason: the physical argument. cache_format: of the
    KV cache where blank. max_batch: running requests that the engine allows a group, 0 = what memory holds. requests:
    requests of an offline run by "input/output", other_requests for lengths not named. attention_groups: models with
    experts keep requests apart, one group a chip, and share experts. weight_formats: number format by printed model
    where blank. fitted_metrics, fitted_concurrency: the metrics and the most requests in flight that a stack may be
    fitted on, () and 0 = all. unusable: why none of its rows can be predicted.
    """

    name: str
    match: str
    reason: str
    cache_format: str = "bf16"
    max_batch: int = 0
    requests: Mapping[str, int] = field(default_factory=dict)
    other_requests: int = 0
    attention_groups: bool = False
    weight_formats: Mapping[str, str] = field(default_factory=dict)
    fitted_metrics: tuple[str, ...] = ()
    fitted_concurrency: int = 0
    unusable: str = ""

    def requests_of(self, input_tokens: int, output_tokens: int) -> int:
        """Requests of an offline run; 0 = unknown."""
        return self.requests.get(f"{input_tokens}/{output_tokens}", self.other_requests)


@functools.cache
def read_serving_sources(path: Path = SERVING_SOURCES_FILE) -> tuple[ServingSource, ...]:
    """The sources in the order they are tried; BadInput when one carries a key that is not known."""
    return tuple(_source(table, path) for table in read_toml(path)["source"])


def serving_source(printed: str) -> ServingSource:
    """The first source that the printed one begins with."""
    return next(source for source in read_serving_sources() if printed.casefold().startswith(source.match.casefold()))


def _source(table: Mapping[str, Any], path: Path) -> ServingSource:
    known = set(ServingSource.__dataclass_fields__)
    if unknown := set(table) - known:
        raise BadInput(file=str(path), field=f"source {table.get('name')!r}", value=sorted(unknown),
                       expected=f"only {', '.join(sorted(known))}", remedy="Correct or remove the key.")
    return ServingSource(**{**table, "fitted_metrics": tuple(table.get("fitted_metrics", ())),
                            "reason": " ".join(table["reason"].split())})
