"""The ledger in a database keeps what it acknowledged, belongs to one control plane, and says what is wrong."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

from serried.control import migrations
from serried.control.ledger import LedgerLost, LedgerTaken, MemoryLedger
from serried.control.ledger_schema import SCHEMA
from serried.control.ledger_sql import SqlLedger
from serried.control.migrations import versions
from serried.control.records import CHARTER, Record
from serried.errors import BadInput


def record(seq: int, key: str = "", body: str = "{}") -> Record:
    return Record(seq=seq, time_ns=seq * 10**15, kind="event" if seq % 3 else CHARTER, body=body, key=key)


class Server:
    """A PostgreSQL of our own, which may be stopped and started."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.data, self.programs = folder / "data", programs
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        self.names = 0
        if os.geteuid() == 0:   # PostgreSQL refuses to run as root
            shutil.chown(folder, "postgres")
        self.run("initdb", "-D", self.data, "-A", "trust", "-U", "serried", "--no-sync")
        self.start()

    def run(self, program: str, *words: object) -> None:
        who = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        subprocess.run([*who, self.programs / program, *map(str, words)], check=True, stdout=subprocess.DEVNULL,
                       cwd=self.data.parent, timeout=60)

    def start(self) -> None:
        options = f"-p {self.port} -k {self.data.parent} -c listen_addresses=127.0.0.1 -c shared_buffers=4MB"
        self.run("pg_ctl", "-D", self.data, "-w", "-o", options, "-l", self.data.parent / "log", "start")

    def stop(self, how: str = "immediate") -> None:
        self.run("pg_ctl", "-D", self.data, "-m", how, "-w", "stop")

    def url(self, name: str = "postgres") -> str:
        return f"postgresql://serried@127.0.0.1:{self.port}/{name}"

    def execute(self, text: str) -> None:
        engine = sa.create_engine(self.url().replace("postgresql:", "postgresql+psycopg:"),
                                  isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text(text))

    def new(self) -> str:
        self.names += 1
        self.execute(f"CREATE DATABASE fleet_{self.names}")
        return self.url(f"fleet_{self.names}")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), reverse=True)
    if not found:
        message = "PostgreSQL is not installed (Debian: apt-get install postgresql)"
        (pytest.fail if os.environ.get("SERRIED_SERVERS") == "required" else pytest.skip)(message)
    folder = Path(os.path.realpath("/tmp")) / f"serried-postgres-{os.getpid()}"   # a socket's path must be short
    folder.mkdir(mode=0o700)
    running = Server(found[0].parent, folder)
    yield running
    running.stop()
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state/ledger.db"
    return request.getfixturevalue("server").new()


def test_keeps_what_it_was_given_in_order(url):
    ledger, memory = SqlLedger(url), MemoryLedger()
    for batch in ([record(0, "a", '{"ü": "\\u0000"}')], [record(1), record(2, "b")], [], [record(3)]):
        ledger.append(batch)
        memory.append(batch)
    assert list(ledger.read()) == list(memory.read())
    assert list(ledger.read(after=1)) == memory.records[2:]
    assert ledger.charters() == memory.charters() == [one for one in memory.records if one.kind == CHARTER]
    ledger.close()
    again = SqlLedger(url)
    assert list(again.read()) == memory.records
    again.append([record(4)])
    again.close()


@pytest.mark.parametrize("batch", [[record(3)], [record(1)], [record(2), record(4)], [record(2), record(2)],
                                   [record(2, "a")], [record(2, "x"), record(3, "x")]])
def test_a_gap_a_taken_number_and_a_known_key_change_nothing(url, batch):
    ledger, memory = SqlLedger(url), MemoryLedger()
    for one in (ledger, memory):
        one.append([record(0, "a"), record(1)])
        with pytest.raises(LedgerTaken):
            one.append(batch)
        assert len(list(one.read())) == 2
        one.append([record(2)])
    ledger.close()


def test_a_long_ledger_is_read_in_parts(url, monkeypatch):
    monkeypatch.setattr("serried.control.ledger_sql._FIRST_ROWS", 3)
    monkeypatch.setattr("serried.control.ledger_sql._MOST_ROWS", 7)
    ledger = SqlLedger(url)
    ledger.append([record(seq) for seq in range(28)])
    reading = ledger.read()
    assert next(reading).seq == 0
    ledger.append([record(28)])   # nothing is held while somebody reads
    assert [one.seq for one in reading] == list(range(1, 29))
    ledger.close()


def test_notes_of_the_whole(url):
    ledger = SqlLedger(url)
    assert ledger.get("fleet", "none") == "none"
    ledger.put("fleet", "a")
    ledger.put("fleet", "b")
    assert ledger.get("fleet") == "b"
    ledger.close()


def test_a_second_owner_is_told_who_the_first_is(url):
    first = SqlLedger(url)
    with pytest.raises(BadInput, match=f"pid {os.getpid()} on"):
        SqlLedger(url)
    first.append([record(0)])
    first.close()
    SqlLedger(url).close()


_OWNER = """
import sys
from serried.control.ledger_schema import SCHEMA
from serried.control.ledger_sql import SqlLedger
from serried.control.records import Record
ledger = SqlLedger(sys.argv[1])
for seq in range(10**6):
    ledger.append([Record(seq=seq, time_ns=0, kind="event", body="{}", key=str(seq))])
    print(seq, flush=True)
"""


def test_what_was_acknowledged_outlives_kill_9_and_the_lock_does_not(url):
    owner = subprocess.Popen([sys.executable, "-c", _OWNER, url], stdout=subprocess.PIPE, text=True)
    acknowledged = [int(owner.stdout.readline()) for _ in range(50)][-1]
    owner.send_signal(signal.SIGKILL)
    acknowledged = max([acknowledged, *(int(line) for line in owner.stdout if line.endswith("\n"))])
    owner.wait()
    ledger = _patiently(url)
    assert len(list(ledger.read())) in (acknowledged + 1, acknowledged + 2)   # one may not have been told
    ledger.close()


def _patiently(url: str) -> SqlLedger:
    """PostgreSQL lets go of a dead client's lock within moments."""
    import time
    for _ in range(100):
        try:
            return SqlLedger(url)
        except BadInput:
            time.sleep(0.05)
    return SqlLedger(url)


def test_a_newer_schema_is_refused(url):
    SqlLedger(url).close()
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '99'"))
    engine.dispose()
    with pytest.raises(BadInput, match=r"schema 99.*upgrade serried"):
        SqlLedger(url)


def test_somebody_elses_tables_are_left_alone(url):
    if url.startswith("sqlite"):
        Path(sa.make_url(url).database).parent.mkdir()
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE invoices (id INTEGER)"))
    engine.dispose()
    with pytest.raises(BadInput, match="another"):
        SqlLedger(url)
    with engine.connect() as connection:
        assert sa.inspect(connection).get_table_names() == ["invoices"]
    engine.dispose()


@pytest.mark.parametrize("url", ["mysql://a/b", "ledger.db", "sqlite://", "", "mysql://u:secret@h/x"])
def test_an_unknown_url_is_refused_without_its_password(url):
    with pytest.raises(BadInput, match="--database") as caught:
        SqlLedger(url)
    assert "secret" not in str(caught.value)


def test_a_damaged_file_is_named_and_left_as_it_is(tmp_path):
    path = tmp_path / "ledger.db"
    path.write_bytes(b"SQLite format 3\x00" + os.urandom(8176))
    before = path.read_bytes()
    with pytest.raises(BadInput, match=r"ledger\.db.*Restore a copy"):
        SqlLedger(f"sqlite:///{path}")
    assert path.read_bytes() == before
    path.write_text("not a database, but a letter to a friend " * 200)
    with pytest.raises(BadInput, match="Restore a copy"):
        SqlLedger(f"sqlite:///{path}")


def test_a_page_of_rubbish_in_the_middle_is_found(tmp_path):
    path = tmp_path / "ledger.db"
    ledger = SqlLedger(f"sqlite:///{path}")
    ledger.append([record(seq, str(seq), "x" * 500) for seq in range(500)])
    ledger.close()
    with path.open("r+b") as file:
        file.seek(4096 * 20)
        file.write(os.urandom(4096 * 4))
    with pytest.raises(BadInput, match="Restore a copy"):
        SqlLedger(f"sqlite:///{path}")


def test_a_missing_record_is_a_damaged_ledger(url):
    ledger = SqlLedger(url)
    ledger.append([record(0), record(1), record(2)])
    ledger.close()
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM records WHERE seq = 1"))
    engine.dispose()
    ledger = SqlLedger(url)
    with pytest.raises(BadInput, match="record 1 before 2"):
        list(ledger.read())
    ledger.close()


def test_a_full_disk_is_named_and_nothing_is_lost(tmp_path):
    ledger = SqlLedger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.append([record(0)])
    pages = ledger._connection.exec_driver_sql("PRAGMA page_count").scalar()
    ledger._connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    ledger._connection.commit()
    with pytest.raises(LedgerLost, match=r"disk of .*ledger.db is full"):
        ledger.append([record(1, body="x" * 100_000)])
    ledger.append([record(1)])   # there is room again, as the limit was the connection's
    assert [one.seq for one in ledger.read()] == [0, 1]
    ledger.close()


def test_a_file_removed_or_replaced_underneath_is_noticed(tmp_path):
    path = tmp_path / "ledger.db"
    ledger = SqlLedger(f"sqlite:///{path}")
    ledger.append([record(0)])
    path.rename(tmp_path / "away.db")
    with pytest.raises(LedgerLost, match="removed under its control plane"):
        ledger.append([record(1)])
    sqlite3.connect(path).close()
    path.write_bytes(b"")
    with pytest.raises(LedgerLost, match="replaced"):
        ledger.append([record(1)])
    (tmp_path / "away.db").rename(path)
    ledger.append([record(1)])
    assert len(list(ledger.read())) == 2
    ledger.close()


def test_a_busy_file_is_a_ledger_lost_for_now(tmp_path, monkeypatch):
    monkeypatch.setattr("serried.control.ledger_sql._BUSY_S", 0)
    path = tmp_path / "ledger.db"
    ledger = SqlLedger(f"sqlite:///{path}")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerLost, match="locked"):
        ledger.append([record(0)])
    other.execute("ROLLBACK")
    ledger.append([record(0)])
    ledger.close()


def test_a_terminated_connection_is_lost_once_and_made_again(server):
    ledger = SqlLedger(server.new())
    ledger.append([record(0)])
    server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'serried pid%'")
    with pytest.raises(LedgerLost, match=r"cannot be reached.*Nothing that was acknowledged is lost"):
        ledger.append([record(1)])
    assert [one.seq for one in ledger.read()] == [0]
    ledger.append([record(1)])
    ledger.close()


def test_another_owner_in_the_meantime_is_not_overwritten(server):
    url = server.new()
    first = SqlLedger(url)
    server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'serried pid%'")
    second = SqlLedger(url)
    second.append([record(0)])
    with pytest.raises(LedgerLost):
        first.append([record(0)])
    with pytest.raises(LedgerTaken, match="pid"):
        first.append([record(0)])
    second.close()
    first.close()


def test_a_stopped_server_is_lost_and_found(server):
    ledger = SqlLedger(server.new())
    ledger.append([record(0), record(1)])
    server.stop()
    try:
        for _ in range(3):
            with pytest.raises(LedgerLost):
                ledger.append([record(2)])
        with pytest.raises(LedgerLost):
            SqlLedger(server.url("fleet_1"))
    finally:
        server.start()
    ledger.append([record(2)])
    assert [one.seq for one in ledger.read()] == [0, 1, 2]
    ledger.close()


def test_a_wrong_name_is_bad_input(server):
    with pytest.raises(BadInput, match="does not exist"):
        SqlLedger(server.url("nowhere"))


def test_every_step_is_in_its_table():
    for package, table in ((migrations, migrations.LOADED), (versions, versions.STEPS)):
        files = {path.stem for path in Path(package.__file__).parent.glob("*.py")} - {"__init__"}
        assert files == set(table)
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA
