"""Turn sessions into pairs of frames that show the same view to a few hundredths of a pixel.

`align_session` does a whole session folder, `measure` any two pictures. Both are loaded when first used, so
that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignment.misalignment import measure
    from alignment.pairing import AlignmentOptions, align_session

__all__ = ["AlignmentOptions", "align_session", "measure"]

_HOMES = {
    "align_session": "alignment.pairing",
    "AlignmentOptions": "alignment.pairing",
    "measure": "alignment.misalignment",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
