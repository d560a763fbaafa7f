"""Where networks run: found by name, and what to say when there is no such device or its memory is too small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from models.errors import DeviceMemoryError, DeviceMissingError

_PROCESSOR_IS_FULL = "DefaultCPUAllocator"
"""Torch has an error of its own for the memory of a GPU, and for the computer's only these words."""


def named_device(name: str) -> torch.device:
    """Return the device that a name such as ``cpu``, ``cuda`` or ``cuda:1`` stands for, here or elsewhere.

    Raises:
        DeviceMissingError: That is no name of a device.
    """
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise _missing(name, error) from error


def find_device(name: str) -> torch.device:
    """Return the device of a name, if this machine has it.

    Raises:
        DeviceMissingError: No such device here.
    """
    device = named_device(name)
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise _missing(name, error) from error
    return device


def _missing(name: str, error: Exception) -> DeviceMissingError:
    others = ", or cuda" if torch.cuda.is_available() else ""
    return DeviceMissingError(
        f"device {name}: {str(error).splitlines()[0]}", next_step=f"give --device cpu{others}"
    )


@contextmanager
def memory_told(what: str, *, next_step: str, kept: str = "") -> Iterator[None]:
    """Say in our words that a device has too little memory for what the block does.

    Raises:
        DeviceMemoryError: In place of torch's own error.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and _PROCESSOR_IS_FULL not in str(error):
            raise
        raise DeviceMemoryError(f"{what} does not fit into memory", kept=kept, next_step=next_step) from error
