"""Where the output of a rank goes: a file of bounded length, older parts behind it, and never a reason to stop."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["RotatingLog", "rank_log_path"]


def rank_log_path(state: Path, attempt: str, rank: int) -> Path:
    """The latest part of what a rank wrote; older parts have .1, .2, ... behind their name."""
    return state / "logs" / attempt / f"{rank}.log"


class RotatingLog:
    """A file that is put aside when it is full. What the disk does not take is dropped, and the file says so once it
    takes anything again."""

    def __init__(self, path: Path, *, limit_bytes: int, kept_parts: int) -> None:
        self.path, self.limit_bytes, self.kept_parts = path, limit_bytes, kept_parts
        self.lost_bytes, self.trouble = 0, ""
        self._handle, self._length_bytes = -1, 0

    def write(self, data: bytes) -> None:
        """Append; whatever goes wrong is remembered, not raised."""
        while data:
            try:
                if self._handle < 0:
                    self._open()
                if self._length_bytes >= self.limit_bytes:
                    self._rotate()
                    self._open()
                if self.lost_bytes:
                    self._confess()
                written = os.write(self._handle, data[:max(1, self.limit_bytes - self._length_bytes)])
            except OSError as error:
                self.trouble = f"{self.path}: {error.strerror}"
                self.lost_bytes += len(data)
                return
            self._length_bytes += written
            data = data[written:]

    def close(self) -> None:
        """Let go of the file."""
        if self._handle >= 0:
            with contextlib.suppress(OSError):
                if self.lost_bytes:
                    self._confess()
            os.close(self._handle)
            self._handle = -1

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        self._handle = os.open(self.path, flags, 0o600)
        self._length_bytes = os.fstat(self._handle).st_size

    def _confess(self) -> None:
        """One line in the place of what was lost; raises where the disk does not even take that."""
        line = f"\n[serried: {self.lost_bytes} bytes of output are missing here: {self.trouble}]\n".encode()
        self._length_bytes += os.write(self._handle, line)
        self.lost_bytes, self.trouble = 0, ""

    def _rotate(self) -> None:
        os.close(self._handle)
        self._handle = -1
        for part in range(self.kept_parts, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{part}")
            newer = self.path if part == 1 else self.path.with_name(f"{self.path.name}.{part - 1}")
            with contextlib.suppress(FileNotFoundError):
                os.replace(newer, older)
        if not self.kept_parts:
            self.path.unlink()
