"""Matrix products with a parameter: forward, data gradient and weight gradient, and low-rank adapters beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from serried.workload.spec import Elementwise, Exchange, Floats, Gemm, Operator, Phase, Shards

__all__ = ["Region", "exchange", "linear", "region_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Tokens of one chip and its shares, over S.

    resting_tokens: between the tensor-parallel regions (cut over `tensor` with sequence parallelism).
    inner_tokens: inside them. element_bytes: of activations. adapter_rank: 0 = every matrix is trained.
    """

    shards: Shards
    resting_tokens: Floats
    inner_tokens: Floats
    element_bytes: Floats | float
    backward: bool
    adapter_rank: int


def region_of(shards: Shards, *, phase: str, element_bytes: Floats | float, adapter_rank: int, decode: bool) -> Region:
    """The tokens that `shards` leave to one chip; one new token of a decode step cannot be cut over the context."""
    assert phase in ("forward", "backward"), phase
    tokens = shards.sequences * shards.query_tokens
    inner = tokens if decode else tokens / shards.context
    resting = np.where(shards.sequence_parallel, inner / shards.tensor, inner)
    return Region(shards=shards, resting_tokens=floats(resting), inner_tokens=floats(inner),
                  element_bytes=element_bytes, backward=phase == "backward", adapter_rank=adapter_rank)


def floats(value: ArrayLike) -> Floats:
    """`value` as an array of float64, 0-d welcome."""
    return np.asarray(value, dtype=np.float64)


def linear(name: str, rows: Floats, n: ArrayLike, k: ArrayLike, region: Region, *, high_precision: bool = False,
           batch: ArrayLike = 1.0, adapted: bool = False) -> list[Operator]:
    """[rows, k] x [k, n] with a weight: its forward product, or its data and weight gradients.

    With adapters every weight is frozen: the weight gradient is left out, and where `adapted` the two narrow
    matrices have their own products and a sum.
    """
    wide, deep, times = floats(n), floats(k), floats(batch)
    rank = floats(region.adapter_rank)

    def product(suffix: str, m: Floats, n_: Floats, k_: Floats, phase: Phase, *, weight: bool = True) -> Gemm:
        return Gemm(name=name + suffix, m=m, n=n_, k=k_, batch=times, high_precision=high_precision, weight=weight,
                    phase=phase)

    narrow: list[tuple[str, Floats, Floats]] = []
    if region.adapter_rank and adapted:
        narrow = [(".adapter_down", rank, deep), (".adapter_up", wide, rank)]
    found: list[Operator] = []
    if not region.backward:
        found.append(product("", rows, wide, deep, "forward"))
        found += [product(suffix, rows, out, into, "forward") for suffix, out, into in narrow]
    else:
        found.append(product("", rows, deep, wide, "backward_data"))
        if not region.adapter_rank:
            found.append(product("", wide, deep, rows, "backward_weight", weight=False))
        for suffix, out, into in narrow:
            found.append(product(suffix, rows, into, out, "backward_data"))
            found.append(product(suffix, out, into, rows, "backward_weight", weight=False))
    if narrow:
        summed = rows * (deep if region.backward else wide) * region.element_bytes
        found.append(Elementwise(name=name + ".adapter_sum", read_bytes=2 * summed, write_bytes=summed, kernels=2))
    return found


def exchange(name: str, operation: str, axis: str, payload_bytes: ArrayLike, degree: Floats, *,
             beside: str = "") -> list[Operator]:
    """A collective, left out when no shape has more than one rank; its payload is 0 where the degree is 1."""
    if not np.any(degree > 1):
        return []
    return [Exchange(name=name, operation=operation, axis=axis, beside=beside,  # type: ignore[arg-type]
                     payload_bytes=floats(np.where(degree > 1, payload_bytes, 0.0)))]
