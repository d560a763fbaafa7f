"""Where rig profiles lie: by path, or by the name of one that ships in `hardware/profiles`."""

from __future__ import annotations

import sys
from pathlib import Path

from catalog.errors import InvalidDocumentError


def shipped_profiles() -> list[Path]:
    """List the profiles that ship: those of the checkout, or those that the wheel brought along."""
    checkout = Path(__file__).parent.parent / "hardware" / "profiles"
    installed = Path(sys.prefix) / "share" / "cleanplate" / "profiles"
    return sorted((checkout if checkout.is_dir() else installed).glob("*.yaml"))


def find_profile(name_or_path: str) -> Path:
    """Resolve a profile's path or shipped name (without suffix) to its file.

    Raises:
        InvalidDocumentError: It looks like a name, but no such profile ships; the message lists those that do.
    """
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} or "/" in name_or_path:
        return path
    shipped = {p.stem: p for p in shipped_profiles()}
    if name_or_path in shipped:
        return shipped[name_or_path]
    raise InvalidDocumentError(
        f"no profile named '{name_or_path}' ships with this version; there are: {', '.join(sorted(shipped))}",
        next_step="give one of these names or the path of a YAML file",
    )
