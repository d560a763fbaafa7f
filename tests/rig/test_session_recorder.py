"""The recorder writes so that nothing acknowledged is lost and nothing is written twice."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import multiprocessing
import os
import resource
from pathlib import Path

import pytest
from recorded_disk import Fault, RecordedDisk

from catalog.journal import read_journal
from catalog.session_folder import (
    JOURNAL_FILE,
    RoundRecord,
    SessionFolder,
    SessionRecord,
    TakeRecord,
    file_sha256,
)
from rig.clock import SessionClock
from rig.errors import RigBusyError, StorageError
from rig.runtime import hold_lock
from rig.session import SessionRecorder
from rig.storage import BALLAST_BYTES, Ballast

OPEN = os.open
ROUND = RoundRecord(number=1, name="gt", role="gt")


def record() -> SessionRecord:
    return SessionRecord(
        session="s1",
        scene="shelf",
        created_utc_us=1,
        source="captured",
        rig="sim",
        simulated=True,
        cameras=("main",),
        boards=(),
        rounds=(ROUND,),
    )


def finish(recorder: SessionRecorder) -> None:
    take = recorder.begin_take(ROUND)
    take.finish(TakeRecord(round=ROUND, take=take.number, cameras={}, files=take.files))


def test_a_saved_file_is_acknowledged_after_its_journal_row(tmp_path):
    seen = []
    with SessionRecorder.create(tmp_path, record(), SessionClock()) as recorder:
        take = recorder.begin_take(ROUND)
        take.on_saved(
            lambda path, file: seen.append((path, file.sha256, read_journal(tmp_path / "s1" / JOURNAL_FILE)))
        )

        take.save("note.txt", b"hello")

    path, sha256, journal = seen[0]
    assert path == "rounds/01-gt.take1/note.txt"
    assert sha256 == hashlib.sha256(b"hello").hexdigest() == file_sha256(tmp_path / "s1" / path)
    assert journal.rows[-1].kind == "saved"
    assert journal.rows[-1].get("sha256") == sha256


def test_an_intent_without_an_outcome_is_a_void_take(tmp_path):
    with SessionRecorder.create(tmp_path, record(), SessionClock()) as recorder:
        recorder.begin_take(ROUND)

    takes = SessionFolder(tmp_path / "s1").takes()

    assert [(t.number, t.state, t.reason) for t in takes] == [(1, "void", "interrupted")]


def test_a_retake_is_a_new_take_and_the_old_one_keeps_its_number_and_folder(tmp_path):
    with SessionRecorder.create(tmp_path, record(), SessionClock()) as recorder:
        finish(recorder)
        recorder.supersede("gt", 1)
        finish(recorder)

    folder = SessionFolder(tmp_path / "s1")
    assert [(t.number, t.state, t.reason) for t in folder.takes()] == [
        (1, "void", "superseded"),
        (2, "valid", ""),
    ]
    assert all((t.folder / "round.json").is_file() for t in folder.takes())


def test_a_torn_journal_end_is_dropped_when_the_session_is_opened_again(tmp_path):
    with SessionRecorder.create(tmp_path, record(), SessionClock()) as recorder:
        finish(recorder)
    journal = tmp_path / "s1" / JOURNAL_FILE
    with journal.open("ab") as file:
        file.write(b'{"seq":99,"kind":"torn')

    with SessionRecorder(tmp_path / "s1", SessionClock()) as recorder:
        recorder.note("after")

    rows = read_journal(journal).rows
    assert [r.kind for r in rows[-2:]] == ["torn_tail_dropped", "after"]
    assert [r.seq for r in rows] == list(range(1, len(rows) + 1))


def fail_at_a_row(folder: Path, number: int) -> tuple[list[str], RecordedDisk]:
    """Record rows ``a``, ``b``, ``c`` on a disk that fails at the write of ``b``; returns the kinds that are there."""
    folder.mkdir()
    with (
        RecordedDisk(folder) as rehearsal,
        SessionRecorder.create(folder / "rehearsal", record(), SessionClock()) as recorder,
    ):
        recorder.note("a")
        writes = rehearsal.calls["write"]
    with (
        RecordedDisk(folder, Fault(writes + 1, number, frozenset({"write"}))) as disk,
        SessionRecorder.create(folder, record(), SessionClock()) as recorder,
    ):
        recorder.note("a")
        with pytest.raises(StorageError):
            recorder.note("b")
        with contextlib.suppress(StorageError):
            recorder.note("c")
    rows = read_journal(folder / "s1" / JOURNAL_FILE).rows
    return [row.kind for row in rows], disk


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_on_a_full_disk_the_ballast_makes_room_for_what_is_left_to_tell(tmp_path, number: int):
    kinds, disk = fail_at_a_row(tmp_path / "disk", number)

    assert kinds == ["session_created", "a", "b", "c"]
    assert disk.trusted_again == []


def test_a_ballast_is_of_no_use_on_a_disk_that_fails_otherwise(tmp_path):
    kinds, _ = fail_at_a_row(tmp_path / "disk", errno.EIO)

    assert kinds == ["session_created", "a"]


def without_unnamed_files(path: object, flags: int, *rest: int, **named: int) -> int:
    """Stand in for `os.open` on a file system that needs names, as exFAT and NFS do."""
    if flags & os.O_TMPFILE == os.O_TMPFILE:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    return OPEN(path, flags, *rest, **named)


@pytest.mark.parametrize("open_", [OPEN, without_unnamed_files])
def test_a_ballast_takes_room_under_no_name_and_gives_it_back_once(tmp_path, monkeypatch, open_):
    monkeypatch.setattr(os, "open", open_)

    ballast = Ballast(tmp_path)

    held = Path(f"/proc/self/fd/{ballast._descriptor}").stat()
    assert held.st_blocks * 512 >= BALLAST_BYTES
    assert list(tmp_path.iterdir()) == []
    assert ballast.drop()
    assert not ballast.drop()


def test_where_there_is_no_room_for_a_ballast_a_session_does_without(tmp_path):
    """A limit of file sizes stands for the full disk: either refuses the room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BALLAST_BYTES - 1, hard))
    try:
        with SessionRecorder.create(tmp_path, record(), SessionClock()) as recorder:
            recorder.note("a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert [row.kind for row in read_journal(tmp_path / "s1" / JOURNAL_FILE).rows] == ["session_created", "a"]


def try_to_lock(path: Path, answer: multiprocessing.Queue) -> None:
    try:
        hold_lock(path, what="session s1")
        answer.put("")
    except RigBusyError as error:
        answer.put(str(error))


def test_a_second_process_is_told_who_holds_the_session(tmp_path):
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    with hold_lock(tmp_path / ".lock", what="session s1"):
        other = context.Process(target=try_to_lock, args=(tmp_path / ".lock", answer))
        other.start()

        message = answer.get(timeout=30)
        other.join()

    assert f"session s1 is in use by process {os.getpid()}" in message


def test_a_session_is_never_created_over_another(tmp_path):
    with SessionRecorder.create(tmp_path, record(), SessionClock()):
        pass

    with pytest.raises(FileExistsError):
        SessionRecorder.create(tmp_path, record(), SessionClock())
