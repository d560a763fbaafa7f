"""`catalog push` and `catalog pull`: a session off the rig PC to a store, and back, resumable and verified.

```
<url>/<session>/…           the session's files under their own names
<url>/<session>/push.json   every file with size and sha256; written last, so a session without it is not all there
```

Each file is read back and hashed on the far side before it counts. Local space is freed only after that, and only
for files that are still the ones that were sent.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator

from catalog.errors import CatalogError, DamagedDataError, ExitCode
from catalog.far_store import Advance, FarStore, StoreError
from catalog.session_folder import SESSIONS_FOLDER, SessionFolder, file_sha256, replace_file, sync_folder
from catalog.yaml_document import Document, Name

PUSH_FILE = "push.json"
RECEIPTS_FOLDER = "pushed"
"""In the data folder: where each session went whose local files were freed."""
INCOMING_FOLDER = "incoming"
"""In the data folder: what a pull has not finished yet."""
MAX_FILES = 200_000
_MANIFEST_LIMIT_BYTES = 64 << 20
_LOCK_FILE = ".lock"
_SAFE_PATH = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}/){0,7}[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")


class TransferError(CatalogError):
    """A session cannot be moved as asked; nothing was lost."""

    code = "CAT-TRA-001"
    exit_code = ExitCode.REFUSED


class TransferInterruptedError(CatalogError):
    """A transfer was interrupted; the same command goes on with it."""

    code = "CAT-TRA-002"
    exit_code = ExitCode.INTERRUPTED


class PushedFile(Document):
    """One file of a pushed session."""

    path: str
    """Relative to the session folder."""
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        if _SAFE_PATH.fullmatch(path) is None:
            raise ValueError(f"not a path inside a session: {path!r}")
        return path


class PushManifest(Document):
    """`push.json`: what a complete session consists of on the far side."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    session: Name
    files: tuple[PushedFile, ...] = Field(max_length=MAX_FILES)

    @property
    def size_bytes(self) -> int:
        """Size of all files together."""
        return sum(f.size_bytes for f in self.files)


@dataclass(frozen=True)
class TransferReport:
    """What a push or pull did."""

    session: str
    url: str
    files: int
    size_bytes: int
    sent: int
    """Files copied by this run; the others were there already."""
    freed_bytes: int = 0
    """Local space given back."""


@dataclass
class _Progress:
    """Bytes to move, told to a progress bar from several threads."""

    advance: Advance
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, amount: float) -> None:
        with self.lock:
            self.advance(amount)


def push(
    session: SessionFolder,
    url: str,
    *,
    free_local: bool = False,
    workers: int = 4,
    advance: Advance = lambda _: None,
) -> TransferReport:
    """Copy a session to ``<url>/<session>``, reading every file back.

    Files that stand there with the right content are not sent again. ``advance`` gets each byte twice: sent and
    read back.

    Raises:
        TransferError: The session is being recorded or unfinished, or another one of its name lies there.
        DamagedDataError: A local file is not the one that was recorded; nothing was freed.
        StoreError: The far side failed.
        TransferInterruptedError: Interrupted by the user.
    """
    name = session.record().session
    with _alone(session.path, "is being recorded"), _resumable(f"catalog push {name} {url}"):
        if free_local:
            _require_finished(session)
        far = FarStore(url).below(name)
        manifest = _inventory(session)
        _make_way(far, manifest, session)
        progress = _Progress(advance)
        sent = _each(manifest.files, workers, lambda f: _send(session, far, f, progress))
        far.put_bytes(manifest.model_dump_json(by_alias=True, indent=1).encode(), PUSH_FILE)
        freed = _free(session, manifest, far.url) if free_local else 0
    return TransferReport(name, far.url, len(manifest.files), manifest.size_bytes, sum(sent), freed)


def pull(url: str, data: Path, *, workers: int = 4, advance: Advance = lambda _: None) -> TransferReport:
    """Copy a pushed session back into a data folder; it appears there whole or not at all.

    Raises:
        TransferError: A session of that name is here with other content, or there is no room.
        DamagedDataError: A file arrived with another content than was pushed.
        StoreError: Nothing complete lies there, or the far side failed.
        TransferInterruptedError: Interrupted by the user.
    """
    far = FarStore(url)
    manifest = _far_manifest(far)
    if manifest is None:
        raise StoreError(
            f"{far.url}: no {PUSH_FILE}, so no complete session lies there",
            next_step="give the address that `catalog push` printed, or push again",
        )
    final = data / SESSIONS_FOLDER / manifest.session
    waiting = data / INCOMING_FOLDER / manifest.session
    got: list[bool] = []
    with _resumable(f"catalog pull {url}"):
        if final.exists():
            _require_same(final, manifest)
        else:
            waiting.mkdir(parents=True, exist_ok=True)
            with _alone(waiting, "is being pulled by another process"):
                got = _fetch_all(far, waiting, manifest, workers=workers, progress=_Progress(advance))
                final.parent.mkdir(exist_ok=True)
                waiting.rename(final)
            sync_folder(final.parent)
    return TransferReport(manifest.session, far.url, len(manifest.files), manifest.size_bytes, sum(got))


@contextmanager
def _resumable(command: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise TransferInterruptedError(
            "interrupted", kept="every local file, and what has arrived so far", next_step=command
        ) from None


@contextmanager
def _alone(folder: Path, otherwise: str) -> Iterator[None]:
    """Hold a session folder's lock, as a recording engine does; ``otherwise`` says what it means that it is held."""
    fd = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise TransferError(
            f"{folder.name} {otherwise}",
            kept="everything",
            next_step="give the same command again when that has ended",
        ) from None
    finally:
        os.close(fd)


def _require_finished(session: SessionFolder) -> None:
    missing = [r.name for r in session.record().rounds if r.name not in session.valid_takes()]
    if missing and session.record().source == "captured":
        raise TransferError(
            f"{session.path.name}: round {missing[0]} is still missing, so its local copy is needed to go on",
            kept="everything",
            next_step="finish it with `rig record --session`, or push without --free-local",
        )


def _inventory(session: SessionFolder) -> PushManifest:
    """Hash every regular file; those that the journal acknowledges must still be what they were."""
    files = [_described(session.path, p) for p in _regular_files(session.path)]
    recorded = {r.get("path"): r.get("sha256") for r in session.journal().rows if r.kind == "saved"}
    changed = [f.path for f in files if recorded.get(f.path, f.sha256) != f.sha256]
    missing = sorted(set(recorded) - {f.path for f in files})
    if changed or missing:
        raise DamagedDataError(
            f"{session.path}: {(changed + missing)[0]} is {'changed' if changed else 'missing'} since it was recorded",
            kept="everything; nothing was freed",
            next_step="catalog verify names every damaged file; restore them from a copy",
        )
    return PushManifest(session=session.record().session, files=tuple(files))


def _regular_files(folder: Path) -> list[Path]:
    found = (Path(root, name) for root, _, names in os.walk(folder) for name in names)
    mine = (p for p in found if p.name != _LOCK_FILE and not p.name.endswith(".part"))
    return sorted(p for p in mine if p.is_file() and not p.is_symlink())


def _described(root: Path, path: Path) -> PushedFile:
    name = path.relative_to(root).as_posix()
    if _SAFE_PATH.fullmatch(name) is None:
        raise TransferError(
            f"{path}: no session holds a file of such a name, so `catalog pull` would refuse it",
            kept="everything",
            next_step="move or rename it, then push again",
        )
    return PushedFile(path=name, size_bytes=path.stat().st_size, sha256=file_sha256(path))


def _far_manifest(far: FarStore) -> PushManifest | None:
    if far.size_bytes(PUSH_FILE) is None:
        return None
    try:
        return PushManifest.model_validate_json(far.read(PUSH_FILE, limit_bytes=_MANIFEST_LIMIT_BYTES))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise DamagedDataError(
            f"{far.url}/{PUSH_FILE}: {problem['msg']}",
            kept="everything here",
            next_step="push the session again",
        ) from None


def _make_way(far: FarStore, manifest: PushManifest, session: SessionFolder) -> None:
    """Refuse to replace a session that has only its name in common; an older push of this one is open from here on."""
    there = _far_manifest(far)
    if there is None or there == manifest:
        return
    recorded = {r.get("path") for r in session.journal().rows if r.kind == "saved"} | {"session.json"}
    theirs = {f.path: f.sha256 for f in there.files}
    for file in manifest.files:
        if file.path in recorded and theirs.get(file.path, file.sha256) != file.sha256:
            raise TransferError(
                f"{far.url}: another session of this name lies there ({file.path} differs)",
                kept="both, unchanged",
                next_step="push to another address",
            )
    far.remove(PUSH_FILE)


def _each(files: Sequence[PushedFile], workers: int, act: Callable[[PushedFile], bool]) -> list[bool]:
    """Do the same to every file, a few at a time; the first failure ends it."""
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(act, file) for file in files]
        try:
            return [w.result() for w in waiting]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _send(session: SessionFolder, far: FarStore, file: PushedFile, advance: Advance) -> bool:
    """Send one file unless it is there already; returns whether it was sent. It counts once it was read back."""
    if far.size_bytes(file.path) == file.size_bytes and far.sha256(file.path, advance=advance) == file.sha256:
        advance(file.size_bytes)
        return False
    far.send(session.path / file.path, file.path, sha256=file.sha256, advance=advance)
    return True


def _fetch_all(
    far: FarStore, folder: Path, manifest: PushManifest, *, workers: int, progress: Advance
) -> list[bool]:
    """Bring a session's files; what an older pull left and this push does not hold is removed."""
    _require_room(folder, manifest.size_bytes)
    fetched = _each(manifest.files, workers, lambda f: _fetch(far, folder, f, progress))
    wanted = {file.path for file in manifest.files}
    for path in _regular_files(folder):
        if path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
    return fetched


def _fetch(far: FarStore, folder: Path, file: PushedFile, advance: Advance) -> bool:
    target = folder / file.path
    if target.is_file() and not target.is_symlink() and file_sha256(target) == file.sha256:
        advance(file.size_bytes)
        return False
    arrived = far.get(file.path, target, advance=advance)
    if arrived != file.sha256:
        target.unlink()
        raise DamagedDataError(
            f"{far.url}/{file.path}: arrived with another content than was pushed",
            kept="the files that arrived whole",
            next_step="pull again; if it stays, the far copy is damaged",
        )
    return True


def _require_same(folder: Path, manifest: PushManifest) -> None:
    for file in manifest.files:
        path = folder / file.path
        if not path.is_file() or path.stat().st_size != file.size_bytes or file_sha256(path) != file.sha256:
            raise TransferError(
                f"{folder}: is here already and {file.path} differs from the pushed one",
                kept="both, unchanged",
                next_step="move the local session away, then pull again",
            )


def _require_room(folder: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise TransferError(
            f"{folder.parent}: {free_bytes / 1e9:.1f} GB free, the session needs {needed_bytes / 1e9:.1f} GB",
            kept="everything",
            next_step="free space, or use --data on another disk",
        )


def _free(session: SessionFolder, manifest: PushManifest, url: str) -> int:
    """Delete the local files that were read back on the far side and are still the same; leave a receipt."""
    receipts = session.path.parent.parent / RECEIPTS_FOLDER
    receipts.mkdir(exist_ok=True)
    receipt = {"schema": 1, "session": manifest.session, "url": url, "files": len(manifest.files)}
    replace_file(receipts / f"{manifest.session}.json", json.dumps(receipt, indent=1).encode())
    freed = 0
    for file in manifest.files:
        path = session.path / file.path
        if path.is_symlink() or not path.is_file() or file_sha256(path) != file.sha256:
            continue  # written since: it stays
        path.unlink()
        freed += file.size_bytes
    _remove_empty_folders(session.path)
    return freed


def _remove_empty_folders(folder: Path) -> None:
    (folder / _LOCK_FILE).unlink(missing_ok=True)
    for root, _, _ in os.walk(folder, topdown=False):
        if not any(os.scandir(root)):
            Path(root).rmdir()
