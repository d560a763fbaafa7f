"""`catalog import-pairs`: existing paired datasets enter as session folders, one for each of their classes.

The pictures are taken over as PNG: a PNG keeps its bytes but for text, EXIF and times, everything else is stored anew
without loss, whatever its suffix says it is. From there on an imported pair is a pair as any other: it is verified,
judged, split and exported in the same way, and a rebuilt catalog has it too. Where each picture came from stands in
`imported.jsonl`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from catalog.audit import AuditPair, AuditRecord
from catalog.bare_png import bare_png
from catalog.errors import CatalogError, ExitCode
from catalog.evidence import BlurRecord, PairFrame, PairHashes, PairRecord
from catalog.executors import ordered
from catalog.export_files import new_file
from catalog.intensity import intensity
from catalog.journal import seal_journal_row
from catalog.pair_folders import PairFiles, PairListing
from catalog.records import Degradation, degradations_in
from catalog.session_folder import (
    JOURNAL_FILE,
    PAIRS_FOLDER,
    ROUND_FILE,
    SESSION_FILE,
    SESSIONS_FOLDER,
    RoundRecord,
    SessionRecord,
    TakeRecord,
    file_sha256,
    make_folder,
    replace_file,
    sync_folder,
    take_folder_name,
    write_pairs,
)
from catalog.stored_files import PNG_SIGNATURE
from catalog.yaml_document import Document

ORIGINS_FILE = "imported.jsonl"
"""In the session folder: where each picture came from."""
_IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

Advance = Callable[[float], object]


class ImportedPairsExistError(CatalogError, FileExistsError):
    """A session of that name is there already."""

    code = "CAT-IMP-001"
    exit_code = ExitCode.INVALID_INPUT


class NothingToImportError(CatalogError, ValueError):
    """No pair of the folder could be taken over."""

    code = "CAT-IMP-002"
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
class ImportReport:
    """What an import made."""

    sessions: tuple[str, ...]
    pairs: int
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class ImportOptions:
    """How a dataset enters.

    Args:
        name: Begins the names of its sessions, and is its scene: all its pairs share a split.
        degradations: What was made worse in all its pairs; None reads the folders' names.
        audit: What `alignment audit` found in the same folder.
    """

    name: str
    degradations: tuple[Degradation, ...] | None = None
    audit: AuditRecord | None = None


@dataclass(frozen=True)
class _Job:
    number: int
    files: PairFiles
    name: str
    round: str
    target: Path
    audited: AuditPair | None
    root: Path


@dataclass(frozen=True)
class _Taken:
    record: PairRecord
    origin: Origin


def import_pairs(
    listing: PairListing,
    data: Path,
    options: ImportOptions,
    *,
    executor: Executor,
    progress: Advance = lambda _: None,
) -> ImportReport:
    """Make one session folder per class of a dataset; a class that is there already is refused before anything is done.

    Args:
        listing: The dataset's pairs.
        data: The data folder.
        options: Name, degradations, audit.
        executor: Where pictures are read and written.
        progress: Told the number of pairs done since the last call.

    Raises:
        ImportedPairsExistError: A session of one of the names is there.
        NothingToImportError: No pair could be read.
    """
    groups = {g: list(files) for g, files in groupby(sorted(listing.pairs), key=lambda pair: pair.group)}
    names = _session_names(options.name, list(groups))
    for name in names.values():
        _require_new(data / SESSIONS_FOLDER / name)
    found = {pair.pair: pair for pair in options.audit.pairs} if options.audit else {}
    left_out = [LeftOut(f"{odd.group}/{odd.name}".strip("/"), odd.why) for odd in listing.odd]
    sessions, count = [], 0
    for group, files in groups.items():
        session = _Import(listing.root, group, names[group], data, options)
        taken, problems = session.run(files, found, executor, progress)
        left_out += problems
        if taken:
            sessions.append(names[group])
            count += taken
    if not sessions:
        raise NothingToImportError(
            f"{listing.root}: none of {len(listing.pairs)} pairs could be taken over, the first because "
            f"{left_out[0].why if left_out else 'there are none'}",
            kept="everything as it was",
        )
    return ImportReport(tuple(sessions), count, tuple(left_out))


class _Import:
    """Makes one session folder, under a hidden name until it is whole."""

    def __init__(self, root: Path, group: str, name: str, data: Path, options: ImportOptions) -> None:
        self._root, self._group, self._name, self._options = root, group, name, options
        self._final = data / SESSIONS_FOLDER / name
        self._part = self._final.with_name(f".{name}.importing")
        worse = degradations_in(group or root.name) if options.degradations is None else options.degradations
        self._rounds = (
            RoundRecord(number=1, name="gt", role="gt"),
            RoundRecord(number=2, name="lq", role="external", degradations=worse),
        )

    def run(
        self,
        files: Sequence[PairFiles],
        audited: Mapping[str, AuditPair],
        executor: Executor,
        progress: Advance,
    ) -> tuple[int, list[LeftOut]]:
        """Take over the pairs; returns how many, and which were left out."""
        shutil.rmtree(self._part, ignore_errors=True)
        for side in ("gt", "lq"):
            make_folder(self._part / PAIRS_FOLDER / side)
        taken: list[_Taken] = []
        left_out: list[LeftOut] = []
        for result in ordered(executor, _take_over, self._jobs(files, audited)):
            taken.append(result) if isinstance(result, _Taken) else left_out.append(result)
            progress(1)
        if taken:
            self._describe(taken)
            self._publish()
        else:
            shutil.rmtree(self._part)
        return len(taken), left_out

    def _jobs(self, files: Iterable[PairFiles], audited: Mapping[str, AuditPair]) -> Iterator[_Job]:
        for number, pair in enumerate(files):
            name = f"lq-{number:06d}"
            yield _Job(number, pair, name, "lq", self._part, audited.get(pair.pair), self._root)

    def _describe(self, taken: Sequence[_Taken]) -> None:
        write_pairs(self._part, [t.record for t in taken])
        lines = "".join(t.origin.model_dump_json() + "\n" for t in taken)
        replace_file(self._part / ORIGINS_FILE, lines.encode())
        record = SessionRecord(
            session=self._name,
            scene=self._options.name,
            created_utc_us=time.time_ns() // 1000,
            source="imported",
            rig="imported",
            simulated=False,
            cameras=(),
            boards=(),
            rounds=self._rounds,
            plan={"imported_from": self._root.name, "group": self._group},
        )
        replace_file(self._part / SESSION_FILE, record.model_dump_json(by_alias=True, indent=1).encode())
        self._write_journal()

    def _write_journal(self) -> None:
        lines: list[bytes] = []

        def note(kind: str, **members: Any) -> None:
            row = {"seq": len(lines) + 1, "t_utc_us": 0, "t_host_s": 0.0, "kind": kind, **members}
            lines.append(seal_journal_row(row, previous_line=lines[-1] if lines else None))

        def saved(path: Path) -> None:
            relative = path.relative_to(self._part).as_posix()
            note("saved", path=relative, size_bytes=path.stat().st_size, sha256=file_sha256(path))

        saved(self._part / ORIGINS_FILE)
        for round_ in self._rounds:
            folder = self._part / "rounds" / take_folder_name(round_.number, round_.name, 1)
            make_folder(folder)
            note("take_intent", round=round_.name, take=1)
            record = TakeRecord(round=round_, take=1, cameras={}, files=())
            replace_file(folder / ROUND_FILE, record.model_dump_json(by_alias=True, indent=1).encode())
            saved(folder / ROUND_FILE)
            note("take_outcome", round=round_.name, take=1, state="valid", reason="")
        replace_file(self._part / JOURNAL_FILE, b"".join(lines))

    def _publish(self) -> None:
        for folder, _, _ in os.walk(self._part):
            sync_folder(Path(folder))
        self._part.rename(self._final)
        sync_folder(self._final.parent)


def _take_over(job: _Job) -> _Taken | LeftOut:
    try:
        gt, lq = _Picture.read(job.files.gt), _Picture.read(job.files.lq)
        if gt.pixels.shape != lq.pixels.shape:
            raise ValueError(f"the ground truth is {gt.size}, the degraded picture {lq.size}")
        if gt.pixels.dtype != lq.pixels.dtype:
            raise ValueError("the two pictures have different depths")
        mu, sigma = intensity(gt.pixels, lq.pixels)
        hashes = PairHashes(gt=gt.write(job, "gt"), lq=lq.write(job, "lq"), mask=None)
    except (OSError, ValueError) as error:
        return LeftOut(job.files.pair, str(error))
    origin = Origin(
        pair=job.name,
        gt=_below(job.root, job.files.gt),
        lq=_below(job.root, job.files.lq),
        sha256_gt=gt.sha256,
        sha256_lq=lq.sha256,
    )
    width, height = gt.size
    return _Taken(_record(job, (mu, sigma), hashes, (width, height)), origin)


def _record(
    job: _Job, strength: tuple[float, float], hashes: PairHashes, size: tuple[int, int]
) -> PairRecord:
    found = job.audited.measured if job.audited else None
    misaligned = job.audited is not None and job.audited.verdict == "misaligned"
    verdict: Literal["accepted", "rejected"] = "rejected" if misaligned else "accepted"
    frame = {"take": 1, "frame_index": job.number, "time_s": 0.0, "position_mm": 0.0}
    return PairRecord(
        pair=job.name,
        gt=PairFrame(round="gt", **frame),
        lq=PairFrame(round=job.round, **frame),
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
            raise ValueError(f"{path.name} is no picture of 8 or 16 bits that can be read")
        return cls(content, decoded)

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def write(self, job: _Job, side: str) -> str:
        """Write the picture as PNG; returns the sha256 of what was written."""
        path = job.target / PAIRS_FOLDER / side / f"{job.name}.png"
        content = bare_png(self.content) if self._is_plain_png() else self._encoded()
        with new_file(path) as file:
            file.write(content)
        return hashlib.sha256(content).hexdigest()

    def _is_plain_png(self) -> bool:
        """Tell whether the file is a PNG of 8 or 16 bits of RGB, as the product writes them."""
        return self.content.startswith(PNG_SIGNATURE) and self.content[24:26] in {b"\x08\x02", b"\x10\x02"}

    def _encoded(self) -> bytes:
        import cv2

        done, png = cv2.imencode(".png", self.pixels)
        if not done:
            raise ValueError("the picture cannot be written as PNG")
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


def plain_name(text: str) -> str:
    """Make a name of any text that is a safe folder name, too."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:60] or "pairs"


def _session_names(name: str, groups: Sequence[str]) -> dict[str, str]:
    """Name a session for every class; equal names after simplification are numbered."""
    names: dict[str, str] = {}
    for group in groups:
        plain = plain_name(f"{name}-{group}")
        unique, number = plain, 2
        while unique in names.values():
            unique, number = f"{plain}-{number}", number + 1
        names[group] = unique
    return names


def _require_new(folder: Path) -> None:
    if folder.exists():
        raise ImportedPairsExistError(
            f"{folder}: a session of that name is there already",
            kept="it, untouched; nothing was imported",
            next_step=f"catalog add {folder.name} if it was imported before, else give another --name",
        )


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
