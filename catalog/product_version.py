"""The version that runs here, as exports and runs note it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def product_version() -> str:
    """Return the installed version, ``unknown`` in a source tree that is not installed."""
    try:
        return version("cleanplate")
    except PackageNotFoundError:
        return "unknown"
