"""The power goes at any moment of a session: nothing acknowledged is lost, nothing half-written counts, it goes on.

A session is recorded on a disk that writes down every change and every sync. Of each prefix of that log, folders are
laid out as a POSIX file system may leave them, the product recovers and completes them, and the independent checker
judges. About 220 images; with CLEANPLATE_NIGHTLY=1 more than 7,000.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from paper_session import PaperSession
from recorded_disk import PowerCut, RecordedDisk, Surviving
from session_checker import is_complete, violations

import rig.session
import rig.storage
from catalog.errors import CleanplateError
from catalog.session_folder import SessionFolder

NIGHTLY = os.environ.get("CLEANPLATE_NIGHTLY") == "1"
WAYS: tuple[Surviving, ...] = get_args(Surviving)


def recorded(folder: Path) -> RecordedDisk:
    """Record a session; returns the disk with its log."""
    folder.mkdir()
    with RecordedDisk(folder) as disk:
        PaperSession(folder, disk.tell).record()
    return disk


def images(disk: RecordedDisk, *, every: int, seed: int) -> list[tuple[int, Surviving]]:
    """Draw moments and what survives of each; ``every`` moment, or one of so many."""
    draw = random.Random(seed)
    moments = [k for k in range(len(disk.steps) + 1) if NIGHTLY or draw.randrange(every) == 0]
    return [(k, way) for k in moments for way in (WAYS if NIGHTLY else (draw.choice(WAYS),))]


def wrongs(disk: RecordedDisk, moment: int, way: Surviving, folder: Path, *, seed: int) -> list[str]:
    """Lay out one image, let the product recover it, and list what is wrong then."""
    cut = PowerCut(disk.root, disk.steps[:moment])
    cut.lay_out(folder, way, random.Random(f"{seed} {moment} {way}"))
    try:
        return _wrongs_after_recovery(folder, cut.told)
    except (CleanplateError, OSError) as error:
        return [f"recovery failed: {type(error).__name__}: {error}"]
    finally:
        shutil.rmtree(folder)


def _wrongs_after_recovery(folder: Path, told: list[Any]) -> list[str]:
    session = folder / "sessions" / "s1"
    if not (session / "session.json").is_file():
        return [f"{fact}: told, and there is no session" for fact in told]
    acknowledged = [fact[1] for fact in told if fact[0] == "saved"]
    promised = _valid_by(told) - {
        (t.round.name, t.number) for t in SessionFolder(session).valid_takes().values()
    }
    acknowledgements = list(acknowledged)
    with RecordedDisk(folder):  # where syncing costs nothing
        PaperSession(folder, lambda f: acknowledgements.append(f[1]) if f[0] == "saved" else None).go_on()
    found = violations(session, acknowledgements)
    return [
        *(f"{take}: told to be valid and is not" for take in promised),
        *found,
        *([] if is_complete(session) else ["the session cannot be completed"]),
    ]


def _valid_by(told: list[Any]) -> set[tuple[str, int]]:
    valid = {fact[1:] for fact in told if fact[0] == "valid"}
    return valid - {fact[1:] for fact in told if fact[0] == "doubted"}


@pytest.mark.timeout(3600 if NIGHTLY else 600)
@pytest.mark.parametrize("seed", range(8 if NIGHTLY else 2))
def test_whatever_a_power_cut_leaves_is_recovered(tmp_path, seed: int):
    disk = recorded(tmp_path / "data")

    found = {
        (moment, way): wrong
        for moment, way in images(disk, every=2, seed=seed)
        if (wrong := wrongs(disk, moment, way, tmp_path / "image", seed=seed))
    }

    assert found == {}, f"{len(found)} images, seed {seed}"


def unsynced_bytes(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)
    rig.session.sync_folder(path.parent)


def unsynced_name(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    part.replace(path)


def in_place(path: Path, data: bytes) -> None:
    with path.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    rig.session.sync_folder(path.parent)


def unsynced_row(journal: Any, line: bytes) -> None:
    journal._file.write(line)


def nothing(*arguments: Any) -> None:
    """Do what a writer does that leaves something out."""


@pytest.mark.parametrize(
    ("module", "name", "broken"),
    [
        (rig.session, "replace_file", unsynced_bytes),
        (rig.session, "sync_folder", nothing),
        (rig.storage, "replace_file", unsynced_name),
        (rig.storage, "replace_file", in_place),
        (rig.storage.JournalWriter, "_write", unsynced_row),
    ],
    ids=[
        "bytes not synced",
        "folders not synced",
        "journal's name not synced",
        "journal copied in place",
        "rows not synced",
    ],
)
def test_a_broken_writer_is_caught(tmp_path, monkeypatch, module: Any, name: str, broken: Callable[..., Any]):
    """Of the same images that the real writer passes, at least one shows it."""
    with monkeypatch.context() as breaking:
        breaking.setattr(module, name, broken)
        disk = recorded(tmp_path / "data")

    assert any(
        wrongs(disk, moment, way, tmp_path / "image", seed=0)
        for moment in range(len(disk.steps) + 1)
        for way in WAYS
    )
