"""How long does a collective take, and by which algorithm?

Axes: G = collective asked for, after broadcasting payload, degree and stride against each other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from serried.errors import BadInput
from serried.fabric.algorithms import candidates
from serried.fabric.placement import Floats, place
from serried.fabric.spec import OPERATIONS, Fabric, Operation

__all__ = ["Choice", "choose", "collective_time_s", "stolen_shares"]

#: Collectives evaluated at once: their columns stay in a core's cache.
_BLOCK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the library picks for each collective, in the shape of the question.

    algorithm, protocol: words; "" where nothing has to move. time_s: of the pick. alternatives_s: time of every other
    way by "<algorithm>/<protocol>", infinite where it does not apply.
    """

    algorithm: Sequence[str]
    protocol: Sequence[str]
    time_s: Floats
    alternatives_s: dict[str, Floats]


def collective_time_s(operation: Operation, payload_bytes: ArrayLike, degree: ArrayLike, stride: ArrayLike = 1, *,
                      fabric: Fabric, switch_adds: bool = True, ways: Collection[str] = ()) -> Floats:
    """Seconds of one collective; payload, degree and stride broadcast against each other.

    payload_bytes: all_reduce and broadcast: the buffer; all_gather and reduce_scatter: the whole (gathered) buffer;
    all_to_all: what each rank sends in all; send: the message. degree: ranks in the group; stride: chips from one
    member to the next, so that how many sit in a node follows. A group of one costs nothing.
    switch_adds: False for number formats that in-network reduction cannot add. ways: what the user lets the library
    choose from, as "<algorithm>/<protocol>", "<algorithm>/" or "/<protocol>"; empty = everything it has.
    """
    shape, payload_G, degree_G, stride_G = _columns(operation, payload_bytes, degree, stride)
    blocks = [slice(first, first + _BLOCK) for first in range(0, max(len(payload_G), 1), _BLOCK)]
    time_s_G = np.concatenate([_best_s(
        operation, payload_G[block], degree_G if len(degree_G) == 1 else degree_G[block],
        stride_G if len(stride_G) == 1 else stride_G[block], fabric, switch_adds, ways) for block in blocks])
    return time_s_G.reshape(shape)


def _best_s(operation: str, payload_G: Floats, degree_G: Floats, stride_G: Floats, fabric: Fabric, switch_adds: bool,
            ways: Collection[str]) -> Floats:
    """Time of the way that the library believes to be the fastest; degree and stride are columns or of length 1."""
    best_s_G = np.full(payload_G.shape, np.inf)
    believed_s_G = np.full(payload_G.shape, np.inf)
    placement = place(degree_G, stride_G, fabric)
    for way in candidates(operation, payload_G, placement, fabric, switch_adds=switch_adds, ways=ways):
        taken_G = way.believed_s < believed_s_G
        best_s_G = np.where(taken_G, way.time_s, best_s_G)
        believed_s_G = np.where(taken_G, way.believed_s, believed_s_G)
    best_s_G = np.where(degree_G <= 1.0, 0.0, best_s_G)
    if not np.isfinite(best_s_G).all():
        raise BadInput(file=fabric.profile.file, field=f"collective profile {fabric.profile.name}", value=operation,
                       expected=f"an algorithm for every {operation} asked for on {fabric.name}",
                       remedy="Give the profile a ratio (and network) parameter for an algorithm that can run it.")
    return best_s_G


def choose(operation: Operation, payload_bytes: ArrayLike, degree: ArrayLike, stride: ArrayLike = 1, *,
           fabric: Fabric, switch_adds: bool = True, ways: Collection[str] = ()) -> Choice:
    """As `collective_time_s`, with the names of what was picked and the times of what was not (for people)."""
    shape, payload_G, degree_G, stride_G = _columns(operation, payload_bytes, degree, stride)
    time_s_G = collective_time_s(operation, payload_G, degree_G, stride_G, fabric=fabric, switch_adds=switch_adds,
                                 ways=ways)
    had = list(candidates(operation, payload_G, place(degree_G, stride_G, fabric), fabric, switch_adds=switch_adds,
                          ways=ways))
    pick_G = np.argmin([way.believed_s for way in had], axis=0)
    moving_G = np.broadcast_to(degree_G > 1.0, payload_G.shape)
    return Choice(
        algorithm=[had[pick].algorithm if moves else "" for pick, moves in zip(pick_G, moving_G, strict=True)],
        protocol=[had[pick].protocol if moves else "" for pick, moves in zip(pick_G, moving_G, strict=True)],
        time_s=time_s_G.reshape(shape),
        alternatives_s={f"{way.algorithm}/{way.protocol}": way.time_s.reshape(shape) for way in had})


def stolen_shares(fabric: Fabric) -> tuple[float, float]:
    """What a running collective takes from compute beside it: share of the cores, share of the HBM bandwidth."""
    parameters = fabric.profile.parameters
    return parameters.get("stolen.cores", 0.0), parameters.get("stolen.hbm", 0.0)


def _columns(operation: str, payload_bytes: ArrayLike, degree: ArrayLike,
             stride: ArrayLike) -> tuple[tuple[int, ...], Floats, Floats, Floats]:
    if operation not in OPERATIONS:
        raise BadInput(field="operation", value=operation, expected=f"one of {', '.join(OPERATIONS)}",
                       remedy="Correct the name of the collective.")
    payload, ranks, apart = (np.asarray(column, dtype=np.float64) for column in (payload_bytes, degree, stride))
    for name, column, least in (("payload_bytes", payload, 0.0), ("degree", ranks, 1.0), ("stride", apart, 1.0)):
        if not (column >= least).all() or not np.isfinite(column).all():
            raise BadInput(field=name, value=column[~(column >= least)].ravel()[:1].tolist() or "not finite",
                           expected=f"{least:g} or more",
                           remedy="A group has at least one rank, and a payload is not negative.")
    shape = np.broadcast_shapes(payload.shape, ranks.shape, apart.shape)
    ranks_G, apart_G = (np.broadcast_to(column, shape).ravel() if column.size > 1 else column.reshape(1)
                        for column in (ranks, apart))
    return shape, np.broadcast_to(payload, shape).ravel(), ranks_G, apart_G
