"""Measured layers of experts as columns: what a row of a MoE table asks of one chip.

A row says how its tokens fell on experts: `balanced`, or `power_law_<exponent>` of the loads, with the chip measured
being the fullest of its ranks. A shape family is held out together with all its token counts: the key of
`kernel_split` is "hidden,inner,experts per token,experts,tensor degree,expert degree".

Axes: C = case.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from serried.compiler.experts import ExpertLayer, expert_loads
from serried.compiler.gemm import MEASURED_FORMATS, WEIGHT_BYTES
from serried.workload.spec import Floats

if TYPE_CHECKING:
    import polars as pl

__all__ = ["ExpertCases", "expert_cases"]

_BALANCED = "balanced"
_POWER_LAW = "power_law_"
_FULLEST_SHARE = 0.8     # the measurements draw loads from one to this share of the tokens
_SPARSE_RANGE = 200.0    # and from 0.01 to 2 where there are fewer rows than experts


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertCases:
    """Rows of a MoE table as columns over C; a row with a reason cannot be used and holds placeholders."""

    layer: ExpertLayer
    chip: tuple[str, ...]
    number_format: tuple[str, ...]
    library: tuple[str, ...]
    release: tuple[str, ...]
    family: tuple[str, ...]
    label: tuple[str, ...]
    reason: tuple[str | None, ...]
    time_s: Floats

    def layer_of(self, rows: NDArray[np.intp]) -> ExpertLayer:
        """The layer columns of some rows."""
        return ExpertLayer(**{name: getattr(self.layer, name)[rows] for name in ExpertLayer.__slots__})


def expert_cases(frame: pl.DataFrame, reasons: list[str | None]) -> ExpertCases:
    """A typed MoE table (catalogue table "moe") with the reasons its reader gave."""
    names = ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size")
    columns = {name: frame[name].fill_null(1).to_numpy().astype(np.float64) for name in names}
    tokens, hidden, inner, each, experts, tensor, ranks = columns.values()
    words = {name: tuple(str(value or "") for value in frame[name])
             for name in ("chip", "backend", "bver", "kernel_source", "moe_dtype", "distribution")}
    found, loads = list(reasons), np.ones((frame.height, len(expert_loads(1, 1, 0.0, 1.0))))
    for row, distribution in enumerate(words["distribution"]):
        exponent = _exponent(distribution)
        if found[row] is None and MEASURED_FORMATS.get(words["moe_dtype"][row], "int4-weight") in WEIGHT_BYTES:
            found[row] = f"moe_dtype {words['moe_dtype'][row]}: weight-only and other formats are not timed"
        if found[row] is None and (exponent is None or experts[row] % ranks[row] or each[row] > experts[row]):
            found[row] = f"distribution {distribution!r} of {experts[row]:.0f} experts on {ranks[row]:.0f} ranks"
        if found[row] is None and exponent is not None:
            dense = tokens[row] * each[row] > experts[row]
            reach = max(2.0, _FULLEST_SHARE * tokens[row]) if dense else _SPARSE_RANGE
            loads[row] = _loads(int(experts[row]), int(ranks[row]), exponent, reach, experts[row] / each[row])
    gated = np.array(["nongated" not in source for source in words["kernel_source"]])
    layer = ExpertLayer(tokens=tokens, hidden=hidden, width=inner / tensor, experts=experts, experts_per_token=each,
                        ranks=ranks, products=np.where(gated, 2.0, 1.0), loads=loads)
    family = tuple(",".join(f"{value:.0f}" for value in row)
                   for row in zip(hidden, inner, each, experts, tensor, ranks, strict=True))
    label = tuple(f"moe {chip} {backend} {release} {dtype} tokens={count:.0f} {key} {distribution}"
                  for chip, backend, release, dtype, count, key, distribution in zip(
                      words["chip"], words["backend"], words["bver"], words["moe_dtype"], tokens, family,
                      words["distribution"], strict=True))
    return ExpertCases(
        layer=layer, chip=words["chip"], library=words["backend"], release=words["bver"], family=family, label=label,
        number_format=tuple(MEASURED_FORMATS.get(name, name) for name in words["moe_dtype"]), reason=tuple(found),
        time_s=frame["time_us"].fill_null(np.nan).to_numpy() * 1e-6)


def _exponent(distribution: str) -> float | None:
    if distribution == _BALANCED:
        return 0.0
    try:
        exponent = float(distribution.removeprefix(_POWER_LAW))
    except ValueError:
        return None
    return exponent if distribution.startswith(_POWER_LAW) and 0.0 < exponent < 10.0 else None


@functools.lru_cache(maxsize=20_000)
def _loads(experts: int, ranks: int, exponent: float, load_range: float, most: float) -> Floats:
    return expert_loads(experts, ranks, exponent, load_range, most)
