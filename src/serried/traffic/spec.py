"""Nouns of traffic.

Axes: R = request, in order of arrival; H = hashed block of prompt, ragged over R.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Requests"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Requests as columns over R (int64), in order of arrival.

    arrival_ns_R: since the beginning. input_tokens_R, output_tokens_R: at least 1 each.
    class_R: index into class_names. previous_R: the request of the same session that must end first, -1 = none;
    such a request arrives think_ns_R after that end, or at its own arrival_ns_R if that is later.
    block_start_R: R + 1 offsets into block_hash_H, the hashes of the prompt's leading blocks of hash_block_tokens each;
    equal hashes are equal prefixes. Without hashes hash_block_tokens is 0 and both are empty.
    in_flight: a closed loop: the first so many come at their arrival_ns_R, the next one think_ns_R (if given) after the
    end of another; 0 = open.
    """

    arrival_ns_R: Ints
    input_tokens_R: Ints
    output_tokens_R: Ints
    class_R: Ints
    class_names: tuple[str, ...] = ("all",)
    previous_R: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    think_ns_R: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    block_start_R: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    block_hash_H: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    hash_block_tokens: int = 0
    in_flight: int = 0

    def __len__(self) -> int:
        return len(self.arrival_ns_R)
