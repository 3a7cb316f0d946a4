"""The choice by size as the configuration of a tuner plugin: one line for each range that takes one algorithm."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["nccl_tuner_csv"]

#: Our words -> the plugin's; what a plugin cannot name is left to the library.
_ALGORITHMS = {"ring": "ring", "tree": "tree", "switch": "nvls"}
_COLLECTIVES = {"all_reduce": "allreduce", "all_gather": "allgather", "reduce_scatter": "reducescatter",
                "broadcast": "broadcast"}


def nccl_tuner_csv(operation: str, sizes_bytes: Sequence[float], algorithms: Sequence[str], protocols: Sequence[str], *,
                   nodes: int, ranks: int) -> str:
    """collective_type, min_bytes, max_bytes, algorithm, protocol, channels, nNodes, nRanks, numPipeOps, regBuff.

    A range begins at its size and ends before the next; -1 leaves channels and the rest to the library.
    """
    lines = ["# collective_type,min_bytes,max_bytes,algorithm,protocol,channels,nNodes,nRanks,numPipeOps,regBuff"]
    start = 0
    for row, (algorithm, protocol) in enumerate(zip(algorithms, protocols, strict=True)):
        last = row == len(sizes_bytes) - 1
        if not last and (algorithms[row + 1], protocols[row + 1]) == (algorithm, protocol):
            continue
        end = 2**63 - 1 if last else math.ceil(sizes_bytes[row + 1]) - 1
        if algorithm in _ALGORITHMS and operation in _COLLECTIVES:
            word = "nvlstree" if algorithm == "switch" and nodes > 1 else _ALGORITHMS[algorithm]
            lines.append(f"{_COLLECTIVES[operation]},{start},{end},{word},{protocol},-1,{nodes},{ranks},-1,-1")
        start = end + 1
    return "\n".join(lines) + "\n"
