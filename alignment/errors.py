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


class UnreadablePictureError(AlignmentError, OSError):
    """A file is missing or holds no image that can be decoded."""

    code = "ALN-PIC-002"
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
