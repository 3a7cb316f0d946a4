"""How a rank says that it lives: it writes lines "step busy_s" into the file that SERRIED_HEARTBEAT names.

Appended or overwritten, the last line that ends in a newline counts. step: a whole number; busy_s: seconds of that step
that were the rank's own work, waiting for others left out (it may be missing). A rank that writes the same line again
says that it lives and has not moved.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from serried.runners.spec import Beat

__all__ = ["HEARTBEAT", "BeatFile"]

HEARTBEAT = "SERRIED_HEARTBEAT"
_TAIL_BYTES = 256
_MOST_STEP, _MOST_BUSY_S = 2**53, 1e9


class BeatFile:
    """The file of one rank, as the agent watches it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last: Beat | None = None
        self._seen = (0, 0)

    def look(self, now_ns: int) -> bool:
        """Whether it was written since the last look and tells a beat. What cannot be read is no beat."""
        try:
            found = os.lstat(self.path)
            if not stat.S_ISREG(found.st_mode) or (found.st_mtime_ns, found.st_size) == self._seen:
                return False
            handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                tail = os.pread(handle, _TAIL_BYTES, max(0, found.st_size - _TAIL_BYTES))
            finally:
                os.close(handle)
        except OSError:
            return False
        self._seen = (found.st_mtime_ns, found.st_size)
        told = _beat(tail, now_ns)
        self.last = told or self.last
        return told is not None


def _beat(tail: bytes, now_ns: int) -> Beat | None:
    lines = tail.split(b"\n")[:-1]   # what follows the last newline is still being written
    if not lines:
        return None
    words = lines[-1].split()
    try:
        step, busy_s = int(words[0]), float(words[1]) if len(words) > 1 else 0.0
    except (ValueError, IndexError):
        return None
    if not (0 <= step <= _MOST_STEP and 0.0 <= busy_s <= _MOST_BUSY_S):
        return None
    return Beat(step=step, busy_s=busy_s, heard_ns=now_ns)
