"""One control plane a ledger: whoever holds the lock may write, and dies with it.

A lock of the operating system (a file beside SQLite) or of the server (PostgreSQL's advisory locks) goes when its
holder's process or connection goes, so nothing has to be cleaned up after a crash.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path

import sqlalchemy as sa

from serried.errors import BadInput

__all__ = ["FileLock", "claim", "owner_words"]

#: Both statements know the lock by this number: one a schema, so that two fleets can share a database.
_NUMBER = "hashtextextended('serried:' || current_schema(), 0)"


def owner_words() -> str:
    """Who we are, for whoever finds the ledger taken; PostgreSQL cuts names at 63 bytes."""
    return f"serried pid {os.getpid()} on {socket.gethostname()}"[:63]


class FileLock:
    """An advisory lock on a file, whose text says who holds it. Raises BadInput when somebody else does."""

    def __init__(self, path: Path, place: str) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._descriptor, 200, 0).decode("utf-8", "replace").strip()
            os.close(self._descriptor)
            raise taken(place, owner) from None
        os.ftruncate(self._descriptor, 0)
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        os.pwrite(self._descriptor, f"{owner_words()} since {since}\n".encode(), 0)

    def release(self) -> None:
        """Let the next one have it. The file stays: removing it would let two hold locks on two files of one name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def claim(connection: sa.Connection, place: str) -> None:
    """Take PostgreSQL's advisory lock for as long as this connection lives; BadInput names who has it."""
    if connection.scalar(sa.text(f"SELECT pg_try_advisory_lock({_NUMBER})")):
        return
    row = connection.execute(sa.text(
        "SELECT a.application_name, a.client_addr, a.backend_start FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
        f"WHERE l.locktype = 'advisory' AND ((l.classid::bigint << 32) | l.objid::bigint) = {_NUMBER} "
        "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.granted")).first()
    owner = "" if row is None else f"{row[0] or 'a session'} from {row[1] or 'this machine'} since {row[2]:%F %T %z}"
    raise taken(place, owner)


def taken(place: str, owner: str) -> BadInput:
    """What a second control plane is told."""
    return BadInput(field="state", value=place, expected="a ledger that no control plane holds, and "
                    f"{owner or 'another one'} holds this",
                    remedy="Talk to that one (serried jobs), end it (serried down), or name another state or database.")
