"""`catalog rebuild`: make the database anew from session folders, beside the old one.

Session folders hold all that was captured. What people decided, splits and the lists of exports live in the
database alone; they are carried over where the old one can still be read. The old file is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from catalog.bulk import ROWS_AT_ONCE, bulk_insert
from catalog.database import DamagedDatabaseError, Database
from catalog.session_folder import list_sessions
from catalog.tables import Event, Export, ExportItem, Session, Split, SplitMember, table_of

_CARRIED = tuple(table_of(entity) for entity in (Event, Split, SplitMember, Export, ExportItem))
Advance = Callable[[float], None]


@dataclass(frozen=True)
class RebuildReport:
    """What a rebuild did."""

    sessions: tuple[str, ...]
    problems: tuple[str, ...]
    """Session folders that could not be added, and files that are missing or damaged."""
    carried_over: bool
    """Whether decisions, splits and export lists of the old catalog live on."""
    content_sha256_before: str | None
    """None where the old catalog could not be read, or there was none."""
    content_sha256: str
    backup: str | None
    """Where the old catalog is kept."""


def is_readable(database: Database) -> bool:
    """Tell whether there is an old catalog whose rows can be carried over.

    Raises:
        ForeignDatabaseError: The file is not a catalog, so it must not be replaced.
        SchemaVersionError: It was written by a newer version, or needs a migration first.
    """
    try:
        if database.state() == "absent":
            return False
        database.require_current()
        return database.damage() is None
    except DamagedDatabaseError:
        return False


def carry_over(old: Database, new: Database) -> None:
    """Copy decisions, splits and export lists; they refer to pairs and scenes by name."""
    with old.read() as reading, new.write() as writing:
        for table in _CARRIED:
            # In order, since an event comes before the one that takes it back.
            ordered = select(table).order_by(*table.primary_key)
            rows = reading.execute(ordered, execution_options={"yield_per": ROWS_AT_ONCE})
            bulk_insert(writing, table, (dict(row) for row in rows.mappings()))
        new.restart_keys(writing)


def session_places(database: Database | None, data: Path) -> list[Path]:
    """List the session folders of the data folder, and those elsewhere that the old catalog knew."""
    places = [folder.path for folder in list_sessions(data)]
    if database is not None:
        with database.read() as connection:
            known = connection.execute(select(table_of(Session).c.location)).scalars()
            places += [data / location for location in known]
    return list(dict.fromkeys(path.absolute() for path in places))
