"""Is a measured rate possible at all? The least work of a token against the chip's peak."""

from __future__ import annotations

from serried.errors import BadInput
from serried.silicon import Chip
from serried.workload import Model, parameters

__all__ = ["least_flop_per_token", "refuse_above_peak"]


def least_flop_per_token(model: Model) -> float:
    """FLOPs that one token costs at least in a forward pass: 2 for each parameter of a block that it passes.

    Attention over the context, embedding and head are left out, so that nothing possible is refused.
    """
    counted = parameters(model)
    return 2.0 * max(counted.active - counted.embedding - counted.head, 1)


def refuse_above_peak(tokens_per_s: float, *, model: Model, chip: Chip, chip_count: int, passes: float = 1.0,
                      field: str = "throughput", file: str = "") -> None:
    """BadInput, with the arithmetic, when `tokens_per_s` through the model exceed the chips' highest peak.

    passes: forward passes that a token stands for (training: 3). The spread of the peak figure is granted.
    """
    formats = chip.number_formats
    if not formats:
        return
    best = max(formats, key=chip.matrix_peak_flop_per_s)
    per_chip = tokens_per_s * least_flop_per_token(model) * passes / chip_count
    peak = chip.matrix_peak_flop_per_s(best)
    if per_chip > peak * (1.0 + chip.figures[f"matrix_peak.{best}"].spread):
        raise BadInput(
            file=file, field=field, value=f"{tokens_per_s:,.0f} tokens/s",
            expected=f"no more than the peak of {chip.name}: {tokens_per_s:,.0f} tokens/s x "
                     f"{least_flop_per_token(model) * passes / 1e9:,.1f} GFLOP a token / {chip_count} chips = "
                     f"{per_chip / 1e12:,.1f} TFLOP/s a chip, above {peak / 1e12:,.1f} TFLOP/s in {best}",
            remedy="Check units and counts, say how many input tokens a cache served, or correct the peak in a copy of "
                   "the chip file.")
