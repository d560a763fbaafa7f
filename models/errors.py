"""What can go wrong in the models package; the CLI prints each in one line and exits with its code."""

from __future__ import annotations

from catalog.errors import CleanplateError, ExitCode


class ModelError(CleanplateError):
    """Base of everything the models package raises."""

    code = "MOD-000"


class UnknownModelError(ModelError, ValueError):
    """No model, or no configuration of a model, of that name."""

    code = "MOD-REG-001"
    exit_code = ExitCode.INVALID_INPUT


class NoPairsError(ModelError, ValueError):
    """An export holds no pair that fits what was asked for."""

    code = "MOD-DAT-001"
    exit_code = ExitCode.INVALID_INPUT


class UnfitPairError(ModelError, ValueError):
    """A pair cannot be used: its two images differ in size, or it is smaller than the training patch."""

    code = "MOD-DAT-002"
    exit_code = ExitCode.INVALID_INPUT


class DamagedImageError(ModelError, ValueError):
    """An image file is missing, truncated, of an unknown kind, or differs from its recorded checksum."""

    code = "MOD-DAT-003"
    exit_code = ExitCode.DAMAGED


class RunExistsError(ModelError, FileExistsError):
    """A training run of that name is there already."""

    code = "MOD-RUN-001"
    exit_code = ExitCode.INVALID_INPUT


class RunNotFoundError(ModelError, FileNotFoundError):
    """No training run or checkpoint of that name, or nothing saved in it yet."""

    code = "MOD-RUN-002"
    exit_code = ExitCode.MISSING


class ResumeRefusedError(ModelError, ValueError):
    """A run cannot be continued, because its configuration or its export changed."""

    code = "MOD-RUN-003"
    exit_code = ExitCode.INVALID_INPUT


class CheckpointError(ModelError, ValueError):
    """A checkpoint is damaged, foreign, or does not fit the network it names."""

    code = "MOD-CKP-001"
    exit_code = ExitCode.DAMAGED


class NoValueError(ModelError, ValueError):
    """A picture gives a measure nothing to judge; the evaluation goes on and says so."""

    code = "MOD-EVL-001"
    exit_code = ExitCode.INVALID_INPUT


class DivergedError(ModelError, ArithmeticError):
    """Training produced no finite gradient for many steps in a row."""

    code = "MOD-TRN-001"


class StorageError(ModelError, OSError):
    """The disk refused a write; the last complete checkpoint is untouched."""

    code = "MOD-TRN-002"


class TrainingInterruptedError(ModelError):
    """Training was stopped by a signal and saved; the message is the command that resumes."""

    code = "MOD-TRN-003"
    exit_code = ExitCode.INTERRUPTED


class DeviceMissingError(ModelError, LookupError):
    """The device that was asked for does not exist on this machine."""

    code = "MOD-DEV-001"
    exit_code = ExitCode.MISSING


class DeviceMemoryError(ModelError, MemoryError):
    """The memory of a device is too small for what was asked of it."""

    code = "MOD-DEV-002"
