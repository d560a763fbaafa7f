"""What can go wrong, in the four parts a reader needs: what happened, on what, what was kept, what next."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes shared by all four commands."""

    OK = 0
    FAILED = 1
    INVALID_INPUT = 2
    MISSING = 3
    """An environment, a device, a program or a file that is needed is not there."""
    REFUSED = 4
    """Refused for safety."""
    DAMAGED = 5
    """Damaged data found."""
    INTERRUPTED = 6
    """Interrupted; the message is the command that resumes."""


class CleanplateError(Exception):
    """Base of the four packages' error bases; a command prints it in one line and exits with `exit_code`.

    Args:
        message: What happened and on what.
        kept: What was kept or left unchanged, where that is not obvious.
        next_step: What the reader can do about it.
    """

    code = "CP-000"
    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, kept: str = "", next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.kept = kept
        self.next_step = next_step

    def __str__(self) -> str:
        parts = [self.message]
        if self.kept:
            parts.append(f"kept: {self.kept}")
        if self.next_step:
            parts.append(f"next: {self.next_step}")
        return "; ".join(parts)


class InvalidDocumentError(CleanplateError, ValueError):
    """A YAML or JSON document that a person wrote does not fit; the message starts with file:line:column."""

    code = "CP-DOC-001"
    exit_code = ExitCode.INVALID_INPUT


class MissingExtraError(CleanplateError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    code = "CP-ENV-001"
    exit_code = ExitCode.MISSING


class FileRefusedError(CleanplateError, OSError):
    """The system refused a file or folder that a command needs: not there, not allowed, or no space left."""

    code = "CP-FIL-001"
    exit_code = ExitCode.MISSING


class ClusterError(CleanplateError, ConnectionError):
    """The Dask scheduler does not answer."""

    code = "CP-DSK-001"
    exit_code = ExitCode.MISSING


class WorkerLostError(CleanplateError):
    """A process that did a part of the work ended before it was done."""

    code = "CP-WRK-001"


class CatalogError(CleanplateError):
    """Base of everything the catalog raises."""

    code = "CAT-000"


class SessionFolderError(CatalogError):
    """A session folder is not what it should be."""

    code = "CAT-SES-001"
    exit_code = ExitCode.INVALID_INPUT


class SessionNotFoundError(SessionFolderError, FileNotFoundError):
    """No session of that name in the data folder, and no such path."""

    code = "CAT-SES-002"
    exit_code = ExitCode.MISSING


class DamagedDataError(CatalogError):
    """Stored bytes differ from what was recorded about them."""

    code = "CAT-DAM-001"
    exit_code = ExitCode.DAMAGED


def error_classes() -> dict[str, type[CleanplateError]]:
    """Map the code of every error class that is loaded to the class; subclasses without a code are left out."""
    found: dict[str, type[CleanplateError]] = {}
    waiting: list[type[CleanplateError]] = [CleanplateError]
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        if "code" in vars(cls):
            found[cls.code] = cls
    return found
