"""Sessions off the rig PC and back: a local path, and S3 spoken to moto's server."""

import fcntl
import json
import re
import threading
from pathlib import Path

import pytest
from pydantic import ValidationError

from catalog.errors import DamagedDataError
from catalog.far_store import FarStore, StoreError, StoreUrlError
from catalog.journal import seal_journal_row
from catalog.session_folder import SessionFolder, file_sha256
from catalog.transfer import PushManifest, TransferError, pull, push

MOVIE = bytes(range(256)) * 50_000
"""12.8 MB: more than one part of an S3 upload."""


@pytest.fixture
def session(tmp_path: Path) -> SessionFolder:
    """A finished one-round session whose journal acknowledges its movie."""
    return make_session(tmp_path / "data", MOVIE)


def make_session(data: Path, movie: bytes, *, outcome: str = "valid") -> SessionFolder:
    folder = data / "sessions" / "shelf-1"
    take = folder / "rounds" / "01-gt.take1"
    take.mkdir(parents=True)
    (take / "main-01.mov").write_bytes(movie)
    (folder / "pairs" / "gt").mkdir(parents=True)
    (folder / "pairs" / "gt" / "000001.png").write_bytes(b"png")
    record = {
        "schema": 1, "session": "shelf-1", "scene": "shelf", "created_utc_us": 1, "source": "captured", "rig": "sim",
        "simulated": True, "cameras": ["main"], "boards": [],
        "rounds": [{"number": 1, "name": "gt", "role": "gt"}],
    }  # fmt: skip
    (folder / "session.json").write_text(json.dumps(record))
    path = "rounds/01-gt.take1/main-01.mov"
    rows = [
        {"kind": "take_intent", "round": "gt", "take": 1},
        {
            "kind": "saved",
            "path": path,
            "size_bytes": len(movie),
            "sha256": file_sha256(take / "main-01.mov"),
        },
        {"kind": "take_outcome", "round": "gt", "take": 1, "state": outcome, "reason": ""},
    ]
    write_journal(folder / "journal.jsonl", rows)
    return SessionFolder(folder)


def write_journal(path: Path, rows: list[dict[str, object]]) -> None:
    line = None
    with path.open("wb") as out:
        for seq, row in enumerate(rows, start=1):
            line = seal_journal_row({"seq": seq, "t_utc_us": 0, "t_host_s": 0.0, **row}, previous_line=line)
            out.write(line)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != ".lock"
    }


@pytest.fixture(params=["path", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "nas") if request.param == "path" else request.getfixturevalue("s3") + "/sessions"


@pytest.fixture(autouse=True)
def _an_empty_store(request: pytest.FixtureRequest) -> None:
    if "store" in request.fixturenames and request.getfixturevalue("store").startswith("s3"):
        import fsspec

        files, root = fsspec.core.url_to_fs(request.getfixturevalue("store"))
        if files.exists(root):
            files.rm(root, recursive=True)


def test_a_pushed_session_comes_back_byte_for_byte(session, store, tmp_path):
    before = contents(session.path)

    report = push(session, store)
    back = pull(report.url, tmp_path / "other")

    assert report.sent == back.sent == len(before)
    assert contents(tmp_path / "other" / "sessions" / "shelf-1") == before


def test_freeing_deletes_here_what_was_read_back_there(session, store, tmp_path):
    before = contents(session.path)

    report = push(session, store, free_local=True)

    assert not session.path.exists()
    assert report.freed_bytes == sum(len(b) for b in before.values())
    receipt = json.loads((tmp_path / "data" / "pushed" / "shelf-1.json").read_text())
    pull(receipt["url"], tmp_path / "data")
    assert contents(session.path) == before


def test_a_second_push_sends_nothing_again(session, store):
    push(session, store)

    assert push(session, store).sent == 0


def test_a_push_goes_on_where_it_was_interrupted(session, store):
    class StopError(Exception):
        pass

    far = FarStore(store).below("shelf-1")

    def interrupt_after_the_movie(_: float) -> None:
        if far.size_bytes("rounds/01-gt.take1/main-01.mov") is not None:
            raise StopError

    with pytest.raises(StopError):
        push(session, store, workers=1, advance=interrupt_after_the_movie)
    assert far.size_bytes("push.json") is None  # not complete, and it says so
    there = sum(far.size_bytes(name) is not None for name in contents(session.path))

    assert push(session, store).sent == len(contents(session.path)) - there


def test_damage_on_the_far_side_is_found_and_sent_again(session, tmp_path):
    push(session, str(tmp_path / "nas"))
    far = tmp_path / "nas" / "shelf-1" / "rounds" / "01-gt.take1" / "main-01.mov"
    damaged = bytearray(far.read_bytes())
    damaged[1_000_000] ^= 1
    far.write_bytes(damaged)

    with pytest.raises(DamagedDataError, match=r"main-01\.mov: arrived with another content"):
        pull(str(tmp_path / "nas" / "shelf-1"), tmp_path / "other")
    assert not (tmp_path / "other" / "sessions" / "shelf-1").exists()

    assert push(session, str(tmp_path / "nas"), free_local=True).sent == 1
    assert far.read_bytes() == MOVIE


def test_a_store_that_damages_what_it_takes_frees_nothing(session, tmp_path, monkeypatch):
    real = FarStore.sha256
    monkeypatch.setattr(FarStore, "sha256", lambda self, name, **k: real(self, name, **k)[::-1])

    with pytest.raises(StoreError, match="reads back differently"):
        push(session, str(tmp_path / "nas"), free_local=True)

    assert (session.path / "rounds" / "01-gt.take1" / "main-01.mov").read_bytes() == MOVIE


def test_a_recorded_file_that_changed_is_not_pushed(session, tmp_path):
    (session.path / "rounds" / "01-gt.take1" / "main-01.mov").write_bytes(b"other")

    with pytest.raises(DamagedDataError, match=r"main-01\.mov is changed since it was recorded"):
        push(session, str(tmp_path / "nas"))


def test_a_session_that_is_being_recorded_is_left_alone(session, tmp_path):
    with (session.path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        with pytest.raises(TransferError, match="is being recorded"):
            push(session, str(tmp_path / "nas"))


def test_an_unfinished_session_may_be_copied_but_not_freed(tmp_path):
    session = make_session(tmp_path / "data", b"movie", outcome="void")

    with pytest.raises(TransferError, match="round gt is still missing"):
        push(session, str(tmp_path / "nas"), free_local=True)

    assert push(session, str(tmp_path / "nas")).sent == 4


def test_another_session_of_the_same_name_is_never_replaced(session, tmp_path):
    push(session, str(tmp_path / "nas"))
    other = make_session(tmp_path / "elsewhere", b"another movie")

    with pytest.raises(TransferError, match="another session of this name"):
        push(other, str(tmp_path / "nas"))

    assert (tmp_path / "nas" / "shelf-1" / "rounds" / "01-gt.take1" / "main-01.mov").read_bytes() == MOVIE


def test_aligned_again_after_a_push_the_new_pairs_follow(session, tmp_path):
    push(session, str(tmp_path / "nas"))
    (session.path / "pairs" / "gt" / "000001.png").write_bytes(b"better")

    report = push(session, str(tmp_path / "nas"))

    assert report.sent == 1
    pull(report.url, tmp_path / "other")
    assert (tmp_path / "other/sessions/shelf-1/pairs/gt/000001.png").read_bytes() == b"better"


def test_a_pull_onto_a_changed_local_session_keeps_both(session, tmp_path):
    report = push(session, str(tmp_path / "nas"))
    (session.path / "pairs" / "gt" / "000001.png").write_bytes(b"mine")

    with pytest.raises(TransferError, match=r"000001\.png differs from the pushed one"):
        pull(report.url, tmp_path / "data")

    assert (session.path / "pairs" / "gt" / "000001.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a//b", "a/../b", "", "a\x00b", ".ssh/id", "a/" * 9 + "b"]
)
def test_a_manifest_cannot_lead_out_of_the_session(path):
    file = {"path": path, "size_bytes": 1, "sha256": "0" * 64}

    with pytest.raises(ValidationError, match="not a path inside a session"):
        PushManifest.model_validate({"schema": 1, "session": "shelf-1", "files": [file]})


def test_a_hostile_manifest_is_refused_by_pull(session, tmp_path):
    push(session, str(tmp_path / "nas"))
    manifest = tmp_path / "nas" / "shelf-1" / "push.json"
    document = json.loads(manifest.read_text())
    document["files"][0]["path"] = "../../outside"
    manifest.write_text(json.dumps(document))

    with pytest.raises(DamagedDataError, match="not a path inside a session"):
        pull(str(tmp_path / "nas" / "shelf-1"), tmp_path / "other")

    assert not (tmp_path / "other").exists()


def test_links_in_a_session_are_not_followed(session, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("private")
    (session.path / "pairs" / "gt" / "link.png").symlink_to(secret)

    push(session, str(tmp_path / "nas"))

    assert not (tmp_path / "nas" / "shelf-1" / "pairs" / "gt" / "link.png").exists()


def test_a_store_that_cannot_be_reached_is_named(session, s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    import fsspec

    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(StoreError, match="s3://rig/sessions/shelf-1"):
        push(session, f"{s3}/sessions")
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_a_url_of_no_known_kind_is_refused(session):
    with pytest.raises(StoreUrlError, match="gopher"):
        push(session, "gopher://old/hole")


def test_an_empty_address_has_nothing_to_pull(tmp_path):
    with pytest.raises(StoreError, match="no complete session lies there"):
        pull(str(tmp_path / "nowhere"), tmp_path)


def test_two_pushes_of_one_session_do_not_meet(session, tmp_path):
    refused = []
    started, go_on = threading.Event(), threading.Event()

    def hold(_: float) -> None:
        started.set()
        go_on.wait(10)

    first = threading.Thread(target=lambda: push(session, str(tmp_path / "nas"), advance=hold))
    first.start()
    started.wait(10)
    try:
        push(session, str(tmp_path / "nas"))
    except TransferError as error:
        refused.append(error)
    go_on.set()
    first.join(10)

    assert len(refused) == 1


def test_threads_tell_of_their_progress_one_at_a_time(session, tmp_path):
    """The first to tell waits a moment for a second one to come in; nobody may."""
    inside, together, first = [], threading.Event(), threading.Lock()

    def advance(_: float) -> None:
        inside.append(1)
        if len(inside) > 1:
            together.set()
        if first.acquire(blocking=False):
            together.wait(0.3)
        inside.pop()

    push(session, str(tmp_path / "nas"), workers=4, advance=advance)

    assert not together.is_set()


@pytest.mark.parametrize("name", ["my clip.mov", ".hidden"])
def test_a_file_that_could_not_come_back_is_named_before_anything_is_sent(session, tmp_path, name):
    (session.path / "rounds" / name).write_bytes(b"x")

    with pytest.raises(TransferError, match=re.escape(f"{name}: no session holds a file of such a name")):
        push(session, str(tmp_path / "nas"))

    assert not (tmp_path / "nas").exists()


def test_two_pulls_of_one_session_do_not_meet(session, tmp_path):
    report = push(session, str(tmp_path / "nas"))
    waiting = tmp_path / "other" / "incoming" / "shelf-1"
    waiting.mkdir(parents=True)

    with (waiting / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TransferError, match="is being pulled by another process"):
            pull(report.url, tmp_path / "other")

    assert pull(report.url, tmp_path / "other").sent == 4


def test_what_an_older_pull_left_is_no_part_of_the_session(session, tmp_path):
    before = contents(session.path)
    report = push(session, str(tmp_path / "nas"))
    stray = tmp_path / "other" / "incoming" / "shelf-1" / "pairs" / "gt" / "000009.png"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"of another alignment")

    pull(report.url, tmp_path / "other")

    assert contents(tmp_path / "other" / "sessions" / "shelf-1") == before
