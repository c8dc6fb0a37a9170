"""From an address to a store."""

from __future__ import annotations

from typing import Any

from headgate.errors import OptionError
from headgate.eventlog.store import Store


def make_store(url: str, schema: str, **options: Any) -> Store:
    """Return the store of an address, which is not open yet.

    Args:
        url: A path, ``":memory:"``, ``sqlite:///PATH`` or ``postgresql://...``.
        schema: PostgreSQL: where our tables are.
        **options: Of the store.
    """
    if not isinstance(url, str) or not url:
        raise OptionError("EventLog", "url", "a path, ':memory:' or postgresql://...", url)
    if url.startswith(("postgresql:", "postgres:")):
        from headgate.eventlog.postgres import PostgresStore  # noqa: PLC0415 (an extra)

        return PostgresStore(url, schema=schema, **options)
    from headgate.eventlog.sqlite import SqliteStore  # noqa: PLC0415 (who uses PostgreSQL needs no sqlite3)

    return SqliteStore(url.removeprefix("sqlite:///") if url.startswith("sqlite:") else url, **options)
