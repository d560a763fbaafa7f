"""What the rig raises; every class has a stable code that `rig help CODE` explains."""

from __future__ import annotations

from catalog.errors import CleanplateError, ExitCode


class RigError(CleanplateError):
    """Base of everything the rig raises."""

    code = "RIG-000"


class DeviceError(RigError):
    """A device failed or answered something that makes no sense."""

    code = "RIG-DEV-001"


class DeviceTimeoutError(DeviceError, TimeoutError):
    """A device did not answer in time."""

    code = "RIG-DEV-002"


class DeviceNotFoundError(DeviceError, FileNotFoundError):
    """No such device is connected."""

    code = "RIG-DEV-003"
    exit_code = ExitCode.MISSING


class DeviceBusyError(DeviceError):
    """Another program holds the device."""

    code = "RIG-DEV-004"
    exit_code = ExitCode.MISSING


class SettingRefusedError(DeviceError, ValueError):
    """A device did not take a setting, or reads back another one."""

    code = "RIG-DEV-005"
    exit_code = ExitCode.INVALID_INPUT


class RailLockedError(DeviceError):
    """The rail is in alarm or its position is unknown: nothing moves before unlock and homing."""

    code = "RIG-RAIL-001"
    exit_code = ExitCode.REFUSED


class MotionStoppedError(DeviceError):
    """A motion was held before its end; the position is kept, the motion is not resumed."""

    code = "RIG-RAIL-002"


class EnvelopeError(RigError, ValueError):
    """A motion was asked for that leaves the allowed travel, speed or acceleration."""

    code = "RIG-SAFE-001"
    exit_code = ExitCode.REFUSED


class NotArmedError(RigError):
    """Motion on a real rig needs the operator's word."""

    code = "RIG-SAFE-002"
    exit_code = ExitCode.REFUSED


class PlanError(RigError, ValueError):
    """A plan and a profile do not fit each other."""

    code = "RIG-PLAN-001"
    exit_code = ExitCode.INVALID_INPUT


class DiskSpaceError(RigError):
    """Not enough free space for what is planned."""

    code = "RIG-DISK-001"
    exit_code = ExitCode.MISSING


class StorageError(RigError, OSError):
    """The disk did not take what was to be written: it is full, over quota, read-only or failing."""

    code = "RIG-DISK-002"
    exit_code = ExitCode.MISSING


class RigBusyError(RigError):
    """Another engine holds this rig or this session."""

    code = "RIG-LOCK-001"
    exit_code = ExitCode.MISSING


class TakeVoidError(RigError):
    """A take was spoiled; it is kept and numbered, and can be redone."""

    code = "RIG-TAKE-001"


class TakeStoppedError(TakeVoidError):
    """A take was ended by the operator before its end; it is void, the carriage was slowed down and held."""

    code = "RIG-TAKE-002"


class GuardError(RigError):
    """A guard of the plan failed, or a take was spoiled, and the session was not to go on like that."""

    code = "RIG-TAKE-003"


class CameraLostError(DeviceError):
    """A camera went away in the middle of a session; it is looked for by its serial number."""

    code = "RIG-DEV-006"


class OtherDeviceError(DeviceNotFoundError):
    """A device answers at the expected place, but it is another one than before."""

    code = "RIG-DEV-007"


class SessionInterruptedError(RigError):
    """A session stopped before its end; `next_step` is the command that resumes it."""

    code = "RIG-SES-001"
    exit_code = ExitCode.INTERRUPTED


class MoveInterruptedError(RigError):
    """A move by hand, or a check of the rig, was stopped before its end."""

    code = "RIG-HAND-001"
    exit_code = ExitCode.INTERRUPTED


class FootageError(RigError, ValueError):
    """Recordings made elsewhere cannot be imported as they are."""

    code = "RIG-IMP-001"
    exit_code = ExitCode.INVALID_INPUT


class SceneError(RigError, ValueError):
    """The simulated world cannot be built: no usable photographs, or an unknown condition or level."""

    code = "RIG-SIM-001"
    exit_code = ExitCode.INVALID_INPUT


class UnknownCodeError(RigError, ValueError):
    """`rig help` was asked for a code that no error has."""

    code = "RIG-HELP-001"
    exit_code = ExitCode.INVALID_INPUT


class OperatorNeededError(RigError):
    """The session cannot go on without a person, and nobody can be asked."""

    code = "RIG-OPER-001"
    exit_code = ExitCode.REFUSED


class EngineError(RigError):
    """The engine cannot be reached, or it broke off the conversation."""

    code = "RIG-ENG-001"
    exit_code = ExitCode.MISSING


class CommandRefusedError(RigError):
    """The engine did not carry out a command; nothing moved because of it."""

    code = "RIG-ENG-002"
    exit_code = ExitCode.REFUSED


class UnforeseenError(RigError):
    """Something failed that nobody foresaw: a fault of this program, or a computer out of memory or processes.

    What was being done has ended and the carriage was told to stop. Every take recorded so far is kept. Tell the
    authors the message and, with `--debug`, the lines above it.
    """

    code = "RIG-ENG-003"


class WordError(RigError, ValueError):
    """A word typed at the plain terminal UI lacks something, or there is nothing that it could mean now."""

    code = "RIG-TUI-002"
    exit_code = ExitCode.INVALID_INPUT


class TerminalNeededError(RigError):
    """The operator's UI was started where there is no terminal."""

    code = "RIG-TUI-001"
    exit_code = ExitCode.MISSING
