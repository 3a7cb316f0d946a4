"""What traffic asks of engines at the very least, whatever is cached and however it is batched.

Axes: R = request, H = hashed block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serried.traffic import Requests
from serried.workload.spec import Floats

__all__ = ["Demand", "demand_of", "likely_demand"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Columns over R. new_R: prompt tokens that this request itself must have computed; known_R: tokens before them
    that may lie in a cache. shared_tokens: of blocks in several prompts, each of which is computed once at least.
    """

    requests: Requests
    new_R: Floats
    known_R: Floats
    shared_tokens: float

    @property
    def input_R(self) -> Floats:
        """Tokens of the prompts."""
        return self.requests.input_tokens_R.astype(np.float64)

    @property
    def later_R(self) -> Floats:
        """Tokens after the first."""
        return self.requests.output_tokens_R.astype(np.float64) - 1.0

    @property
    def is_open(self) -> bool:
        """Whether requests arrive when the trace says, whatever becomes of the others."""
        return not self.requests.in_flight and not (self.requests.previous_R >= 0).any()


def demand_of(requests: Requests) -> Demand:
    """A block that no other prompt has cannot be found in a cache; one token of a prompt is always computed.

    The next turn of a session may find all of its past.
    """
    input_R = requests.input_tokens_R.astype(np.float64)
    known_R, shared_tokens = np.zeros(len(requests)), 0.0
    hash_tokens = float(requests.hash_block_tokens)
    if hash_tokens:
        _, code_H, count_H = np.unique(requests.block_hash_H, return_inverse=True, return_counts=True)
        known_R = _leading(count_H[code_H] > 1, requests.block_start_R) * hash_tokens
        shared_tokens = float((count_H > 1).sum()) * hash_tokens
    elif len(requests.previous_R):
        known_R = np.where(requests.previous_R >= 0, input_R, 0.0)
    known_R = np.minimum(known_R, input_R - 1.0)
    return Demand(requests=requests, new_R=input_R - known_R, known_R=known_R,
                  shared_tokens=min(shared_tokens, float(known_R.sum())))


def likely_demand(requests: Requests) -> Demand:
    """As `demand_of`, if a block is in a cache as soon as an earlier prompt had it: what a large cache comes to, though
    no bound for a single request, which may come first where it was second."""
    hash_tokens = float(requests.hash_block_tokens)
    if not hash_tokens:
        return demand_of(requests)
    _, first_H = np.unique(requests.block_hash_H, return_index=True)
    is_known_H = np.ones(len(requests.block_hash_H), dtype=bool)
    is_known_H[first_H] = False
    input_R = requests.input_tokens_R.astype(np.float64)
    known_R = np.minimum(_leading(is_known_H, requests.block_start_R) * hash_tokens, input_R - 1.0)
    return Demand(requests=requests, new_R=input_R - known_R, known_R=known_R, shared_tokens=0.0)


def _leading(is_shared_H: NDArray[np.bool_], start_R: NDArray[np.int64]) -> Floats:
    """How many of each request's first blocks are shared without a gap."""
    own_H = np.append(np.flatnonzero(~is_shared_H), len(is_shared_H))
    first_own_R = own_H[np.searchsorted(own_H, start_R[:-1])]
    return np.asarray(np.minimum(first_own_R, start_R[1:]) - start_R[:-1], dtype=np.float64)
