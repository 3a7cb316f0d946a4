"""How long prompts and answers are, drawn from a seed; whole tokens, at least 1, over R."""

from __future__ import annotations

import numpy as np

from serried.errors import BadInput
from serried.traffic.spec import Ints, Requests

__all__ = ["empirical", "fixed", "lognormal", "uniform"]


def fixed(tokens: int, count: int) -> Ints:
    """All alike."""
    return np.full(count, _tokens(tokens), dtype=np.int64)


def uniform(longest: int, count: int, random: np.random.Generator, *, shortest_ratio: float) -> Ints:
    """As the usual benchmarks draw them: evenly between shortest_ratio of the longest and the longest."""
    if not 0.0 < shortest_ratio <= 1.0:
        raise BadInput(field="range", value=shortest_ratio, expected="above 0 and at most 1", remedy="0.8 is usual.")
    return random.integers(max(1, round(_tokens(longest) * shortest_ratio)), longest + 1, count, dtype=np.int64)


def lognormal(median: float, count: int, random: np.random.Generator, *, sigma: float, longest: int) -> Ints:
    """Many short ones and a long tail: the logarithm is normal around ln(median) with deviation sigma."""
    drawn = np.exp(random.normal(np.log(max(median, 1.0)), sigma, count))
    return np.clip(np.round(drawn), 1, _tokens(longest)).astype(np.int64)


def empirical(requests: Requests, count: int, random: np.random.Generator) -> tuple[Ints, Ints]:
    """Prompts and answers drawn again, in pairs, from those of a trace: long prompts keep their short answers."""
    rows = random.integers(0, len(requests), count)
    return requests.input_tokens_R[rows], requests.output_tokens_R[rows]


def _tokens(tokens: int) -> int:
    if not 1 <= tokens <= 100_000_000:
        raise BadInput(field="tokens", value=tokens, expected="1 or more", remedy="Give whole tokens.")
    return int(tokens)
