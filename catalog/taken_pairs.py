"""One pair of a dataset that is imported: read, checked, and written anew as PNG.

A PNG keeps its bytes but for text, EXIF and times; everything else is stored without loss, whatever its suffix says
it is. What an interrupted import already wrote is used again where source and copy still are what they were.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from catalog.audit import AuditPair
from catalog.bare_png import bare_png
from catalog.errors import CatalogError, ExitCode
from catalog.evidence import BlurRecord, PairFrame, PairHashes, PairRecord
from catalog.export_files import new_file
from catalog.intensity import intensity
from catalog.pair_folders import PairFiles
from catalog.session_folder import PAIRS_FOLDER, file_sha256
from catalog.stored_files import PNG_SIGNATURE
from catalog.yaml_document import Document

_IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


class NoPairError(CatalogError, ValueError):
    """Two files of a dataset make no pair; it is left out and named."""

    code = "CAT-IMP-004"
    exit_code = ExitCode.INVALID_INPUT


class Origin(Document):
    """One line of `imported.jsonl`: a pair and the files it was made of."""

    pair: str
    gt: str
    """Path below the imported folder."""
    lq: str
    sha256_gt: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the file as it was found."""
    sha256_lq: str = Field(pattern=r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class LeftOut:
    """A pair that could not be taken over."""

    pair: str
    why: str


@dataclass(frozen=True)
class Taken:
    """A pair that was taken over."""

    record: PairRecord
    origin: Origin


@dataclass(frozen=True)
class PairJob:
    """A pair to be taken over."""

    number: int
    files: PairFiles
    name: str
    target: Path
    """Session folder to write below."""
    audited: AuditPair | None
    root: Path
    """The dataset."""
    noted: Taken | None
    """What an interrupted run made of it."""


def take_over(job: PairJob) -> Taken | LeftOut:
    """Read a pair and write it below the job's folder; says why where the two files make no pair.

    Raises:
        OSError: The disk did not take it.
    """
    if job.noted is not None and _still_holds(job, job.noted):
        return job.noted
    try:
        gt, lq = _Picture.read(job.files.gt), _Picture.read(job.files.lq)
        _require_alike(gt, lq)
        plain = {"gt": gt.as_png(), "lq": lq.as_png()}
    except (OSError, ValueError) as error:
        return LeftOut(job.files.pair, str(error))
    strength = intensity(gt.pixels, lq.pixels)
    for side, content in plain.items():
        with new_file(_copy(job, side)) as file:
            file.write(content)
    hashes = {side: hashlib.sha256(content).hexdigest() for side, content in plain.items()}
    origin = Origin(
        pair=job.name,
        gt=below(job.root, job.files.gt),
        lq=below(job.root, job.files.lq),
        sha256_gt=gt.sha256,
        sha256_lq=lq.sha256,
    )
    return Taken(_record(job, strength, PairHashes(**hashes, mask=None), gt.size), origin)


def _still_holds(job: PairJob, noted: Taken) -> bool:
    """Tell whether a pair's files, as found and as written, are those that were noted."""
    expected = {
        job.files.gt: noted.origin.sha256_gt,
        job.files.lq: noted.origin.sha256_lq,
        _copy(job, "gt"): noted.record.sha256.gt if noted.record.sha256 else None,
        _copy(job, "lq"): noted.record.sha256.lq if noted.record.sha256 else None,
    }
    try:
        return all(file_sha256(path) == sha256 for path, sha256 in expected.items())
    except OSError:
        return False


def _copy(job: PairJob, side: str) -> Path:
    return job.target / PAIRS_FOLDER / side / f"{job.name}.png"


def _require_alike(gt: _Picture, lq: _Picture) -> None:
    if gt.pixels.shape != lq.pixels.shape:
        raise NoPairError(f"the ground truth is {gt.size}, the degraded picture {lq.size}")
    if gt.pixels.dtype != lq.pixels.dtype:
        raise NoPairError("the two pictures have different depths")


def _record(
    job: PairJob, strength: tuple[float, float], hashes: PairHashes, size: tuple[int, int]
) -> PairRecord:
    found = job.audited.measured if job.audited else None
    misaligned = job.audited is not None and job.audited.verdict == "misaligned"
    verdict: Literal["accepted", "rejected"] = "rejected" if misaligned else "accepted"
    frame = {"take": 1, "frame_index": job.number, "time_s": 0.0, "position_mm": 0.0}
    return PairRecord(
        pair=job.name,
        gt=PairFrame(round="gt", **frame),
        lq=PairFrame(round="lq", **frame),
        verdict=verdict,
        reasons=("residual",) if misaligned else (),
        homography=found.homography if found else None,
        lq_crop=(0, 0, *size),
        gt_from_pair=_IDENTITY,
        gt_warped=False,
        residual_px=found.epe_px if found else None,
        predicted_epe_px=found.predicted_error_px if found else None,
        bound_px=None,
        position_gap_mm=0.0,
        blur=found.blur if found else BlurRecord(kind="none", size_px=0.0),
        gates={} if found is None else {"confidence": found.confidence, "local_p90_px": found.local_p90_px},
        evidence=("imported",) if found is None else ("imported", "picture"),
        mask=None,
        mu=strength[0],
        sigma=strength[1],
        sha256=hashes,
    )


@dataclass(frozen=True, eq=False)
class _Picture:
    """A picture file as it was found."""

    content: bytes
    pixels: NDArray[Any]
    """``(H, W, 3)``, uint8 or uint16."""

    @classmethod
    def read(cls, path: Path) -> _Picture:
        import cv2

        content = path.read_bytes()
        decoded: NDArray[Any] | None = None
        if _is_sane(content):
            flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
            decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
        if decoded is None or decoded.dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)}:
            raise NoPairError(f"{path.name} is no picture of 8 or 16 bits that can be read")
        return cls(content, decoded)

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def as_png(self) -> bytes:
        """Return the picture as a PNG that says nothing but its pixels."""
        return bare_png(self.content) if self._is_plain_png() else self._encoded()

    def _is_plain_png(self) -> bool:
        """Tell whether the file is a PNG of 8 or 16 bits of RGB, as the product writes them."""
        return self.content.startswith(PNG_SIGNATURE) and self.content[24:26] in {b"\x08\x02", b"\x10\x02"}

    def _encoded(self) -> bytes:
        import cv2

        done, png = cv2.imencode(".png", self.pixels)
        if not done:
            raise NoPairError("the picture cannot be written as PNG")
        return png.tobytes()


def _is_sane(content: bytes) -> bool:
    """Tell whether a file declares a picture of a sensible size, before anything of that size is allocated."""
    import warnings
    from io import BytesIO

    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            Image.open(BytesIO(content)).close()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError):
        return False
    return True


def below(root: Path, path: Path) -> str:
    """Return a path below a folder as text, of one elsewhere the name."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
