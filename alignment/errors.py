"""What alignment can fail at."""

from __future__ import annotations

from catalog.errors import CleanplateError, ExitCode


class AlignmentError(CleanplateError):
    """Base of everything alignment raises."""

    code = "ALN-000"


class PictureFormatError(AlignmentError, ValueError):
    """An image is not RGB of 8 or 16 bits, or two images that belong together differ in size."""

    code = "ALN-PIC-001"
    exit_code = ExitCode.INVALID_INPUT


class NoCommonStructureError(AlignmentError, ArithmeticError):
    """Two frames share too little structure to say how one lies on the other."""

    code = "ALN-REG-001"


class NoOverlapError(AlignmentError, ArithmeticError):
    """What two frames both show is smaller than the smallest crop."""

    code = "ALN-REG-002"


class DecodeError(AlignmentError):
    """A movie or a still cannot be decoded to its end; the message names file and frame reached."""

    code = "ALN-DEC-001"
    exit_code = ExitCode.DAMAGED


class NoMotionError(AlignmentError, ArithmeticError):
    """No uniform motion can be made out in a take."""

    code = "ALN-MOT-001"


class NothingToAlignError(AlignmentError):
    """A session lacks what pairs are made of: a usable ground-truth round and another round."""

    code = "ALN-SES-001"


class MissingRawError(AlignmentError, ImportError):
    """Raw stills cannot be developed because the library for it is not installed."""

    code = "ALN-RAW-001"
    exit_code = ExitCode.MISSING


class BoardPrintError(AlignmentError, ValueError):
    """A marker board cannot be printed as asked: it does not fit, or its markers are taken."""

    code = "ALN-PRT-001"
    exit_code = ExitCode.INVALID_INPUT


class CalibrationNotFoundError(AlignmentError, FileNotFoundError):
    """A calibration that was asked for is not in the data folder."""

    code = "ALN-CAL-001"
    exit_code = ExitCode.INVALID_INPUT


class DamagedCalibrationError(AlignmentError, ValueError):
    """A calibration file does not hold what its name says, or is none."""

    code = "ALN-CAL-002"
    exit_code = ExitCode.DAMAGED


class NothingToCalibrateError(AlignmentError):
    """A session tells nothing about its rig: no round was recorded that a calibration could use."""

    code = "ALN-CAL-003"


class UnwritableError(AlignmentError, OSError):
    """A file that a command was told to write cannot be written."""

    code = "ALN-OUT-001"
    exit_code = ExitCode.MISSING
