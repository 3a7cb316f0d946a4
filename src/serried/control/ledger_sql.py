"""The ledger in a database: SQLite beside the control plane, or PostgreSQL by URL.

A record that `append` returned for has reached the disk: SQLite writes ahead with synchronous=FULL, PostgreSQL with its
own synchronous_commit. One connection does everything and holds the lock that makes us the owner, so that it cannot be
lost while another one still writes.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.pool import NullPool

from serried.control.ledger import LedgerLost, LedgerTaken
from serried.control.ledger_schema import META, RECORDS, migrate
from serried.control.ownership import FileLock, claim, owner_words
from serried.control.records import CHARTER, Record
from serried.errors import BadInput

__all__ = ["SqlLedger"]

_BUSY_S = 5
_FIRST_ROWS, _MOST_ROWS = 16, 10_000
#: Marks an SQLite file as ours ("SERR"), so that a damaged one is told from somebody else's.
_APPLICATION_ID = 0x53455252
_POSTGRES_WORDS = {
    "connect_timeout": 5, "application_name": "", "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3,
    "tcp_user_timeout": 10_000,   # ms; a server that is gone without a word is noticed
    # the server notices likewise that we are gone, and gives the lock up; a transaction never waits for ever
    "options": "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3 "
               "-c statement_timeout=15s -c synchronous_commit=on"}


class SqlLedger:
    """A `Ledger` in the database of `url` (sqlite:///FILE, postgresql://...), owned until it is closed.

    Raises BadInput when the database is somebody else's, is damaged, was made by a newer release, or is held by another
    control plane; LedgerLost when it cannot be reached. After LedgerLost it connects again by itself when it is next
    asked; only a ledger that nobody took meanwhile goes on.
    """

    def __init__(self, url: str) -> None:
        self._url = _url(url)
        self._path = Path(self._url.database or "") if self._url.get_backend_name() == "sqlite" else None
        self.place = str(self._path or self._url.set(drivername="postgresql"))
        self._mutex = threading.RLock()
        self._connection: sa.Connection | None = None
        self._lock: FileLock | None = None
        self._inode = 0
        self._last = -1
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self._path.with_name(self._path.name + ".lock"), self.place)
            try:
                # before SQLite does: its other files then get the same rights, and none can read everybody's commands
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
                _refuse_damaged(self._path)
            except BaseException:
                self._lock.release()
                raise
        self._engine = _sqlite(self._url) if self._path else _postgres(self._url)
        try:
            with self._work(opening=True):
                pass
        except BaseException:
            self.close()
            raise

    def read(self, after: int = -1) -> Iterator[Record]:
        """Records of a number above `after`, in order; BadInput where one is missing."""
        most = _FIRST_ROWS   # who wants one record does not wait for thousands
        while True:
            with self._work() as connection:
                rows = connection.execute(sa.select(
                    RECORDS.c.seq, RECORDS.c.time_ns, RECORDS.c.kind, RECORDS.c.body, RECORDS.c.key,
                ).where(RECORDS.c.seq > after).order_by(RECORDS.c.seq).limit(most)).all()
            for seq, time_ns, kind, body, key in rows:
                if seq != after + 1:
                    raise BadInput(field="database", value=self.place, expected=f"record {after + 1} before {seq}",
                                   remedy="The ledger is damaged: restore a copy of it.")
                yield Record(seq=seq, time_ns=time_ns, kind=kind, body=body, key=key)
                after = seq
            if len(rows) < most:
                return
            most = min(most * 8, _MOST_ROWS)

    def charters(self) -> list[Record]:
        """The records of that kind, in order."""
        with self._work() as connection:
            rows = connection.execute(sa.select(
                RECORDS.c.seq, RECORDS.c.time_ns, RECORDS.c.kind, RECORDS.c.body, RECORDS.c.key,
            ).where(RECORDS.c.kind == CHARTER).order_by(RECORDS.c.seq)).all()
        return [Record(seq=seq, time_ns=time_ns, kind=kind, body=body, key=key)
                for seq, time_ns, kind, body, key in rows]

    def append(self, records: Sequence[Record]) -> None:
        """All of these or none, on the disk when this returns. Raises LedgerLost or LedgerTaken."""
        if not records:
            return
        with self._work() as connection:
            self._refuse_another_file()
            if [record.seq for record in records] != list(range(self._last + 1, self._last + 1 + len(records))):
                raise LedgerTaken(f"Record {records[0].seq} does not follow record {self._last} of {self.place}.",
                                  remedy="Read the ledger again.")
            connection.execute(sa.insert(RECORDS), [
                {"seq": record.seq, "time_ns": record.time_ns, "kind": record.kind, "key": record.key,
                 "body": record.body} for record in records])
        self._last = records[-1].seq

    def get(self, name: str, default: str = "") -> str:
        """What was noted under a name."""
        with self._work() as connection:
            found = connection.scalar(sa.select(META.c.value).where(META.c.name == name))
        return default if found is None else str(found)

    def put(self, name: str, value: str) -> None:
        """Note something of the ledger as a whole (when it was made, for which fleet)."""
        with self._work() as connection:
            connection.execute(sa.delete(META).where(META.c.name == name))
            connection.execute(sa.insert(META).values(name=name, value=value))

    def close(self) -> None:
        """Let go of the database and of the lock."""
        with self._mutex:
            self._drop()
            if self._lock:
                self._lock.release()

    @contextmanager
    def _work(self, *, opening: bool = False) -> Iterator[sa.Connection]:
        """One transaction, with what may go wrong in it told in our own words."""
        with self._mutex:
            try:
                if self._connection is None:
                    self._connection = self._opened(again=not opening)
                with self._connection.begin():
                    yield self._connection
            except IntegrityError as error:
                self._drop()   # what we took for the end is not; the next one asks
                raise LedgerTaken(f"A record of {self.place} has the number or the key of a new one.",
                                  remedy="Read the ledger again.") from error
            except DBAPIError as error:
                self._drop()
                raise self._explained(error, opening=opening) from error

    def _opened(self, *, again: bool) -> sa.Connection:
        connection = self._engine.connect()
        try:
            with connection.begin():
                if self._path is None:
                    try:
                        claim(connection, self.place)
                    except BadInput as error:
                        if again:
                            raise LedgerTaken(str(error)) from error
                        raise
                elif again:
                    self._refuse_another_file()
                migrate(connection, self.place)
                last = connection.scalar(sa.select(sa.func.max(RECORDS.c.seq)))
        except BaseException:
            connection.close()
            raise
        self._last = -1 if last is None else int(last)
        if self._path and not again:
            self._inode = self._path.stat().st_ino
        return connection

    def _drop(self) -> None:
        """Close the connection; PostgreSQL then gives our lock up."""
        if self._connection is not None:
            with suppress(sa.exc.SQLAlchemyError):   # it may be dead already
                self._connection.invalidate()
                self._connection.close()
            self._connection = None

    def _refuse_another_file(self) -> None:
        """SQLite goes on writing to a file that was removed, and all of that would be lost."""
        if self._path is not None:
            try:
                inode = self._path.stat().st_ino
            except FileNotFoundError:
                inode = -1
            if inode != self._inode:
                raise LedgerLost(f"{self.place} was {'removed' if inode < 0 else 'replaced'} under its control plane.",
                                 remedy="Put it back, or end the control plane (serried down) and start it again.")

    def _explained(self, error: DBAPIError, *, opening: bool) -> Exception:
        """A driver's error in our own words."""
        said = str(error.orig).strip().splitlines()[0] if error.orig and str(error.orig).strip() else str(error)
        if "not a database" in said or "malformed" in said:
            return _damaged(self.place, said)
        if "is full" in said or "No space left" in said:
            return LedgerLost(f"The disk of {self.place} is full.", binding="disk",
                              remedy="Free some: nothing that was acknowledged is lost, and it goes on by itself.")
        if opening and self._path is None and any(word in said for word in _REFUSALS):
            return BadInput(field="--database", value=self.place, expected=f"a database that lets us in: {said}",
                            remedy="Mend the user, password or name in the URL.")
        remedy = "Start it, or mend the URL." if opening else \
            "Nothing that was acknowledged is lost; it is tried again by itself."
        return LedgerLost(f"The database {self.place} cannot be reached or written: {said}.", binding="database",
                          remedy=remedy)


#: What PostgreSQL says when asking again would not help.
_REFUSALS = ("password authentication", "does not exist", "no pg_hba.conf", "permission denied", "no password")


def _refuse_damaged(path: Path) -> None:
    """Read the whole of an SQLite file once, before anything is changed in it."""
    if not path.exists() or not path.stat().st_size:
        return
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY_S)) as connection:
            owner = connection.execute("PRAGMA application_id").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise _damaged(str(path), str(error)) from error
    if owner not in (0, _APPLICATION_ID) or (owner == 0 and tables):
        raise BadInput(field="database", value=str(path), expected="an SQLite file that serried made",
                       remedy="It belongs to another program: name another file or another state directory.")
    if verdict != "ok":
        raise _damaged(str(path), str(verdict))


def _damaged(place: str, said: str) -> BadInput:
    return BadInput(field="database", value=place, expected=f"a sound SQLite file ({said})",
                    remedy="Restore a copy of it, try `sqlite3 FILE .recover`, or start anew in another state "
                           "directory; the file was left as it is.")


def _url(text: str) -> sa.URL:
    try:
        url = sa.make_url(text)
    except sa.exc.ArgumentError:
        url = sa.URL.create("")
    name = url.drivername.partition("+")[0]
    if name == "sqlite" and url.database and url.database != ":memory:":
        return url.set(drivername="sqlite")
    if name in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    raise BadInput(field="--database", value=text.partition("@")[2] or text, expected="sqlite:///FILE or "
                   "postgresql://USER:PASSWORD@HOST/NAME", remedy="Leave it out for a file in the state directory.")


def _sqlite(url: sa.URL) -> sa.Engine:
    # isolation_level None leaves BEGIN to us: else Python's sqlite3 would take DDL out of the transaction
    engine = sa.create_engine(url, poolclass=NullPool, connect_args={
        "timeout": _BUSY_S, "check_same_thread": False, "isolation_level": None})

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: object) -> None:
        for pragma in (f"busy_timeout = {_BUSY_S * 1000}", "journal_mode = WAL", "synchronous = FULL",
                       f"application_id = {_APPLICATION_ID}"):
            connection.execute(f"PRAGMA {pragma}").fetchall()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _postgres(url: sa.URL) -> sa.Engine:
    words = {**_POSTGRES_WORDS, "application_name": owner_words()}
    return sa.create_engine(url, poolclass=NullPool, connect_args={
        name: value for name, value in words.items() if name not in url.query})
