"""Remember, query and export what was captured; owns the vocabulary and the files on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.store import Catalog

__all__ = ["Catalog"]


def __getattr__(name: str) -> object:
    """Load `Catalog` when it is asked for: the database libraries do not burden other imports."""
    if name != "Catalog":
        raise AttributeError(f"module 'catalog' has no attribute {name!r}")
    from catalog.store import Catalog

    return Catalog
