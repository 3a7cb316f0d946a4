"""What a published run measured, and how a step time compares with it.

Times and tokens/s compare directly. TFLOP/s do so only through the source's own count of FLOPs, because counts differ
by up to half between sources: `flop_count` of its assumption says which one it is.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from serried.evidence.assumptions import SourceAssumption
from serried.evidence.cells import Cells, Unusable
from serried.workload import Model, parameters

__all__ = ["Metric", "counted_flop", "metric_of_row"]

#: Counts with attention in full and halved that differ by less may stand for each other.
_SAME_COUNT = 1.08
_SECONDS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "min": 60.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A measured figure in the unit of its file.

    quantity: "step", or "layer_forward" / "layer_backward" of one block and one micro-batch.
    work_per_step: what a rate counts per step (tokens per chip, sequences, TFLOP per chip); 0 for times.
    seconds_per_unit: for times.
    """

    value: float
    unit: str
    quantity: str = "step"
    work_per_step: float = 0.0
    seconds_per_unit: float = 0.0

    @property
    def is_rate(self) -> bool:
        """More is faster."""
        return self.work_per_step > 0

    @property
    def time_s(self) -> float:
        """The measured figure as a time."""
        return self.work_per_step / self.value if self.is_rate else self.value * self.seconds_per_unit

    def shown(self, time_s: float) -> float:
        """A predicted time in the unit of the measurement."""
        return self.work_per_step / time_s if self.is_rate else time_s / self.seconds_per_unit


def metric_of_row(cells: Cells, source: SourceAssumption, *, model: Model, sequence: int, batch: int,
                  chips: int) -> Metric:
    """The measured figure of a row; Unusable when its unit is not known or its FLOP count is not."""
    name, unit = cells["metric_name"].casefold(), cells["unit"]
    value = cells.number("metric_value")
    if value is None:
        raise Unusable("metric_value is blank")
    word, tokens = unit.casefold().strip(), float(sequence) * batch
    if word in _SECONDS:
        quantity = name.removesuffix("_time") if name.startswith("layer_") else "step"
        if quantity not in ("step", "layer_forward", "layer_backward"):
            raise Unusable(f"metric_name = {name!r} is not a known time")
        return Metric(value=value, unit=unit, quantity=quantity, seconds_per_unit=_SECONDS[word])
    each = re.search(r"/\s*(gpu|device|chip|npu|tpu|accelerator)", word) or "_per_gpu" in name
    per_chip = 1 / chips if each else 1.0
    if word.startswith("token"):
        return Metric(value=value, unit=unit, work_per_step=tokens * per_chip)
    if word.startswith(("seq", "sample")):
        return Metric(value=value, unit=unit, work_per_step=batch * per_chip)
    if word.startswith("tflop"):
        return Metric(value=value, unit=unit, work_per_step=_source_flop(source, model, sequence, batch) / 1e12 / chips)
    if name == "mfu" and word == "%":
        peak = cells.number("peak_tflops_used_for_mfu")
        if peak is None:
            raise Unusable("peak_tflops_used_for_mfu is blank")
        share = _source_flop(source, model, sequence, batch) / (peak * 1e12 * chips)
        return Metric(value=value, unit=unit, work_per_step=100 * share)
    raise Unusable(f"unit = {unit!r} of {name!r} is not a known one")


def _source_flop(source: SourceAssumption, model: Model, sequence: int, batch: int) -> float:
    """By the source's own count; without one, by the mean of the two usual counts where they hardly differ."""
    full, halved = (counted_flop(model, sequence, batch, causal=causal) for causal in (False, True))
    if source.flop_count:
        return halved if "causal" in source.flop_count else full
    if full > _SAME_COUNT * halved:
        raise Unusable("a figure in TFLOP/s needs the source's own count of FLOPs, which is not known: attention in "
                       f"full or halved differ by {full / halved - 1:.0%} here")
    return math.sqrt(full * halved)


def counted_flop(model: Model, sequence: int, batch: int, *, causal: bool) -> float:
    """FLOPs of a step as training tables count them: 6 a multiplied weight and token, 12 L s h of attention a token.

    causal: attention is halved. The embedding table is looked up, not multiplied, so it counts once, as the head.
    """
    count = parameters(model)
    weights = count.active - (0.0 if model.tied_embeddings else count.embedding)
    attention = sum(block.count * 6.0 * spec.heads * (spec.head_dim + spec.value_head_dim)
                    for block in model.blocks if (spec := block.attention) is not None and spec.kind != "linear")
    return batch * sequence * (6.0 * weights + attention * sequence * (0.5 if causal else 1.0))
