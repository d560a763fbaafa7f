"""An export in a store: every file read back as soon as it was sent, the manifest last.

```
<to>/<name>/…                 the files of the export under their own names
<to>/<name>/unfinished.json   while it is being written: whose it is; gone when it is whole
<to>/<name>/manifest.jsonl    sent last, so a place without it holds no export
```

What was sent and read back is noted in the working folder, so an interrupted export does not send it again. A shard is
written there first and removed once it is in the store.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from pydantic import Field, ValidationError

from catalog.errors import DamagedDataError
from catalog.executors import ordered
from catalog.export_files import bare_content, clear_folder
from catalog.export_formats import ShardKind
from catalog.export_list import ExportItemRow, ExportSource
from catalog.export_places import SHARDS_AHEAD, ExportInterruptedError, require_picture
from catalog.export_privacy import SourceFiles
from catalog.export_shards import ShardCheck, ShardDone, ShardJob, check_shard, run_shard_job
from catalog.far_store import FarStore
from catalog.manifest import MANIFEST_NAME, ManifestRow
from catalog.session_folder import file_sha256
from catalog.stored_files import look_at
from catalog.yaml_document import Document

UNFINISHED_FILE = "unfinished.json"
SENT_FILE = "sent.jsonl"
"""In the working folder."""
_PAIRS_PER_JOB = 32
_FILES_AT_ONCE = 8
_SMALL_BYTES = 1 << 16


class SentFile(Document):
    """A file that was read back in the store."""

    name: str
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class _File:
    """A picture on its way."""

    path: Path
    source: ExportSource
    row: ManifestRow
    sent: SentFile | None


@dataclass(frozen=True)
class _FilesJob:
    far: FarStore
    files: tuple[_File, ...]
    pairs: int
    check: bool


@dataclass(frozen=True)
class _ShardJob:
    far: FarStore
    shard: ShardJob
    folder: str
    """Of the shard, relative to the export, empty or with a slash."""
    sent: tuple[SentFile, ...]
    check: bool


class FarPlace:
    """``<to>/<name>`` in a store.

    Args:
        url: Of the export.
        part: Local working folder.
        sources: The files that it is made of.
        executor: Where shards are written and everything is sent from.
    """

    folder = None

    def __init__(self, url: str, part: Path, sources: SourceFiles, executor: Executor) -> None:
        self.address = url
        self._far, self._part, self._sources, self._executor = FarStore(url), part, sources, executor
        self._sent: dict[str, SentFile] = {}

    def stands(self) -> bool:
        """Tell whether something has the export's name that is not an unfinished export."""
        if self._far.size_bytes(MANIFEST_NAME) is not None:
            return True
        return self._far.size_bytes(UNFINISHED_FILE) is None and not self._far.is_empty()

    def published_manifest(self) -> str | None:
        """Return the sha256 of the manifest that was published there, None where none was."""
        if self._far.size_bytes(MANIFEST_NAME) is None:
            return None
        return self._far.sha256(MANIFEST_NAME, advance=lambda _: None)

    def begin(self, list_sha256: str, *, resumed: bool, restart: bool) -> None:
        """Say whose the place is from here on.

        Raises:
            ExportInterruptedError: Another unfinished export stands there.
        """
        if restart:
            self._far.clear()
        elif self._begun_for() not in {None, list_sha256}:
            raise ExportInterruptedError(
                f"{self.address}: an interrupted export of another list is there",
                kept="it, unchanged",
                next_step="export to another place, or add --restart to throw it away",
            )
        if not resumed:
            clear_folder(self._part)
        self._sent = _read_sent(self._part / SENT_FILE)
        marker = {"schema": 1, "list_sha256": list_sha256}
        self._far.put_bytes(json.dumps(marker).encode(), UNFINISHED_FILE)

    def put_files(self, items: Iterable[ExportItemRow], *, check: bool) -> Iterator[int]:
        """Send the files of pairs; yields the number of pairs as they are done."""
        jobs = self._file_jobs(iter(items), check=check)
        for sent, pairs in ordered(self._executor, _send_files, jobs, ahead=SHARDS_AHEAD):
            self._note(sent)
            yield pairs

    def put_shards(self, jobs: Iterable[ShardJob], *, check: bool) -> Iterator[ShardDone]:
        """Write shards and send them."""
        own_jobs = (self._shard_job(job, check=check) for job in jobs)
        for sent, done in ordered(self._executor, _send_shard, own_jobs, ahead=SHARDS_AHEAD):
            self._note(sent)
            yield done

    def check_files(self, rows: Iterable[ManifestRow]) -> None:
        """Do nothing more: each was compared and read back when it was sent."""
        for _ in rows:
            pass

    def check_shards(self, kind: ShardKind, rows: Iterable[ManifestRow]) -> None:  # noqa: ARG002
        """Do nothing more: each was checked before it was sent, and read back."""
        self.check_files(rows)

    def publish(self) -> None:
        """Send the list files, then the manifest."""
        names = [p.name for p in self._part.iterdir() if p.is_file() and not p.name.startswith(".")]
        small = sorted(set(names) - {SENT_FILE, MANIFEST_NAME})
        for name in (*small, MANIFEST_NAME):
            path = self._part / name
            self._far.send(path, name, sha256=file_sha256(path), advance=lambda _: None)
        self.tidy()

    def tidy(self) -> None:
        """Take the note of an unfinished export and the working folder's content away."""
        if self._far.size_bytes(UNFINISHED_FILE) is not None:
            self._far.remove(UNFINISHED_FILE)
        if self._part.is_dir():
            clear_folder(self._part)

    def _begun_for(self) -> str | None:
        if self._far.size_bytes(UNFINISHED_FILE) is None:
            return None
        try:
            marker = json.loads(self._far.read(UNFINISHED_FILE, limit_bytes=_SMALL_BYTES))
            return str(marker["list_sha256"])
        except (ValueError, TypeError, KeyError):
            return ""

    def _note(self, sent: Sequence[SentFile]) -> None:
        with (self._part / SENT_FILE).open("a", encoding="utf-8") as notes:
            notes.writelines(file.model_dump_json() + "\n" for file in sent if file.name not in self._sent)

    def _file_jobs(self, items: Iterator[ExportItemRow], *, check: bool) -> Iterator[_FilesJob]:
        while some := list(islice(items, _PAIRS_PER_JOB)):
            files = tuple(self._file(source, item.row) for item in some for source in item.sources)
            yield _FilesJob(self._far, files, len(some), check)

    def _file(self, source: ExportSource, row: ManifestRow) -> _File:
        return _File(self._sources.path(source), source, row, self._sent.get(source.target))

    def _shard_job(self, job: ShardJob, *, check: bool) -> _ShardJob:
        parent = job.target.relative_to(self._part).parent
        folder = "" if parent == Path() else f"{parent.as_posix()}/"
        names = (f"{folder}{name}" for name in job.file_names)
        sent = tuple(self._sent[name] for name in names if name in self._sent)
        return _ShardJob(self._far, job, folder, sent, check)


def _send_files(job: _FilesJob) -> tuple[list[SentFile], int]:
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        return list(pool.map(partial(_send_file, job.far, check=job.check), job.files)), job.pairs


def _send_file(far: FarStore, file: _File, *, check: bool) -> SentFile:
    source = file.source
    if file.sent is not None and _is_there(far, file.sent, check=check):
        return file.sent
    sighting = look_at(file.path, expected_nbytes=source.nbytes)
    if sighting.state != "present":
        raise DamagedDataError(
            f"{file.path}: {sighting.problem}",
            kept="what was exported so far",
            next_step="catalog verify, then export again with --restart",
        )
    if source.target != file.row.mask:
        require_picture(file.path, file.row)
    if source.bare_sha256 is None:
        far.send(file.path, source.target, sha256=source.sha256, advance=lambda _: None)
        nbytes = file.path.stat().st_size
    else:
        content = bare_content(file.path, source.sha256)
        far.put_bytes(content, source.target)
        far.require_content(source.target, source.bare_sha256, advance=lambda _: None)
        nbytes = len(content)
    return SentFile(name=source.target, size_bytes=nbytes, sha256=source.exported_sha256)


def _send_shard(job: _ShardJob) -> tuple[list[SentFile], ShardDone]:
    shard, names = job.shard, job.shard.file_names
    if len(job.sent) == len(names) and all(_is_there(job.far, file, check=job.check) for file in job.sent):
        sums = {Path(file.name).name: file.sha256 for file in job.sent}
        return list(job.sent), ShardDone(shard.target, sums, len(shard.pairs))
    done = run_shard_job(shard)
    check_shard(ShardCheck(shard.kind, shard.target, tuple(pair.row.id for pair in shard.pairs)))
    sent = []
    for name, sha256 in done.sha256.items():
        path = shard.target.with_name(name)
        job.far.send(path, job.folder + name, sha256=sha256, advance=lambda _: None)
        sent.append(SentFile(name=job.folder + name, size_bytes=path.stat().st_size, sha256=sha256))
    for name in names:
        shard.target.with_name(name).unlink()
    return sent, done


def _is_there(far: FarStore, file: SentFile, *, check: bool) -> bool:
    if far.size_bytes(file.name) != file.size_bytes:
        return False
    return not check or far.sha256(file.name, advance=lambda _: None) == file.sha256


def _read_sent(path: Path) -> dict[str, SentFile]:
    """Read the notes of an interrupted run; a line that was cut short counts for nothing."""
    sent: dict[str, SentFile] = {}
    for line in path.read_text(encoding="utf-8").split("\n") if path.is_file() else ():
        try:
            file = SentFile.model_validate_json(line)
        except ValidationError:
            continue
        sent[file.name] = file
    return sent
