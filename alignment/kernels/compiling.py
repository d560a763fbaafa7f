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
    """Compile into the kernels that call it.

    Called as a function it would be another in the process that compiles than in those that read kernels back, and
    round sums otherwise: equal pairs would not be equal bytes.
    """
    return cast("Kernel", numba.jit(forceinline=True, **_OPTIONS)(function))
