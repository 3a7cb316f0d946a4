"""When the collector of cycles may look at everything: when nobody waits.

A control plane remembers every job, and looking through all of it takes a tenth of a second and more: no request should
have to wait for that. Young cycles are collected as ever; a full collection waits for an idle moment, and what has
survived one is not looked at again.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["idle_collections"]

_NEVER = 1_000_000
_EVERY_S = 30.0


@contextmanager
def idle_collections() -> Iterator[Callable[[], None]]:
    """What an idle loop calls; full collections happen there alone, at most every half a minute."""
    before = gc.get_threshold()
    last_s = time.monotonic()

    def collect() -> None:
        nonlocal last_s
        if time.monotonic() - last_s > _EVERY_S:
            gc.collect()
            gc.freeze()
            last_s = time.monotonic()

    gc.collect()
    gc.freeze()
    gc.set_threshold(before[0], before[1], _NEVER)
    try:
        yield collect
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
