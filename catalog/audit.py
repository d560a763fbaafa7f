"""What an audit of a published pair folder says: `alignment audit` writes it, `catalog import-pairs` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from catalog.errors import InvalidDocumentError
from catalog.evidence import BlurRecord, Matrix3x3
from catalog.yaml_document import Document

MAX_AUDIT_BYTES = 2_000_000_000
"""A million pairs with their local maps stay below this."""

ParallaxVerdict = Literal["none", "parallax", "moving_object", "unknown"]
"""What tiles do beyond the movement of the whole picture: nothing; a shift along one line, as scenes in depth do seen
from two places; a shift every which way or of foreign content; or too few tiles can tell."""

Verdict = Literal["aligned", "misaligned", "untrusted", "not_measured"]


class LocalShift(Document):
    """How much further one part of the degraded picture is shifted than the whole of it."""

    x_px: float
    """Middle of the part in the degraded picture, px."""
    y_px: float
    dx_px: float
    dy_px: float


class PairMeasurement(Document):
    """How far the two pictures of a pair lie from each other."""

    shift_px: tuple[float, float]
    """Median displacement dx, dy of the degraded picture's content against the ground truth's."""
    epe_px: float
    """Median length of the displacement over the picture."""
    epe_p95_px: float
    """95th percentile of it."""
    rotation_deg: tuple[float, float, float]
    """Pitch, yaw, roll; pitch and yaw by a guessed focal length."""
    scale: float
    """Size of the degraded picture's content over that of the ground truth's."""
    homography: Matrix3x3
    """Ground-truth pixel to degraded pixel."""
    predicted_error_px: float
    """95 % radius of the measurement's own error."""
    local_p90_px: float | None
    """90th percentile of what tiles move beyond the whole; None where no tile can measure it."""
    local_map: tuple[LocalShift, ...]
    """The same over a coarse grid; parts that cannot be measured are left out."""
    masked_share: float
    """Share of the tiles that show something else than the ground truth does."""
    parallax: ParallaxVerdict
    ecc_shift_px: tuple[float, float] | None
    """The same shift by another estimator (affine ECC, reduced size), None where that found nothing."""
    blur: BlurRecord
    exposure_ratio: float
    """Light of the degraded picture over that of the ground truth."""
    trustworthy: bool
    """The measurement settled, and neither its two halves nor its two directions contradict each other."""
    confidence: float = Field(ge=0, le=1)
    """0 to 1: how far every check stayed from its limit."""


class AuditPair(Document):
    """One pair of the folder with what was found."""

    pair: str
    """Class and name; unique in the audit."""
    group: str
    """Folder that the pair stands in: the class in FoundIR's layout; empty where there is but one."""
    gt: str
    """Path below the audited folder."""
    lq: str
    sha256_gt: str | None
    """None where the file could not be read."""
    sha256_lq: str | None
    width: int | None
    """Of both pictures, px; None where they differ or one cannot be read."""
    height: int | None
    verdict: Verdict
    problem: Literal["", "unreadable", "size_differs", "no_structure", "no_partner", "ambiguous"] = ""
    """Why nothing was measured; empty where something was."""
    why: str = ""
    """The same in words."""
    measured: PairMeasurement | None = None


class GroupSummary(Document):
    """One class of pairs at a glance."""

    group: str
    pairs: int
    measured: int
    trusted: int
    aligned: int
    misaligned: int
    parallax: int
    """Pairs whose parts are shifted differently, as depth does it."""
    epe_px_median: float | None
    """Over the trusted pairs, as all that follow."""
    epe_px_p95: float | None
    epe_px_max: float | None
    local_p90_px_median: float | None


class AuditRecord(Document):
    """The whole audit. No wall time and no absolute path in it: same input, same bytes."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    folder: str
    """Name of the audited folder."""
    layout: str
    """How the pairs were recognised, in words."""
    versions: dict[str, str]
    aligned_px: float
    """A trusted pair is aligned if its displacement is no larger than this over 95 % of the picture."""
    offered: int
    """Pairs in the folder, of which `pairs` are a sample where fewer were asked for."""
    groups: tuple[GroupSummary, ...]
    pairs: tuple[AuditPair, ...]


def read_audit(path: Path) -> AuditRecord:
    """Read an audit.

    Raises:
        InvalidDocumentError: The file is missing, too large, or no audit.
    """
    try:
        if path.stat().st_size > MAX_AUDIT_BYTES:
            raise InvalidDocumentError(f"{path}: {path.stat().st_size} bytes are no audit of ours")
        return AuditRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidDocumentError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise InvalidDocumentError(
            f"{path}: no audit that this version reads: {where}: {first['msg']}",
            next_step="write it anew with: alignment audit FOLDER -o FILE.json",
        ) from None
