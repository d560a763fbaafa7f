"""Drive the capture rig and record sessions.

`RigProfile` and `CapturePlan` are read from YAML, `Rig` opens what a profile names, `SessionRunner` records a plan on
it. All four load when they are first used, so that ``import rig`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rig.assembly import Rig
    from rig.plan import CapturePlan
    from rig.profile import RigProfile
    from rig.runner import SessionRunner

__all__ = ["CapturePlan", "Rig", "RigProfile", "SessionRunner"]

_HOME = {
    "CapturePlan": "rig.plan",
    "Rig": "rig.assembly",
    "RigProfile": "rig.profile",
    "SessionRunner": "rig.runner",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'rig' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
