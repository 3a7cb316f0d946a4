"""Nouns of serving: deployments and their estimates as columns.

Axes: D = deployment, one entry per candidate. A deployment is a row index.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from serried.planner.spec import FORMATS
from serried.workload.spec import Floats

__all__ = ["CACHE_FORMATS", "SERVING_MEMORY_CAUSES", "SERVING_TIME_CAUSES", "Deployments", "Ints", "ServingEstimate",
           "deployment"]

Ints = NDArray[np.int64]

#: Formats of the KV cache and the bytes of one element.
CACHE_FORMATS: Mapping[str, float] = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0}

#: Every engine second has one of these causes; each cause is a column and they add up.
SERVING_TIME_CAUSES = ("gemm", "attention", "memory_bound", "quantise", "tensor_exposed", "expert_exposed",
                       "pipeline_exposed", "pipeline_bubble", "host")
SERVING_MEMORY_CAUSES = ("weights", "kv_cache", "activations", "reserved")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployments:
    """Candidate deployments as columns over D (int64 unless said).

    tp: tensor degree of attention and dense layers. attention_dp: groups of tp chips that each hold their own requests
    and share one set of experts. ep: expert degree over the tp * attention_dp chips of a stage; the matrices of one
    expert are cut over the rest of them. pp: stages. replicas: independent copies; chips = tp * attention_dp * pp *
    replicas. weight_format, cache_format: codes into FORMATS and CACHE_FORMATS. captured: decode steps are launched
    as one graph. max_batch: running requests allowed per replica, 0 = as many as memory holds.
    """

    tp: Ints
    pp: Ints
    ep: Ints
    attention_dp: Ints
    replicas: Ints
    weight_format: Ints
    cache_format: Ints
    captured: NDArray[np.bool_]
    max_batch: Ints

    def __len__(self) -> int:
        return len(self.tp)

    @property
    def chips_per_replica(self) -> Ints:
        """Chips of one copy of the model."""
        return self.tp * self.attention_dp * self.pp

    @property
    def chip_count(self) -> Ints:
        """Chips of the whole deployment."""
        return self.chips_per_replica * self.replicas

    @property
    def expert_tensor(self) -> Ints:
        """Degree by which the matrices of one expert are cut."""
        return self.tp * self.attention_dp // self.ep

    def take(self, rows: NDArray[np.intp]) -> Deployments:
        """The deployments at `rows`, in that order."""
        return Deployments(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})

    def row(self, index: int) -> dict[str, int | bool | str]:
        """One deployment in words, for people and for JSON."""
        words = {column.name: getattr(self, column.name)[index].item() for column in fields(self)}
        return words | {"weight_format": FORMATS[words["weight_format"]],
                        "cache_format": tuple(CACHE_FORMATS)[words["cache_format"]]}


def deployment(*, tp: int = 1, pp: int = 1, ep: int = 1, attention_dp: int = 1, replicas: int = 1,
               weight_format: str = "bf16", cache_format: str = "bf16", captured: bool = True,
               max_batch: int = 0) -> Deployments:
    """A single deployment in words, as a table of one row."""
    numbers = {"tp": tp, "pp": pp, "ep": ep, "attention_dp": attention_dp, "replicas": replicas,
               "weight_format": FORMATS.index(weight_format), "cache_format": tuple(CACHE_FORMATS).index(cache_format),
               "max_batch": max_batch}
    return Deployments(captured=np.array([captured]), **{key: np.array([value]) for key, value in numbers.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingEstimate:
    """A closed loop with fixed requests in flight, per deployment; columns over D (leading axes broadcast).

    output_tokens_per_s: of the whole deployment; ..._per_chip: over its chips.
    ttft_s: mean time to the first token, waiting included. ttft_burst_s: of the last request when all arrive at once.
    tpot_s: mean time between later tokens, prefills of others included. decode_step_s: one decode step alone.
    prefill_s: one request's prefill alone. request_s: arrival to last token. batch: requests running per replica.
    cycle_s: engine time in which every running request is served once; time_by_cause_s: its causes, adding up to it.
    memory_bytes: fullest chip at that batch; memory_by_cause_bytes: its causes. max_batch: what memory and the setting
    allow per replica. fits: at least one request fits.
    """

    output_tokens_per_s: Floats
    output_tokens_per_s_per_chip: Floats
    ttft_s: Floats
    ttft_burst_s: Floats
    tpot_s: Floats
    decode_step_s: Floats
    prefill_s: Floats
    request_s: Floats
    batch: Floats
    cycle_s: Floats
    time_by_cause_s: Mapping[str, Floats]
    memory_bytes: Floats
    memory_by_cause_bytes: Mapping[str, Floats]
    max_batch: Floats
    fits: NDArray[np.bool_]
