"""Reads a rank's output while it is written and rotated, and misses no byte that is still there."""

from __future__ import annotations

import io
import os
from pathlib import Path

__all__ = ["LogReader"]

_BLOCK_BYTES = 65_536
_MOST_PARTS = 1000
_MOST_GAPS = 3


class LogReader:
    """The parts of one log from the oldest on, or its last `tail` lines, and then whatever follows.

    The latest part has the name itself, older ones .1, .2, ... A part is known by its inode, since its name changes
    under the reader. tail: -1 = everything.
    """

    def __init__(self, path: str, *, tail: int = -1) -> None:
        self.path = path
        self._tail = tail
        self._file: io.FileIO | None = None

    def read(self) -> bytes:
        """What comes next; b"" when there is nothing more for now."""
        if self._file is None and not self._begin():
            return b""
        assert self._file is not None, "a part is open"
        found = self._file.read(_BLOCK_BYTES)
        while not found and (newer := self._newer()) is not None:
            found = self._file.read(_BLOCK_BYTES)   # written between our reading and the rotation
            if found:
                newer.close()
                return found
            self._file.close()
            self._file = newer
            found = self._file.read(_BLOCK_BYTES)
        return found

    def close(self) -> None:
        """Let go of the part at hand."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _parts(self) -> list[tuple[str, int]]:
        """(name, inode) of every part, the latest first.

        While parts are renamed, from the oldest to the latest, there is a gap among their names, which moves; looking
        in the direction in which they move may see one twice and misses none.
        """
        found, missed = [], 0
        for age in range(_MOST_PARTS):
            name = f"{self.path}.{age}" if age else self.path
            try:
                found.append((name, os.stat(name).st_ino))
                missed = 0
            except FileNotFoundError:
                missed += 1
                if missed > _MOST_GAPS:
                    break
        return found

    def _open(self, name: str, inode: int) -> io.FileIO | None:
        """The part of that inode; None when the names have moved on."""
        try:
            file = open(name, "rb", buffering=0)   # noqa: SIM115  (kept open from call to call)
        except FileNotFoundError:
            return None
        if os.fstat(file.fileno()).st_ino == inode:
            return file
        file.close()
        return None

    def _begin(self) -> bool:
        """Open the part where reading starts, and go to the place in it."""
        if self._tail < 0:
            while parts := self._parts():
                if (file := self._open(*parts[-1])) is not None:
                    self._file = file
                    return True
            return False
        missing, last = self._tail, True
        for name, inode in self._parts():
            file = self._open(name, inode)
            if file is None:
                self.close()
                return self._begin()   # rotated meanwhile
            offset, missing = _lines_back(file, missing, last=last)
            last = last and file.tell() == 0   # nothing in it
            file.seek(offset)
            self.close()
            self._file = file
            if missing == 0:
                break
        return self._file is not None

    def _newer(self) -> io.FileIO | None:
        """The part after the one at hand, once there is one."""
        assert self._file is not None, "a part is open"
        ours = os.fstat(self._file.fileno()).st_ino
        while True:
            parts = self._parts()
            inodes = [inode for _, inode in parts]
            if ours not in inodes:   # deleted: go on with the oldest that is left
                if not parts or not Path(self.path).exists():
                    return None
                place = len(parts)
            else:
                place = inodes.index(ours)
            if place == 0:
                return None
            if (file := self._open(*parts[place - 1])) is not None:
                return file


def _lines_back(file: io.FileIO, lines: int, *, last: bool) -> tuple[int, int]:
    """(offset of the line that stands `lines` before the end, 0), or (0, how many lines older parts must give).

    last: whether nothing comes after this part, so that a newline at its end begins no other line. The file is left
    at its beginning only when it is empty.
    """
    end = file.seek(0, os.SEEK_END)
    if lines <= 0 or end == 0:
        return end, max(lines, 0)
    missing = lines
    while end > 0:
        begin = max(end - _BLOCK_BYTES, 0)
        file.seek(begin)
        block = file.read(end - begin)
        place = len(block) - (1 if last and block.endswith(b"\n") else 0)
        last = False
        while (place := block.rfind(b"\n", 0, place)) >= 0:
            missing -= 1
            if missing == 0:
                return begin + place + 1, 0
        end = begin
    return 0, missing
