"""Where Alembic finds its connection: `ledger_sql` hands it over, inside a transaction of its own."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
