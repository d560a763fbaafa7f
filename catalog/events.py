"""The append-only log of the catalog: who did what to which pair, session, split or export, and why."""

from __future__ import annotations

import getpass
import json
import platform
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from catalog.bulk import bulk_insert
from catalog.tables import Event, table_of


def _actor() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


@dataclass(frozen=True)
class Batch:
    """The events of one command: same time, same person, one shared name."""

    reason: str = ""
    name: str = field(default_factory=lambda: f"{time.time_ns() // 1000:x}-{uuid.uuid4().hex[:8]}")

    def record(
        self,
        connection: Connection,
        kind: str,
        subjects: Iterable[tuple[str, str | None, Mapping[str, Any]]],
    ) -> None:
        """Append one event per subject: its name, its session, and further columns."""
        common = {
            "t_utc_us": time.time_ns() // 1000,
            "actor": _actor(),
            "machine": platform.node(),
            "kind": kind,
            "reason": self.reason,
            "batch": self.name,
            "before": None,
            "after": None,
            "undoes": None,
        }
        rows = ({**common, "subject": name, "session": session, **more} for name, session, more in subjects)
        bulk_insert(connection, table_of(Event), rows)


def as_json(value: Mapping[str, Any]) -> str:
    """Render what stood or stands, keys sorted."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
