"""Time of a whole layer of experts on one chip: route, gather, two grouped products with an activation between, add up.

Axes: S = shape, Q = quantile of the experts by load.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serried.compiler.gemm import GemmParameters
from serried.compiler.grouped_gemm import grouped_gemm_time_s
from serried.compiler.spec import parameter
from serried.silicon.spec import Chip
from serried.workload.spec import Floats

__all__ = ["ExpertLayer", "RouteParameters", "expert_layer_time_s", "expert_loads"]

_QUANTILES = 16
_DRAWS = 9
_VALUE_BYTES = 2.0   # tokens travel in 16 bits; a cast, where the recipe has one, is fused into the gather


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteParameters:
    """What a library makes of everything around the products of the experts."""

    hbm_ratio: float = parameter(
        unit="1", low=0.02, high=1.0, default=0.5,
        description="bandwidth of gathered and scattered rows over that of HBM")
    activation_ratio: float = parameter(
        unit="1", low=0.05, high=10.0, default=0.8,
        description="bandwidth of the activation between the products over that of HBM; the cache may hold its rows")
    launch_s: float = parameter(
        unit="s", low=1e-7, high=1e-3, default=2e-5, description="captured launch floor of all its kernels")
    expert_s: float = parameter(
        unit="s", low=1e-10, high=1e-5, default=1e-7, description="time each local expert adds: offsets, scheduling")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertLayer:
    """A layer of experts as one of `ranks` chips sees it; columns over S.

    tokens: before they are spread over their experts. experts_per_token of `experts`; ranks: degree of expert
    parallelism. width: inner width on this chip. products: matrices of the first product, 2 if gated, else 1.
    loads: over S x Q, rows of this chip's experts by quantile over the mean rows of all experts.
    """

    tokens: Floats
    hidden: Floats
    width: Floats
    experts: Floats
    experts_per_token: Floats
    ranks: Floats
    products: Floats
    loads: Floats


def expert_layer_time_s(layer: ExpertLayer, *, chip: Chip, products: GemmParameters, route: RouteParameters,
                        number_format: str) -> Floats:
    """Device seconds of the layer, captured launches, over S; the exchange between chips is not in it."""
    groups = layer.experts / layer.ranks
    balanced_rows = layer.tokens * layer.experts_per_token / layer.ranks
    rows = balanced_rows * layer.loads.mean(axis=1)
    inward, outward = ((layer.products * layer.width, layer.hidden), (layer.hidden, layer.width))
    grouped_s = sum((grouped_gemm_time_s(groups, balanced_rows, n, k, chip=chip, parameters=products,
                                         number_format=number_format, loads=layer.loads)
                     for n, k in (inward, outward)), np.zeros(1))
    hbm_bytes_per_s = chip.need("hbm_bandwidth")
    moved_bytes = _VALUE_BYTES * layer.hidden * (3.0 * rows + layer.tokens)
    activated_bytes = _VALUE_BYTES * layer.width * rows * (layer.products + 1.0)
    around_s = (moved_bytes / route.hbm_ratio + activated_bytes / route.activation_ratio) / hbm_bytes_per_s
    return np.asarray(grouped_s + around_s + route.launch_s + route.expert_s * groups)


def expert_loads(experts: int, ranks: int, exponent: float, load_range: float, most: float = np.inf,
                 seed: int = 0) -> Floats:
    """Loads of the experts on the fullest of `ranks` equal ranks, by quantile, over the mean load of all experts.

    Loads follow a power law with density x**-exponent between 1 and `load_range`, 0 = balanced; no expert has more than
    `most` times the mean (every token, where it chooses an expert once). Experts fall on ranks by chance (`seed`); of
    several draws the middle one is answered.
    """
    if exponent == 0.0:
        return np.ones(_QUANTILES)
    level = (np.arange(experts) + 0.5) / experts
    if abs(exponent - 1.0) < 1e-9:
        loads = load_range**level
    else:
        power = 1.0 - exponent
        loads = ((load_range**power - 1.0) * level + 1.0) ** (1.0 / power)
    loads = _capped(loads / loads.mean(), most)
    chance = np.random.default_rng(seed)
    draws = [chance.permutation(loads).reshape(ranks, experts // ranks) for _ in range(_DRAWS)]
    fullest = sorted((draw[draw.sum(axis=1).argmax()] for draw in draws), key=np.sum)[_DRAWS // 2]
    points = (np.arange(_QUANTILES) + 0.5) / _QUANTILES * len(fullest) - 0.5
    spread = np.interp(points, np.arange(len(fullest)), np.sort(fullest))
    return np.asarray(spread * fullest.mean() / spread.mean())


def _capped(loads: Floats, most: float) -> Floats:
    """Loads of mean 1 with none above `most`; what is cut falls to the others in proportion."""
    most = max(most, 1.0)
    for _ in range(8):
        over = loads >= most
        rest = loads[~over].sum()
        if not over.any() or rest <= 0:
            break
        loads = np.where(over, most, loads * (len(loads) - most * over.sum()) / rest)
    return loads
