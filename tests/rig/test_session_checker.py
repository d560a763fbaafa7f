"""The judge of session folders, judged: a good folder passes, and every kind of broken writer is caught.

The good folder is the real recorder's work: two runs, the first of them killed within a take, and one take that was
superseded. Each broken writer is a small function that makes of it what such a writer would have left behind.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from session_checker import Witness, is_complete, read_rows, violations

from catalog.session_folder import (
    CameraTake,
    ColourTags,
    ExposureSettings,
    FrameTime,
    RoundRecord,
    SessionRecord,
    TakeRecord,
    TelemetrySample,
)
from rig.clock import SessionClock
from rig.session import SessionRecorder, TakeRecorder

GT = RoundRecord(number=1, name="gt", role="gt")
DARK = RoundRecord(number=2, name="dark", role="external")
MOVIE = "rounds/01-gt.take2/main-01.mov"
Row = dict[str, Any]


@dataclass
class Evidence:
    """What there is to judge: a folder and what the runs said they had saved."""

    session: Path
    acknowledged: list[Row]

    def found(self) -> list[str]:
        return violations(self.session, self.acknowledged)

    @property
    def journal(self) -> Path:
        return self.session / "journal.jsonl"

    def lines(self) -> list[bytes]:
        return self.journal.read_bytes().splitlines(keepends=True)

    def rewrite(self, change: Callable[[list[Row]], None]) -> None:
        """Let a forger who knows the format change the rows: numbers, chain and sums come out right."""
        rows, _ = read_rows(self.session)
        change(rows)
        previous = b""
        lines = []
        for seq, row in enumerate(rows, start=1):
            prev = hashlib.sha256(previous).hexdigest() if previous else "0" * 64
            body = {**row, "seq": seq, "prev": prev}
            crc = f"{zlib.crc32(compact(body)):08x}"
            previous = compact({**body, "crc32": crc}) + b"\n"
            lines.append(previous)
        self.journal.write_bytes(b"".join(lines))

    def append(self, *rows: Row) -> None:
        last = read_rows(self.session)[0][-1]
        self.rewrite(lambda all_rows: all_rows.extend({**last_times(last), **row} for row in rows))


def compact(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()


def last_times(row: Row) -> Row:
    return {"seq": 0, "t_utc_us": row["t_utc_us"], "t_host_s": row["t_host_s"]}


def row_of(rows: list[Row], kind: str, **members: Any) -> Row:
    return next(r for r in rows if r["kind"] == kind and members.items() <= r.items())


class GoodWriter:
    """Records rounds without devices, through the real recorder."""

    def __init__(self, sessions: Path) -> None:
        self.session = sessions / "s1"
        self.acknowledged: list[Row] = []
        self._clock = SessionClock()
        record = SessionRecord(
            session="s1", scene="shelf", created_utc_us=1, source="captured", rig="sim", simulated=True,
            cameras=("main",), boards=(), rounds=(GT, DARK),
        )  # fmt: skip
        with SessionRecorder.create(sessions, record, self._clock) as recorder:
            recorder.note("run_started", rounds=["gt", "dark"])
            killed = self.begin(recorder, GT)
            (killed.folder / "main-01.mov.part").write_bytes(b"half a mo")
        with SessionRecorder(self.session, self._clock) as recorder:
            recorder.note("run_started", rounds=["gt", "dark"])
            self.record(recorder, GT, b"movie of gt")
            self.record(recorder, DARK, b"a bad movie")
            recorder.supersede("dark", 1, "spoiled: too dark")
            self.record(recorder, DARK, b"a better movie")
            recorder.note("run_finished")

    def begin(self, recorder: SessionRecorder, round_: RoundRecord) -> TakeRecorder:
        take = recorder.begin_take(round_)
        take.on_saved(
            lambda path, file: self.acknowledged.append(
                {"event": "saved", "t_host_s": self._clock.now(), "path": path, "size_bytes": file.size_bytes,
                 "sha256": file.sha256}
            )
        )  # fmt: skip
        return take

    def record(self, recorder: SessionRecorder, round_: RoundRecord, movie: bytes) -> None:
        take = self.begin(recorder, round_)
        take.save("main-01.mov", movie)
        frames = take.save_frames("main", [FrameTime(k, k, "1/30", 10 + k / 30) for k in range(3)])
        telemetry = take.save_telemetry(
            "telemetry.csv", [TelemetrySample(10 + k, 5.0 * k, 5.0, "moving") for k in range(3)]
        )
        camera = CameraTake(
            kind="movie", files=("main-01.mov",), frames_csv=frames, width=8, height=8, frame_count=3,
            measured_rate_hz=30, colour=ColourTags(), settings_read=ExposureSettings(),
        )  # fmt: skip
        take.finish(
            TakeRecord(
                round=round_, take=take.number, cameras={"main": camera}, files=take.files, telemetry=telemetry,
                motion_started_t_host_s=10.0, motion_ended_t_host_s=12.0,
            )
        )  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Evidence:
    writer = GoodWriter(tmp_path_factory.mktemp("good"))
    return Evidence(writer.session, writer.acknowledged)


@pytest.fixture
def evidence(good, tmp_path) -> Evidence:
    shutil.copytree(good.session, tmp_path / "s1")
    return Evidence(tmp_path / "s1", [dict(e) for e in good.acknowledged])


def test_a_good_folder_passes(evidence):
    assert evidence.found() == []
    assert is_complete(evidence.session)
    assert len(evidence.acknowledged) == 12  # movie, frames, telemetry and round.json of three takes


def test_a_torn_last_line_is_no_violation(evidence):
    with evidence.journal.open("ab") as journal:
        journal.write(b'{"seq":99,"kind":"sav')

    assert evidence.found() == []


def test_a_session_without_its_last_round_is_not_complete(evidence):
    evidence.rewrite(lambda rows: rows.__delitem__(slice(-2, None)))

    assert not is_complete(evidence.session)


def test_acknowledgements_without_any_journal_are_all_violations(evidence):
    evidence.journal.unlink()

    assert len(evidence.found()) == 12


# Broken writers, one each.


def acknowledges_before_rename(e: Evidence) -> None:
    (e.session / MOVIE).rename(e.session / (MOVIE + ".part"))


def acknowledges_before_the_journal_is_synced(e: Evidence) -> None:
    """What a power cut leaves of a writer that does not wait for the row: all lines from it on are gone."""
    at = next(k for k, line in enumerate(e.lines()) if MOVIE.encode() in line)
    e.journal.write_bytes(b"".join(e.lines()[:at]))


def never_journals_a_saved_file(e: Evidence) -> None:
    e.rewrite(lambda rows: rows.remove(row_of(rows, "saved", path=MOVIE)))


def acknowledges_a_wrong_hash(e: Evidence) -> None:
    e.acknowledged[0]["sha256"] = "0" * 64


def acknowledges_another_size(e: Evidence) -> None:
    e.acknowledged[0]["size_bytes"] += 1


def acknowledges_before_the_row(e: Evidence) -> None:
    e.acknowledged[0]["t_host_s"] -= 1


def acknowledges_twice(e: Evidence) -> None:
    e.acknowledged.insert(1, dict(e.acknowledged[0]))


def acknowledges_in_another_order(e: Evidence) -> None:
    e.acknowledged.reverse()


def hashes_what_it_did_not_write(e: Evidence) -> None:
    row_hash = hashlib.sha256(b"something else").hexdigest()
    e.acknowledged = []
    e.rewrite(lambda rows: row_of(rows, "saved", path=MOVIE).update(sha256=row_hash))


def truncates_after_the_acknowledgement(e: Evidence) -> None:
    (e.session / MOVIE).write_bytes(b"movie")


def loses_a_file_nobody_was_told_of(e: Evidence) -> None:
    e.acknowledged = []
    (e.session / MOVIE).unlink()


def lists_a_part(e: Evidence) -> None:
    e.acknowledged = []
    (e.session / MOVIE).rename(e.session / (MOVIE + ".part"))
    e.rewrite(lambda rows: row_of(rows, "saved", path=MOVIE).update(path=MOVIE + ".part"))


def numbers_two_takes_alike(e: Evidence) -> None:
    e.rewrite(lambda rows: row_of(rows, "take_intent", round="gt", take=2).update(take=1))


def renumbers_a_take(e: Evidence) -> None:
    """It clears the void first take away and gives its number to the second."""
    rounds = e.session / "rounds"
    shutil.rmtree(rounds / "01-gt.take1")
    (rounds / "01-gt.take2").rename(rounds / "01-gt.take1")


def reuses_the_folder_of_a_void_take(e: Evidence) -> None:
    name = "rounds/02-dark.take1/main-01.mov"
    (e.session / name).write_bytes(b"a better movie")


def saves_a_file_twice(e: Evidence) -> None:
    e.rewrite(
        lambda rows: rows.insert(-4, dict(row_of(rows, "saved", path="rounds/02-dark.take2/main-01.mov")))
    )


def keeps_two_valid_takes(e: Evidence) -> None:
    e.rewrite(lambda rows: rows.remove(row_of(rows, "take_outcome", round="dark", state="void")))


def records_a_valid_round_again(e: Evidence) -> None:
    (e.session / "rounds/01-gt.take3").mkdir()
    e.append({"kind": "take_intent", "round": "gt", "take": 3})


def sets_out_for_a_valid_round(e: Evidence) -> None:
    e.append({"kind": "run_started", "rounds": ["gt"]})


def revives_a_void_take(e: Evidence) -> None:
    e.append({"kind": "take_outcome", "round": "dark", "take": 1, "state": "valid", "reason": ""})


def voids_a_valid_take_for_nothing(e: Evidence) -> None:
    e.append({"kind": "take_outcome", "round": "gt", "take": 2, "state": "void", "reason": "interrupted"})


def ends_a_take_it_never_began(e: Evidence) -> None:
    e.append({"kind": "take_outcome", "round": "gt", "take": 9, "state": "void", "reason": "lost"})


def saves_into_a_finished_take(e: Evidence) -> None:
    e.rewrite(lambda rows: rows.append(rows.pop(rows.index(row_of(rows, "saved", path=MOVIE)))))


def edits_a_journal_line(e: Evidence) -> None:
    e.journal.write_bytes(e.journal.read_bytes().replace(b"too dark", b"too pale"))


def edits_the_last_journal_line(e: Evidence) -> None:
    e.journal.write_bytes(e.journal.read_bytes().replace(b"run_finished", b"run_perfect!"))


def removes_a_journal_line(e: Evidence) -> None:
    lines = e.lines()
    e.journal.write_bytes(b"".join(lines[:5] + lines[6:]))


def swaps_two_journal_lines(e: Evidence) -> None:
    lines = e.lines()
    lines[5], lines[6] = lines[6], lines[5]
    e.journal.write_bytes(b"".join(lines))


def tears_a_line_in_the_middle(e: Evidence) -> None:
    lines = e.lines()
    e.journal.write_bytes(b"".join([*lines[:5], lines[5][:20] + b"\n", *lines[6:]]))


def writes_no_round_json(e: Evidence) -> None:
    e.acknowledged = []
    (e.session / "rounds/01-gt.take2/round.json").unlink()
    e.rewrite(lambda rows: rows.remove(row_of(rows, "saved", path="rounds/01-gt.take2/round.json")))


def forgets_a_file_in_round_json(e: Evidence) -> None:
    replace_in_round_json(e, lambda record: record["files"].pop())


def describes_another_take(e: Evidence) -> None:
    replace_in_round_json(e, lambda record: record.update(take=1))


def counts_frames_that_are_not_there(e: Evidence) -> None:
    replace_in_round_json(e, lambda record: record["cameras"]["main"].update(frame_count=4))


def ends_before_it_began(e: Evidence) -> None:
    replace_in_round_json(e, lambda record: record.update(motion_ended_t_host_s=9.0))


def leaves_an_unlisted_file(e: Evidence) -> None:
    (e.session / "rounds/01-gt.take2/main-02.mov").write_bytes(b"second part")


def makes_a_folder_before_its_intent(e: Evidence) -> None:
    (e.session / "rounds/02-dark.take3").mkdir()


def runs_its_clock_backwards(e: Evidence) -> None:
    e.rewrite(lambda rows: row_of(rows, "saved", path=MOVIE).update(t_host_s=rows[0]["t_host_s"] - 1))


def replace_in_round_json(e: Evidence, change: Callable[[Row], object]) -> None:
    """Change `round.json` and let journal and acknowledgements agree with it."""
    name = "rounds/01-gt.take2/round.json"
    record = json.loads((e.session / name).read_bytes())
    change(record)
    content = compact(record)
    (e.session / name).write_bytes(content)
    members = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    next(a for a in e.acknowledged if a["path"] == name).update(members)
    e.rewrite(lambda rows: row_of(rows, "saved", path=name).update(members))


CAUGHT: dict[Callable[[Evidence], None], str] = {
    acknowledges_before_rename: f"{MOVIE}: in the journal but absent",
    acknowledges_before_the_journal_is_synced: f"{MOVIE}: acknowledged but not in the journal",
    never_journals_a_saved_file: f"{MOVIE}: acknowledged but not in the journal",
    acknowledges_a_wrong_hash: f"{MOVIE}: acknowledged but not in the journal",
    acknowledges_another_size: f"{MOVIE}: acknowledged with another size",
    acknowledges_before_the_row: f"{MOVIE}: acknowledged before its journal row",
    acknowledges_twice: "a file was acknowledged twice",
    acknowledges_in_another_order: "acknowledgements came in another order",
    hashes_what_it_did_not_write: f"{MOVIE}: partial or changed",
    truncates_after_the_acknowledgement: f"{MOVIE}: partial or changed",
    loses_a_file_nobody_was_told_of: f"{MOVIE}: in the journal but absent",
    lists_a_part: f"{MOVIE}.part: not a place for a finished file",
    numbers_two_takes_alike: "round gt: take 1 after [1]",
    renumbers_a_take: f"{MOVIE}: in the journal but absent",
    reuses_the_folder_of_a_void_take: "rounds/02-dark.take1/main-01.mov: partial or changed",
    saves_a_file_twice: "rounds/02-dark.take2/main-01.mov: saved twice",
    keeps_two_valid_takes: "round dark: a second valid take",
    records_a_valid_round_again: "round gt: recorded again although it has a valid take",
    sets_out_for_a_valid_round: "a run sets out to record ['gt'] although there are valid takes",
    revives_a_void_take: "take ('dark', 1): valid after it was void",
    voids_a_valid_take_for_nothing: "take ('gt', 2): valid and then void without a purpose",
    ends_a_take_it_never_began: "take ('gt', 9): an outcome without an intent",
    saves_into_a_finished_take: f"{MOVIE}: saved while its take was not being recorded",
    edits_a_journal_line: ": CRC",
    edits_the_last_journal_line: ": CRC",
    removes_a_journal_line: "journal line 6: chain",
    swaps_two_journal_lines: "journal line 6: chain",
    tears_a_line_in_the_middle: "journal line 6: no JSON object",
    writes_no_round_json: "01-gt.take2: valid without a round.json",
    forgets_a_file_in_round_json: "01-gt.take2: round.json lists other files than the journal",
    describes_another_take: "01-gt.take2: its round.json is of another take",
    counts_frames_that_are_not_there: "01-gt.take2: frames are not numbered through",
    ends_before_it_began: "01-gt.take2: the motion ends before it begins",
    leaves_an_unlisted_file: "01-gt.take2: files on disk and in the journal differ by ['main-02.mov']",
    makes_a_folder_before_its_intent: "rounds/02-dark.take3: a folder no journal row speaks of",
    runs_its_clock_backwards: "the clock runs backwards",
}


@pytest.mark.parametrize("broken_writer", CAUGHT, ids=lambda writer: writer.__name__)
def test_a_broken_writer_is_caught(evidence, broken_writer):
    broken_writer(evidence)

    found = evidence.found()

    assert any(CAUGHT[broken_writer] in violation for violation in found), found


# What only somebody who looked before can see.


def test_a_witness_has_nothing_to_say_of_a_good_writer(evidence):
    witness = Witness(evidence.session)
    witness.look(evidence.acknowledged)

    with SessionRecorder(evidence.session, SessionClock()) as recorder:
        recorder.note("run_started", rounds=[])

    assert witness.look(evidence.acknowledged) == []


def test_a_witness_sees_that_history_was_rewritten(evidence):
    witness = Witness(evidence.session)
    witness.look(evidence.acknowledged)

    evidence.rewrite(lambda rows: row_of(rows, "run_finished").update(kind="run_interrupted"))

    assert evidence.found() == []
    assert witness.look(evidence.acknowledged) == ["journal: rows seen earlier were changed or removed"]


def test_a_witness_sees_that_a_valid_take_was_recorded_over(evidence):
    """Movie, round.json, journal and acknowledgements all agree: only memory tells that there was another movie."""
    witness = Witness(evidence.session)
    witness.look(evidence.acknowledged)
    content = b"another movie"
    members = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}

    (evidence.session / MOVIE).write_bytes(content)
    evidence.acknowledged[0].update(members)
    evidence.rewrite(lambda rows: row_of(rows, "saved", path=MOVIE).update(members))
    replace_in_round_json(
        evidence,
        lambda record: next(f for f in record["files"] if f["path"] == "main-01.mov").update(members),
    )

    assert evidence.found() == []
    assert f"{MOVIE}: changed or removed between runs" in witness.look(evidence.acknowledged)


def test_a_witness_sees_that_a_void_take_was_cleared_away(evidence):
    (evidence.session / "rounds/01-gt.take1/note.txt").write_text("kept")
    witness = Witness(evidence.session)
    witness.look(evidence.acknowledged)

    shutil.rmtree(evidence.session / "rounds/01-gt.take1")

    assert witness.look(evidence.acknowledged) == [
        "rounds/01-gt.take1/note.txt: changed or removed between runs"
    ]
