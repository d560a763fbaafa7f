"""Each call to the disk fails in turn: nothing acknowledged is damaged, the message says what to free, it goes on.

The n-th call of a recorded session fails with each error the system may give, n = 1, 2, 3, … until a session completes
without a fault; in the suite every so-manieth n, with CLEANPLATE_NIGHTLY=1 all of them.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from paper_session import PaperSession
from recorded_disk import KINDS, Fault, Kind, RecordedDisk
from session_checker import is_complete, violations
from small_rig import write_plan, write_profile

from rig.engine.session import SessionOrder
from rig.errors import StorageError
from rig.plan import CapturePlan
from rig.profile import RigProfile
from rig.storage import JournalWriter

NIGHTLY = os.environ.get("CLEANPLATE_NIGHTLY") == "1"
TAKES_SPACE: frozenset[Kind] = frozenset({"create", "write", "mkdir", "rename", "link", "fsync"})
OPENS: frozenset[Kind] = frozenset({"open", "create"})
FAULTS = {
    "full": (Fault(0, errno.ENOSPC, TAKES_SPACE), "free space"),
    "full and stays full": (Fault(0, errno.ENOSPC, TAKES_SPACE, lasts=True), "free space"),
    "over quota": (Fault(0, errno.EDQUOT, TAKES_SPACE, lasts=True), "free space within your quota"),
    "bad sector": (Fault(0, errno.EIO, KINDS), "is failing"),
    "dying": (Fault(0, errno.EIO, KINDS, lasts=True), "is failing"),
    "read-only": (Fault(0, errno.EROFS, KINDS - {"open"}, lasts=True), "mounted read-only"),
    "too many files": (Fault(0, errno.EMFILE, OPENS), "raise the limit"),
    "too many files for long": (Fault(0, errno.EMFILE, OPENS, lasts=True), "raise the limit"),
    "too large": (Fault(0, errno.EFBIG, frozenset({"write"}), lasts=True), "limit of file sizes"),
}


@dataclass
class Outcome:
    """What became of a session with a fault in it."""

    disk: RecordedDisk
    error: StorageError | None
    acknowledged: list[Any]
    session: Path


def with_fault(folder: Path, fault: Fault) -> Outcome:
    folder.mkdir()
    paper = PaperSession(folder, tell := [].append)
    acknowledged = tell.__self__
    error = None
    with RecordedDisk(folder, fault) as disk:
        try:
            paper.record()
        except StorageError as caught:
            error = caught
    return Outcome(disk, error, acknowledged, paper.folder)


def wrongs(outcome: Outcome, mend: str) -> Iterator[str]:
    """Yield what is wrong with a session that met a fault, before and after it has gone on."""
    if outcome.error is not None and mend not in outcome.error.next_step:
        yield f"the message does not tell what to do: {outcome.error}"
    yield from outcome.disk.trusted_again
    if not (outcome.session / "session.json").is_file():
        yield from (f"{fact}: told, and there is no session" for fact in outcome.acknowledged)
        return
    saved = [fact[1] for fact in outcome.acknowledged if fact[0] == "saved"]
    if outcome.error is None:
        yield from violations(outcome.session, saved)
    folder = outcome.session.parent.parent
    with RecordedDisk(folder):  # where syncing costs nothing
        PaperSession(folder, lambda f: saved.append(f[1]) if f[0] == "saved" else None).go_on()
    yield from violations(outcome.session, saved)
    if not is_complete(outcome.session):
        yield "the session cannot be completed"


@pytest.mark.timeout(3600 if NIGHTLY else 600)
@pytest.mark.parametrize("name", FAULTS)
def test_a_session_survives_each_call_that_fails(tmp_path, name: str):
    fault, mend = FAULTS[name]
    nth, stride = 1, 1 if NIGHTLY else 8
    found: dict[int, list[str]] = {}
    while (outcome := with_fault(tmp_path / str(nth), replace(fault, nth=nth))).disk.failed:
        if wrong := list(wrongs(outcome, mend)):
            found[nth] = wrong
        nth += stride

    assert found == {}, f"{len(found)} of {nth} calls"
    assert outcome.error is None
    assert nth > 10


def test_a_journal_that_goes_on_after_a_failure_is_caught(tmp_path, monkeypatch):
    """Half a row stays in the middle of such a journal, or a file is synced again whose sync had failed."""
    append = JournalWriter.append

    def forgetful(journal: JournalWriter, fields: Mapping[str, Any]) -> None:
        journal._failure = None
        append(journal, fields)

    monkeypatch.setattr(JournalWriter, "append", forgetful)
    fault, mend = FAULTS["bad sector"]

    outcomes = [with_fault(tmp_path / str(n), replace(fault, nth=n)) for n in range(70, 100)]

    assert any("journal.jsonl was written again" in wrong for o in outcomes for wrong in wrongs(o, mend))


@pytest.mark.timeout(600)
def test_short_writes_are_gone_on_with(tmp_path):
    """Every write takes half of what it is given, at least a byte, as a disk near its end may."""
    outcome = with_fault(tmp_path / "data", Fault(1, 0, frozenset({"write"}), lasts=True))

    assert len(outcome.disk.failed) > 500
    assert outcome.error is None
    assert list(wrongs(outcome, "")) == []


def test_a_data_folder_that_cannot_be_made_is_told_before_anything_moves(tmp_path):
    (tmp_path / "data").write_bytes(b"a file is in its place")
    plan, profile = CapturePlan.load(write_plan(tmp_path)), RigProfile.load(str(write_profile(tmp_path)))

    with pytest.raises(StorageError, match="data") as caught:
        SessionOrder.new(plan, profile, data=tmp_path / "data")

    assert (caught.value.code, caught.value.exit_code) == ("RIG-DISK-002", 3)
    assert caught.value.next_step


@contextmanager
def interrupted_every(interval_s: float) -> Iterator[list[int]]:
    """Let a signal with a handler break into whatever system call is in progress, again and again."""
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    signal.setitimer(signal.ITIMER_REAL, interval_s, interval_s)
    try:
        yield seen
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals come to the main thread only"
)
def test_interrupted_calls_are_gone_on_with(tmp_path):
    """EINTR comes from the kernel here: only a real signal tells whether each call is taken up again."""
    told: list[Any] = []

    with interrupted_every(0.0005) as seen:
        PaperSession(tmp_path, told.append).record()

    assert len(seen) > 10
    session = tmp_path / "sessions" / "s1"
    assert violations(session, [fact[1] for fact in told if fact[0] == "saved"]) == []
    assert is_complete(session)
