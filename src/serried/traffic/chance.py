"""Streams of chance, so that one more draw of anything leaves the draws of everything else alone."""

from __future__ import annotations

import numpy as np

__all__ = ["ARRIVALS", "INPUT", "OUTPUT", "PEOPLE", "TURNS", "stream"]

ARRIVALS, INPUT, OUTPUT, TURNS, PEOPLE = range(5)


def stream(seed: int, *what: int) -> np.random.Generator:
    """The generator of one stream."""
    return np.random.default_rng(np.random.SeedSequence([seed, *what]))
