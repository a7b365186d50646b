"""Alembic's entry: runs migrations on the connection it is handed, or on the database of the settings."""

from alembic import context
from sqlalchemy import Connection

from skewless.registry.database import migrating
from skewless.registry.schema import Base


def _url() -> str:
    given = context.get_x_argument(as_dictionary=True).get("url")
    if given is not None:
        return given
    # Only a contributor's command line asks the settings; a program that hands over its connection has its own.
    from skewless.settings import Settings, load_settings

    return load_settings(Settings).registry_url


def _migrate(connection: Connection) -> None:
    # SQLite cannot alter a column in place: batch mode rebuilds the table there.
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()


def _print_sql() -> None:
    context.configure(url=_url(), target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def _run() -> None:
    if context.is_offline_mode():
        _print_sql()
        return
    handed: Connection | None = context.config.attributes.get("connection")
    if handed is not None:
        _migrate(handed)
        return
    with migrating(_url()) as connection:
        _migrate(connection)


_run()
