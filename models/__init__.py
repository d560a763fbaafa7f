"""Image-restoration systems and the one loop that trains them; needs an export, not a rig."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.base import Degrader, RestorationBatch, Restorer
    from models.loading import load

__all__ = ["Degrader", "RestorationBatch", "Restorer", "load"]

_HOMES = {
    "Degrader": "models.base",
    "RestorationBatch": "models.base",
    "Restorer": "models.base",
    "load": "models.loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'models' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
