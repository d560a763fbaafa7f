"""One pair of a published folder: read, measured, cross-checked and put into words."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.camera_motion import Array, map_points
from alignment.decode import read_still
from alignment.errors import DecodeError, NoCommonStructureError
from alignment.local_map import MEASURABLE_SIGMA_PX, LocalMap
from alignment.misalignment import Misalignment, measure
from alignment.pair_job import single_threaded
from alignment.photometry import Rgb
from alignment.registration import Registration
from catalog.audit import AuditPair, LocalShift, PairMeasurement, ParallaxVerdict, Verdict
from catalog.evidence import Matrix3x3
from catalog.pair_folders import PairFiles

MAX_PIXELS = 150_000_000
"""A picture larger than this is not opened: a decompression bomb rather than a photograph."""
_MAP_COLUMNS = 16
_MAP_ROWS = 10
_CELL_TILES = 3
"""Fewer tiles say nothing of a part of the picture."""
_MOVED_PX = 0.25
_MOVED_SIGMAS = 4.0
_MOVED_SHARE = 0.05
"""Fewer tiles than this may be out for any reason."""
_ALONG_A_LINE = 0.9
"""Share of the second moment along the main direction from which shifts count as collinear."""
_LEAST_TILES = 24
_ECC_LONG_SIDE_PX = 1000
_ECC_ITERATIONS = 60
_LIMITS_PX = 0.1
_LEAST_NCC = 0.3


def measure_pair(
    root: Path, files: PairFiles, *, aligned_px: float, known: AuditPair | None = None
) -> AuditPair:
    """Measure a pair of files; whatever is wrong with them becomes part of the answer.

    Args:
        root: The audited folder; paths are noted relative to it.
        files: The two files.
        aligned_px: Largest displacement of an aligned pair.
        known: An earlier answer, returned as it is if the files are still those it was given for.
    """
    hashes = _sha256(files.gt), _sha256(files.lq)
    if known is not None and None not in hashes and (known.sha256_gt, known.sha256_lq) == hashes:
        return known
    blank = AuditPair(
        pair=files.pair,
        group=files.group,
        gt=files.gt.relative_to(root).as_posix(),
        lq=files.lq.relative_to(root).as_posix(),
        sha256_gt=hashes[0],
        sha256_lq=hashes[1],
        width=None,
        height=None,
        verdict="not_measured",
    )
    try:
        gt, lq = _read(files.gt), _read(files.lq)
    except DecodeError as error:
        return blank.model_copy(update={"problem": "unreadable", "why": error.message})
    if gt.shape != lq.shape:
        return blank.model_copy(update={"problem": "size_differs", "why": _size_words(gt, lq)})
    sized = blank.model_copy(update={"width": gt.shape[1], "height": gt.shape[0]})
    with single_threaded():
        return _measured(sized, gt, lq, aligned_px)


def measure_pictures(gt: Path, lq: Path) -> PairMeasurement:
    """Measure two pictures of any folder.

    Raises:
        DecodeError: One cannot be read.
        PictureFormatError: They differ in size.
        NoCommonStructureError: They share too little structure.
    """
    return _described(_read(gt), _read(lq))


def _described(gt: Rgb, lq: Rgb) -> PairMeasurement:
    return describe(measure(gt, lq), ecc_shift_px=ecc_shift(gt, lq))


def _measured(pair: AuditPair, gt: Rgb, lq: Rgb, aligned_px: float) -> AuditPair:
    try:
        found = _described(gt, lq)
    except NoCommonStructureError as error:
        return pair.model_copy(update={"problem": "no_structure", "why": error.message})
    return pair.model_copy(update={"measured": found, "verdict": _verdict(found, aligned_px)})


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _read(path: Path) -> Rgb:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            width, height = picture.size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DecodeError(
            f"{path.name}: cannot be read as a picture ({_plain(error, path)})",
            next_step="give a PNG, JPEG, TIFF or WebP file; copy it again if it should be one",
        ) from error
    if width * height > MAX_PIXELS:
        raise DecodeError(
            f"{path.name}: {width} x {height} px are more than {MAX_PIXELS} pixels",
            next_step="give a part of the picture",
        )
    try:
        return read_still(path)
    except DecodeError as error:
        raise DecodeError(_plain(error, path), next_step="copy the file again") from error


def _plain(error: Exception, path: Path) -> str:
    """Name the file without the folder it lies in: audits of one folder in two places must be equal."""
    text = error.message if isinstance(error, DecodeError) else str(error)
    return text.replace(str(path), path.name)


def _size_words(gt: Rgb, lq: Rgb) -> str:
    sizes = f"GT is {gt.shape[1]} x {gt.shape[0]} px, LQ {lq.shape[1]} x {lq.shape[0]} px"
    ratio = gt.shape[0] / lq.shape[0]
    if ratio != 1 and abs(ratio - gt.shape[1] / lq.shape[1]) < 0.02:
        return f"{sizes}: a super-resolution pair of scale {ratio:.3g}; only pairs of one size are measured"
    return f"{sizes}: which part of one is the other is not known; crop them alike"


def describe(found: Misalignment, *, ecc_shift_px: tuple[float, float] | None) -> PairMeasurement:
    """Round a measurement to what it is worth and put verdicts to it."""
    registration = found.registration
    return PairMeasurement(
        shift_px=(_px(found.shift_px[0]), _px(found.shift_px[1])),
        epe_px=_px(found.epe_px),
        epe_p95_px=_px(found.epe_p95_px),
        rotation_deg=tuple(round(a, 6) for a in registration.angles_deg),
        scale=round(registration.scale, 8),
        homography=_matrix(registration.homography),
        predicted_error_px=_px(found.predicted_error_px),
        local_p90_px=None if found.local_p90_px is None else _px(found.local_p90_px),
        local_map=local_shifts(registration.leftover, registration.size),
        masked_share=round(registration.masked_share, 4),
        parallax=parallax_verdict(registration.leftover),
        ecc_shift_px=ecc_shift_px,
        blur=found.blur.model_copy(update={"size_px": round(found.blur.size_px, 3)}),
        exposure_ratio=round(registration.exposure_ratio, 4),
        trustworthy=found.trustworthy and registration.gradient_ncc >= _LEAST_NCC / 2,
        confidence=round(_confidence(found), 4),
    )


def _px(value: float) -> float:
    return round(float(value), 4)


def _matrix(values: Array) -> Matrix3x3:
    rows = [tuple(round(float(v), 12) for v in row) for row in values]
    return rows[0], rows[1], rows[2]  # type: ignore[return-value]  # three rows of three


def _confidence(found: Misalignment) -> float:
    """Multiply logistic terms, each a half where a check is at its limit."""
    registration: Registration = found.registration
    if not registration.converged:
        return 0.0
    distances = (
        registration.forward_backward_px / _LIMITS_PX,
        registration.split_half_px / max(_LIMITS_PX, 3 * registration.split_half_sigma_px),
        found.predicted_error_px / (2 * _LIMITS_PX),
        _LEAST_NCC / max(registration.gradient_ncc, 1e-3),
    )
    return float(np.prod([1 / (1 + d**4) for d in distances]))


def _verdict(found: PairMeasurement, aligned_px: float) -> Verdict:
    if not found.trustworthy:
        return "untrusted"
    off_px = max(found.epe_p95_px, found.local_p90_px or 0.0)
    return "aligned" if off_px <= aligned_px else "misaligned"


def parallax_verdict(leftover: LocalMap) -> ParallaxVerdict:
    """Say what the parts of the picture do on their own.

    Parallax shifts near things along one line, the direction in which the camera moved; moving things go
    anywhere and show what the ground truth does not.
    """
    clear = leftover.measured & (leftover.sigma_px < MEASURABLE_SIGMA_PX)
    if np.count_nonzero(clear) < _LEAST_TILES:
        return "unknown"
    out = clear & (leftover.magnitude_px > np.maximum(_MOVED_PX, _MOVED_SIGMAS * leftover.sigma_px))
    same_content = out & ~leftover.foreign
    if np.count_nonzero(out) < _MOVED_SHARE * np.count_nonzero(clear):
        return "none"
    if np.count_nonzero(same_content) < 0.5 * np.count_nonzero(out):
        return "moving_object"
    return "parallax" if _collinear(leftover.innovation_px[same_content]) else "moving_object"


def _collinear(shifts_px: Array) -> bool:
    moments = np.linalg.eigvalsh(shifts_px.T @ shifts_px)
    return bool(moments[1] >= _ALONG_A_LINE * moments.sum())


def local_shifts(leftover: LocalMap, size: tuple[int, int]) -> tuple[LocalShift, ...]:
    """Gather the tiles' leftover shifts over a coarse grid: the median of each part that three tiles measure."""
    clear = leftover.measured & (leftover.sigma_px < MEASURABLE_SIGMA_PX)
    cells = np.minimum(
        (leftover.centres_px / np.array(size) * (_MAP_COLUMNS, _MAP_ROWS)).astype(int),
        (_MAP_COLUMNS - 1, _MAP_ROWS - 1),
    )
    number = cells[:, 1] * _MAP_COLUMNS + cells[:, 0]
    members = [clear & (number == k) for k in range(_MAP_COLUMNS * _MAP_ROWS)]
    return tuple(_local_shift(leftover, m) for m in members if np.count_nonzero(m) >= _CELL_TILES)


def _local_shift(leftover: LocalMap, members: NDArray[np.bool_]) -> LocalShift:
    x, y = leftover.centres_px[members].mean(axis=0)
    dx, dy = np.median(leftover.innovation_px[members], axis=0)
    return LocalShift(
        x_px=round(float(x), 1), y_px=round(float(y), 1), dx_px=round(float(dx), 3), dy_px=round(float(dy), 3)
    )


def ecc_shift(gt: Rgb, lq: Rgb) -> tuple[float, float] | None:
    """Measure the shift at the middle by OpenCV's affine ECC at reduced size: a second opinion, not a gate.

    It fails where haze or a mover is strong, which is why a disagreement alone condemns nothing.
    """
    scale = min(1.0, _ECC_LONG_SIDE_PX / max(gt.shape[:2]))
    clean, worse = _ecc_plane(gt, scale), _ecc_plane(lq, scale)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _ECC_ITERATIONS, 1e-6)
    try:
        start, everywhere = np.eye(2, 3, dtype=np.float32), np.full_like(clean, 255, np.uint8)
        _, warp = cv2.findTransformECC(clean, worse, start, cv2.MOTION_AFFINE, criteria, everywhere, 5)
    except cv2.error:
        return None
    middle = (np.array([[clean.shape[1], clean.shape[0]]]) - 1) / 2
    moved = map_points(np.vstack([np.asarray(warp, np.float64), [0, 0, 1]]), middle) - middle
    dx, dy = moved[0] / scale
    return _px(dx), _px(dy)


def _ecc_plane(picture: Rgb, scale: float) -> NDArray[np.float32]:
    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    if scale < 1:
        size = round(grey.shape[1] * scale), round(grey.shape[0] * scale)
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.float32)
