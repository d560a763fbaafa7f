"""Calibrations in a data folder: ``calibrations/<rig>/<hash>.json``, the name being the sha256 of the bytes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from alignment.calibration.document import Calibration
from alignment.errors import CalibrationNotFoundError, DamagedCalibrationError
from catalog.session_folder import replace_file

CALIBRATIONS_FOLDER = "calibrations"
PLAN = "hardware/plans/calibration.yaml"
"""The plan that records all that a calibration wants."""
_HASH = re.compile(r"[0-9a-f]{6,64}")
UnusableCalibration = CalibrationNotFoundError | DamagedCalibrationError


@dataclass(frozen=True)
class StoredCalibration:
    """A calibration with the name it is known by."""

    hash: str
    """sha256 of the file's bytes, 64 hex digits."""
    path: Path
    calibration: Calibration


def store_calibration(calibration: Calibration, data: Path) -> StoredCalibration:
    """Write a calibration into a data folder; the same one again changes nothing."""
    text = calibration.model_dump_json(by_alias=True, indent=1) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    path = _folder(data, calibration.rig) / f"{digest}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.encode())
    return StoredCalibration(digest, path, calibration)


def keep_calibration(stored: StoredCalibration, data: Path) -> StoredCalibration:
    """Put a calibration's file into a data folder as it is: one that an older version wrote keeps its name."""
    path = _folder(data, stored.calibration.rig) / f"{stored.hash}.json"
    if path != stored.path:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, stored.path.read_bytes())
    return replace(stored, path=path)


def load_calibration(path: Path) -> StoredCalibration:
    """Read a calibration file.

    Raises:
        CalibrationNotFoundError: There is no such file.
        DamagedCalibrationError: It is no calibration, or its bytes are not those it is named after.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CalibrationNotFoundError(
            f"{path}: the calibration cannot be read ({error.strerror})", next_step=_RECORD
        ) from error
    digest = hashlib.sha256(raw).hexdigest()
    if re.fullmatch(r"[0-9a-f]{64}", path.stem) and path.stem != digest:
        raise DamagedCalibrationError(
            f"{path}: the bytes are not those of the name",
            next_step="measure again: alignment calibrate SESSION",
        )
    try:
        return StoredCalibration(digest, path, Calibration.model_validate_json(raw))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "document"
        raise DamagedCalibrationError(
            f"{path}: not a calibration ({where}: {first['msg']})",
            next_step="measure again: alignment calibrate SESSION",
        ) from None


_RECORD = f"rig record {PLAN} --profile PROFILE, then alignment calibrate SESSION"


def find_calibration(name_or_path: str, *, data: Path, rig: str) -> StoredCalibration:
    """Find a calibration by its hash (six digits or more) among those of a rig, or by its path.

    Raises:
        CalibrationNotFoundError: None fits, or several do.
        DamagedCalibrationError: As `load_calibration`.
    """
    if not _HASH.fullmatch(name_or_path):
        return load_calibration(Path(name_or_path))
    found = sorted(_folder(data, rig).glob(f"{name_or_path}*.json"))
    if len(found) != 1:
        what = "no calibration" if not found else f"{len(found)} calibrations"
        raise CalibrationNotFoundError(
            f"{what} of rig '{rig}' begin with {name_or_path} in {_folder(data, rig)}", next_step=_RECORD
        )
    return load_calibration(found[0])


def newest_calibration(
    data: Path, rig: str, *, ignored: Callable[[UnusableCalibration], None] | None = None
) -> StoredCalibration | None:
    """Return the calibration of a rig that was recorded last; None where there is none.

    Args:
        data: The data folder.
        rig: Name of the rig.
        ignored: Hears of each file that cannot be used and is passed over; None for raising instead.

    Raises:
        DamagedCalibrationError: A file among them is damaged: which one is in force cannot be told.
    """
    found = _loaded(sorted(_folder(data, rig).glob("*.json")), ignored)
    return max(found, key=lambda c: (c.calibration.recorded_utc_us, c.hash), default=None)


def _loaded(
    paths: Iterable[Path], ignored: Callable[[UnusableCalibration], None] | None
) -> Iterator[StoredCalibration]:
    for path in paths:
        try:
            yield load_calibration(path)
        except (CalibrationNotFoundError, DamagedCalibrationError) as error:
            if ignored is None:
                raise
            ignored(error)


def _folder(data: Path, rig: str) -> Path:
    return data / CALIBRATIONS_FOLDER / rig
