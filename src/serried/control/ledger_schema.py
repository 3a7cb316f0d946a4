"""The ledger's tables as this release knows them, and how an older database is brought up to it."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from serried.errors import BadInput

__all__ = ["META", "RECORDS", "SCHEMA", "migrate"]

#: The last step of `migrations`.
SCHEMA = "1"

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
    names = sa.inspect(connection).get_table_names()
    current = None
    if "alembic_version" in names:
        current = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    if current == SCHEMA:
        return   # as nearly always: Alembic takes longer to load than all else takes
    if current is None and names:
        raise BadInput(field="database", value=place, expected="an empty database, or one that serried made; this one "
                       f"holds {', '.join(sorted(names)[:4])}{', ...' if len(names) > 4 else ''}",
                       remedy="Name another database (--database), or another state directory (--state).")
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    steps = ScriptDirectory.from_config(config)
    if current is not None and current not in {step.revision for step in steps.walk_revisions()}:
        raise BadInput(field="database", value=place, expected=f"a ledger of schema {SCHEMA} or older, and this "
                       f"one has schema {current}",
                       remedy="A newer serried wrote it: upgrade serried, or name another state or database.")
    command.upgrade(config, "head")
