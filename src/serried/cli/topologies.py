"""Words of the command line about wires: sizes, ranges of sizes, operations, failures, and the topology they act on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from serried.errors import BadInput, nearest
from serried.fabric import OPERATIONS
from serried.topology import Topology, read_topology
from serried.topology.spec import Floats
from serried.units import parse_quantity

__all__ = ["parse_operation", "parse_sizes", "size_words", "topology_with"]


def parse_sizes(text: str) -> Floats:
    """`1GiB`, `1KiB..8GiB` (doubling), or a list of them by commas: bytes, ascending."""
    sizes: list[float] = []
    for part in text.split(","):
        first, dots, last = part.partition("..")
        low = _size(first, text)
        high = _size(last, text) if dots else low
        if high < low:
            raise BadInput(field="--bytes", value=text, expected="a range that ascends", remedy="Swap its ends.")
        while low <= high:
            sizes.append(low)
            low *= 2.0
    return np.array(sorted(set(sizes)))


def _size(text: str, whole: str) -> float:
    value = parse_quantity(text.strip(), "bytes", field="--bytes")
    if not 1 <= value <= 2.0**60:
        raise BadInput(field="--bytes", value=whole, expected="sizes from 1 B to 1 EiB, e.g. 1KiB..8GiB",
                       remedy="Correct it.")
    return value


def size_words(size_bytes: float) -> str:
    """1048576 -> "1 MiB"."""
    for prefix, scale in (("Ti", 2.0**40), ("Gi", 2.0**30), ("Mi", 2.0**20), ("Ki", 2.0**10)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.4g} {prefix}B"
    return f"{size_bytes:.4g} B"


def parse_operation(text: str) -> str:
    """`all-reduce` or `all_reduce`, as the fabric calls it."""
    operation = text.strip().lower().replace("-", "_")
    operation = {"allreduce": "all_reduce", "allgather": "all_gather", "alltoall": "all_to_all",
                 "reducescatter": "reduce_scatter"}.get(operation, operation)
    if operation not in OPERATIONS:
        known = [name.replace("_", "-") for name in OPERATIONS]
        raise BadInput(field="OP", value=text, expected=f"one of {', '.join(known)}",
                       remedy=f"Nearest: {', '.join(nearest(text, known)) or known[0]}.")
    return operation


def topology_with(path: str, failed: list[str] | None) -> Topology:
    """The topology in a file, with more out of order than it says."""
    topology = read_topology(path)
    for word in failed or []:
        kind, colon, digits = word.partition(":")
        if not (kind.isalpha() and colon and digits.isdigit() and len(digits) < 10):
            raise BadInput(field="--fail", value=word, expected="CLASS:NUMBER, e.g. link:3 or spine:0",
                           remedy="`serried fabric show` lists the classes.")
    return replace(topology, failed=(*topology.failed, *(failed or [])))
