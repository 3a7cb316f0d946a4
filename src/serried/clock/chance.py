"""Seeded chance: one independent stream per cause, so that a new consumer changes nobody else's draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Chance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """All chance of one run. A stream is known by its name; the same seed and name draw the same numbers, always."""

    seed: int

    def stream(self, *names: str) -> np.random.Generator:
        """The generator of the cause called so, from its first draw."""
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(
            self.seed, spawn_key=tuple("\0".join(names).encode()))))
