"""How kernels are compiled and kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

_OPTIONS: dict[str, Any] = {
    "nopython": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
}


def compiled(*signatures: str) -> Callable[[Kernel], Kernel]:
    """Compile for every signature, at import; a second process finds the machine code in the cache."""

    def compile_kernel(function: Kernel) -> Kernel:
        try:
            return cast("Kernel", numba.jit(list(signatures), cache=True, **_OPTIONS)(function))
        except (RuntimeError, OSError):  # nowhere to keep it: no folder can be written, or the disk is full
            return cast("Kernel", numba.jit(list(signatures), **_OPTIONS)(function))

    return compile_kernel


def part(function: Kernel) -> Kernel:
    """Compile as a part of the kernels that call it."""
    return cast("Kernel", numba.jit(**_OPTIONS)(function))
