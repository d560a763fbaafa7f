"""Read everything that the catalog keeps about one session folder; no database in here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from catalog.errors import CatalogError, DamagedDataError, SessionFolderError
from catalog.evidence import PairRecord
from catalog.journal import Journal
from catalog.session_folder import (
    ALIGNMENT_FILE,
    JOURNAL_FILE,
    PAIRS_FILE,
    PAIRS_FOLDER,
    ROUND_FILE,
    SESSION_FILE,
    ExposureSettings,
    SessionFolder,
    SessionRecord,
    Take,
    TakeRecord,
    file_sha256,
)
from catalog.stored_files import FolderRoot

TakeKey = tuple[str, int]
"""Round name and take number."""


class FolderChangedError(CatalogError):
    """A session folder was written while it was read."""

    code = "CAT-SES-003"


@dataclass(frozen=True)
class KnownFile:
    """A file whose content is recorded somewhere in the session folder."""

    relpath: str
    kind: str
    sha256: str
    nbytes: int | None
    pair: str | None = None


@dataclass(frozen=True)
class TakeContent:
    """One take and the settings its camera read back, completed by those asked for."""

    take: Take
    settings: ExposureSettings | None


@dataclass(frozen=True)
class SessionContent:
    """What a session folder says."""

    root: Path
    record: SessionRecord
    record_text: str
    takes: Mapping[TakeKey, TakeContent]
    aligned: bool
    aligned_by: str | None
    pairs: tuple[PairRecord, ...]
    files: tuple[KnownFile, ...]
    fingerprint: str = field(compare=False)

    def settings_of(self, take: TakeKey) -> ExposureSettings:
        """Return what is known of a take's settings; all None where nothing is."""
        content = self.takes[take]
        return content.settings or content.take.round.settings


def read_session(folder: SessionFolder) -> SessionContent:
    """Read a session folder whole and check that it agrees with itself.

    Raises:
        SessionFolderError: A file in it does not fit its schema, or names something that is not there.
        DamagedDataError: The journal is damaged, or a `round.json` is not the one the journal recorded.
        FolderChangedError: It was written meanwhile.
    """
    digests = _digests(folder.path)
    journal = folder.journal()
    journal_rows = _whole_rows(folder.path / JOURNAL_FILE, journal)
    saved = _saved_files(journal)
    record_files = _record_files(folder.path, digests, journal_rows)
    pairs = tuple(folder.pairs()) if PAIRS_FILE in digests else ()
    content = SessionContent(
        root=folder.path,
        record=folder.record(),
        record_text=(folder.path / SESSION_FILE).read_text(encoding="utf-8"),
        takes=_takes(folder, saved),
        aligned=PAIRS_FILE in digests,
        aligned_by=_aligned_by(folder),
        pairs=pairs,
        files=(*saved.values(), *record_files, *_pair_files(pairs)),
        fingerprint=_fingerprint(record_files),
    )
    _check_unchanged(folder, digests)
    _check_paths(content)
    _check_pairs(content)
    return content


def pair_files(pair: PairRecord) -> dict[str, str]:
    """Map ``gt``, ``lq``, ``mask`` to the path of the written file, where one was written."""
    paths = {side: f"{PAIRS_FOLDER}/{side}/{pair.pair}.png" for side in ("gt", "lq")}
    if pair.mask is not None:
        paths["mask"] = pair.mask
    return {side: path for side, path in paths.items() if getattr(pair.sha256, side) is not None}


def _digests(root: Path) -> dict[str, str]:
    names = (SESSION_FILE, PAIRS_FILE, ALIGNMENT_FILE)
    return {name: file_sha256(root / name) for name in names if (root / name).is_file()}


def _check_unchanged(folder: SessionFolder, digests: Mapping[str, str]) -> None:
    if _digests(folder.path) != digests:
        raise FolderChangedError(
            f"{folder.path.name}: the folder was written while it was read",
            kept="the catalog, unchanged",
            next_step="wait until the alignment ends, then add it again",
        )


def _whole_rows(path: Path, journal: Journal) -> bytes:
    """Return the journal up to the last row that was read; a recorder may append behind it meanwhile."""
    if journal.last_line is None:
        return b""
    data = path.read_bytes()
    return data[: data.index(journal.last_line) + len(journal.last_line)]


def _saved_files(journal: Journal) -> dict[str, KnownFile]:
    rows = [row for row in journal.rows if row.kind == "saved"]
    return {
        row.get("path"): KnownFile(row.get("path"), "capture", row.get("sha256"), row.get("size_bytes"))
        for row in rows
    }


def _record_files(root: Path, digests: Mapping[str, str], journal_rows: bytes) -> list[KnownFile]:
    files = [
        KnownFile(name, "record", sha256, (root / name).stat().st_size) for name, sha256 in digests.items()
    ]
    if journal_rows:
        sha256 = hashlib.sha256(journal_rows).hexdigest()
        files.append(KnownFile(JOURNAL_FILE, "journal", sha256, len(journal_rows)))
    return files


def _fingerprint(record_files: Sequence[KnownFile]) -> str:
    """Hash all that describes the session; the journal carries the hashes of every captured file."""
    lines = sorted(f"{file.relpath} {file.sha256}" for file in record_files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _pair_files(pairs: tuple[PairRecord, ...]) -> Iterator[KnownFile]:
    for pair in pairs:
        for side, path in pair_files(pair).items():
            yield KnownFile(path, side, getattr(pair.sha256, side), None, pair.pair)


def _aligned_by(folder: SessionFolder) -> str | None:
    if not (folder.path / ALIGNMENT_FILE).is_file():
        return None
    return json.dumps(folder.alignment().versions, sort_keys=True)


def _aligned_cameras(folder: SessionFolder) -> dict[TakeKey, str]:
    if not (folder.path / ALIGNMENT_FILE).is_file():
        return {}
    return {(motion.round, motion.take): motion.camera for motion in folder.alignment().rounds}


def _takes(folder: SessionFolder, saved: Mapping[str, KnownFile]) -> dict[TakeKey, TakeContent]:
    cameras = _aligned_cameras(folder)
    contents = {}
    for take in folder.takes():
        key = (take.round.name, take.number)
        path = take.folder / ROUND_FILE
        whole = _is_as_saved(path, saved.get(path.relative_to(folder.path).as_posix()))
        if take.state == "valid" and not whole:
            raise DamagedDataError(
                f"{path}: not the file that the journal recorded",
                kept="the catalog, unchanged",
                next_step="restore the file from a copy",
            )
        settings = _settings_read(take.record(), cameras.get(key)) if whole else None
        contents[key] = TakeContent(take, settings)
    return contents


def _is_as_saved(path: Path, saved: KnownFile | None) -> bool:
    return saved is not None and path.is_file() and file_sha256(path) == saved.sha256


def _settings_read(record: TakeRecord, camera: str | None) -> ExposureSettings | None:
    if not record.cameras:
        return None
    used = camera if camera in record.cameras else next(iter(record.cameras))
    read = record.cameras[used].settings_read.model_dump(exclude_none=True)
    return record.round.settings.model_copy(update=read)


def _check_paths(content: SessionContent) -> None:
    root = FolderRoot(content.root)
    for file in content.files:
        root.path(file.relpath)


def _check_pairs(content: SessionContent) -> None:
    seen: set[str] = set()
    for number, pair in enumerate(content.pairs, start=1):
        where = f"{content.root / PAIRS_FILE}:{number}:1"
        if pair.pair in seen:
            raise SessionFolderError(f"{where}: pair {pair.pair!r} stands twice")
        seen.add(pair.pair)
        for frame in (pair.gt, pair.lq):
            if (frame.round, frame.take) not in content.takes:
                raise SessionFolderError(
                    f"{where}: take {frame.take} of round {frame.round!r} does not exist"
                )
        if pair.verdict == "accepted":
            _check_accepted(pair, where)


def _check_accepted(pair: PairRecord, where: str) -> None:
    if not {"gt", "lq"} <= pair_files(pair).keys():
        raise SessionFolderError(f"{where}: pair {pair.pair!r} is accepted but has no images")
    if pair.mu is None or pair.sigma is None:
        raise SessionFolderError(f"{where}: pair {pair.pair!r} is accepted but has no mu and sigma")
