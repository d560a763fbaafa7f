"""The recorder writes so that nothing acknowledged is lost and nothing is written twice."""

from __future__ import annotations

import hashlib
import multiprocessing
from pathlib import Path

import pytest

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
from rig.errors import RigBusyError
from rig.runtime import hold_lock
from rig.session import SessionRecorder

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

    import os

    assert f"session s1 is in use by process {os.getpid()}" in message


def test_a_session_is_never_created_over_another(tmp_path):
    with SessionRecorder.create(tmp_path, record(), SessionClock()):
        pass

    with pytest.raises(FileExistsError):
        SessionRecorder.create(tmp_path, record(), SessionClock())
