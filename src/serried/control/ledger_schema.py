"""The ledger's tables as this release knows them, and how an older database is brought up to it."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from serried.errors import BadInput

__all__ = ["META", "RECORDS", "migrate"]

_TABLES = sa.MetaData()
RECORDS = sa.Table(
    "records", _TABLES,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("time_ns", sa.BigInteger), sa.Column("kind", sa.Text), sa.Column("key", sa.Text),
    sa.Column("body", sa.Text))
META = sa.Table("meta", _TABLES, sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.Text))


def migrate(connection: sa.Connection, place: str) -> None:
    """Bring the tables up to this release, in the transaction that is open on the connection.

    Raises BadInput when a newer release made them, or when they are somebody else's; `place` names the database.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    steps = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    known = {step.revision for step in steps.walk_revisions()}
    if current is None:
        _refuse_foreign(connection, place)
    elif current not in known:
        raise BadInput(field="database", value=place, expected=f"a ledger of schema {steps.get_current_head()} or "
                       f"older, and this one has schema {current}",
                       remedy="A newer serried wrote it: upgrade serried, or name another state or database.")
    if current != steps.get_current_head():
        command.upgrade(config, "head")


def _refuse_foreign(connection: sa.Connection, place: str) -> None:
    """BadInput when tables stand here that no serried made."""
    found = sorted(sa.inspect(connection).get_table_names())
    if found:
        raise BadInput(field="database", value=place, expected="an empty database, or one that serried made; this one "
                       f"holds {', '.join(found[:4])}{', ...' if len(found) > 4 else ''}",
                       remedy="Name another database (--database), or another state directory (--state).")
