"""What the report is made of: everything a session folder says, read once and sorted by round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median
from typing import Literal

from alignment.report_words import listed, reason_words
from catalog.evidence import AlignmentRecord, PairRecord, RoundMotion
from catalog.journal import Journal
from catalog.records import degradation_key
from catalog.session_folder import (
    ALIGNMENT_FILE,
    PAIRS_FILE,
    ROUND_FILE,
    CameraTake,
    FrameTime,
    RoundRecord,
    SessionFolder,
    SessionRecord,
    Take,
    TakeRecord,
)


@dataclass(frozen=True)
class FrameTimes:
    """Whether a movie's time stamps run evenly."""

    dropped: int
    """Frames that are missing, by the length of the gaps."""
    duplicates: int
    """Frames whose time stamp does not come after the one before."""


@dataclass(frozen=True)
class TakeSource:
    """One take with what its folder holds."""

    take: Take
    record: TakeRecord | None
    """None where the take ended before `round.json` was written."""
    frames: FrameTimes | None

    @property
    def camera(self) -> CameraTake | None:
        """The first camera's part."""
        return next(iter(self.record.cameras.values()), None) if self.record else None

    @property
    def superseded(self) -> bool:
        """The take was set aside for a better one, so nothing went wrong."""
        return self.take.state == "void" and self.take.reason == "superseded"


@dataclass(frozen=True)
class RoundSource:
    """One planned round with its takes, its motion and the pairs whose degraded side it is."""

    record: RoundRecord
    takes: tuple[TakeSource, ...]
    motion: RoundMotion | None
    pairs: tuple[PairRecord, ...]

    @property
    def name(self) -> str:
        """The round's name."""
        return self.record.name

    @property
    def is_gt(self) -> bool:
        """The round is ground truth."""
        return self.record.role == "gt"

    @property
    def degradation(self) -> str:
        """The round's class, ``clean`` where nothing was made worse."""
        return degradation_key(self.record.degradations)

    @property
    def valid(self) -> TakeSource | None:
        """The valid take."""
        return next((t for t in self.takes if t.take.state == "valid"), None)

    @property
    def accepted(self) -> tuple[PairRecord, ...]:
        """The accepted pairs."""
        return tuple(p for p in self.pairs if p.verdict == "accepted")

    @property
    def rejected(self) -> tuple[PairRecord, ...]:
        """The rejected candidates."""
        return tuple(p for p in self.pairs if p.verdict == "rejected")


@dataclass(frozen=True)
class ReportSource:
    """A session as the report needs it."""

    folder: SessionFolder
    record: SessionRecord
    rounds: tuple[RoundSource, ...]
    alignment: AlignmentRecord | None
    """None where the session was not aligned yet."""
    journal: Journal

    @property
    def gt(self) -> RoundSource | None:
        """The first ground-truth round; the others are compared with it."""
        return next((r for r in self.rounds if r.is_gt), None)

    @property
    def degraded(self) -> tuple[RoundSource, ...]:
        """The rounds that pairs are made from."""
        return tuple(r for r in self.rounds if not r.is_gt)

    @property
    def pairs(self) -> tuple[PairRecord, ...]:
        """Every candidate pair, round by round."""
        return tuple(p for r in self.rounds for p in r.pairs)

    @property
    def accepted(self) -> tuple[PairRecord, ...]:
        """Every accepted pair."""
        return tuple(p for p in self.pairs if p.verdict == "accepted")


def read_source(folder: SessionFolder) -> ReportSource:
    """Read a session folder.

    Raises:
        SessionFolderError: A file is missing or does not fit its schema.
        DamagedDataError: The journal is damaged.
    """
    record = folder.record()
    aligned = (folder.path / PAIRS_FILE).is_file() and (folder.path / ALIGNMENT_FILE).is_file()
    alignment = folder.alignment() if aligned else None
    pairs = folder.pairs() if aligned else []
    takes = [_read_take(take) for take in folder.takes()]
    return ReportSource(
        folder=folder,
        record=record,
        rounds=tuple(_round(r, takes, alignment, pairs) for r in record.rounds),
        alignment=alignment,
        journal=folder.journal(),
    )


def _round(
    record: RoundRecord,
    takes: Iterable[TakeSource],
    alignment: AlignmentRecord | None,
    pairs: Iterable[PairRecord],
) -> RoundSource:
    motions = alignment.rounds if alignment else ()
    return RoundSource(
        record=record,
        takes=tuple(t for t in takes if t.take.round.name == record.name),
        motion=next((m for m in motions if m.round == record.name), None),
        pairs=tuple(p for p in pairs if p.lq.round == record.name),
    )


def _read_take(take: Take) -> TakeSource:
    if take.state != "valid" and not (take.folder / ROUND_FILE).is_file():
        return TakeSource(take, None, None)
    record = take.record()
    camera = next(iter(record.cameras), None)
    tabled = camera is not None and (take.folder / record.cameras[camera].frames_csv).is_file()
    return TakeSource(take, record, frame_times(take.frames(camera)) if camera and tabled else None)


def frame_times(frames: Sequence[FrameTime]) -> FrameTimes:
    """Find gaps and repeats in a movie's time stamps; the median interval is the rule."""
    times = [float(f.pts * Fraction(f.time_base)) for f in frames]
    steps = [after - before for before, after in pairwise(times)]
    forward = [s for s in steps if s > 0]
    if not forward:
        return FrameTimes(0, len(steps))
    usual = median(forward)
    return FrameTimes(
        dropped=sum(max(round(s / usual) - 1, 0) for s in forward), duplicates=len(steps) - len(forward)
    )


Level = Literal["complete", "warnings", "incomplete"]


@dataclass(frozen=True)
class Finding:
    """One thing the verdict rests on."""

    grave: bool
    """True makes the session incomplete, False is a warning."""
    text: str
    command: str = ""
    """What to type next."""


@dataclass(frozen=True)
class Verdict:
    """The session in one line."""

    level: Level
    findings: tuple[Finding, ...]


def judge_session(source: ReportSource) -> Verdict:
    """Say whether every round is recorded and gave pairs, and what else an operator should know."""
    findings = (*_missing(source), *_poor(source), *_warnings(source))
    if any(f.grave for f in findings):
        return Verdict("incomplete", findings)
    return Verdict("warnings" if findings else "complete", findings)


def _missing(source: ReportSource) -> list[Finding]:
    session = source.record.session
    found = [
        Finding(True, f"Round {r.name} has no valid take.", f"rig record --session {session}")
        for r in source.rounds
        if r.valid is None
    ]
    if source.alignment is None:
        found.append(Finding(True, "The session was not aligned yet.", f"alignment run {session}"))
    return found


def _poor(source: ReportSource) -> list[Finding]:
    if source.alignment is None:
        return []
    return [
        Finding(True, f"Round {r.name} gave no pair: {_chief_reasons(r)}.")
        for r in source.degraded
        if r.valid is not None and not r.accepted
    ]


def _chief_reasons(round_: RoundSource) -> str:
    if round_.motion is not None and round_.motion.verdict == "rejected":
        return listed([_plain(reason) for reason in round_.motion.reasons]) or "its motion was rejected"
    counts = Counter(reason for p in round_.rejected for reason in p.reasons)
    return ", ".join(f"{_plain(reason)} ({n})" for reason, n in counts.most_common(3)) or "no candidates"


def _plain(reason: str) -> str:
    return reason_words(reason).title.lower()


def _warnings(source: ReportSource) -> list[Finding]:
    found = [Finding(False, text) for text in (source.alignment.all_warnings if source.alignment else ())]
    noted = [row for row in source.journal.rows if row.kind == "warning"]
    found += [Finding(False, f"{row.get('round') or 'Session'}: {row.get('text')}") for row in noted]
    if source.journal.torn_bytes:
        found.append(Finding(False, f"The journal ends in {source.journal.torn_bytes} bytes of a torn line."))
    return [*found, *(f for r in source.rounds for f in _round_warnings(r))]


def _round_warnings(round_: RoundSource) -> list[Finding]:
    name = round_.name
    found = [
        Finding(False, f"Take {t.take.number} of round {name} is void: {t.take.reason or 'no reason given'}.")
        for t in round_.takes
        if t.take.state == "void" and not t.superseded
    ]
    frames = round_.valid.frames if round_.valid else None
    if frames and (frames.dropped or frames.duplicates):
        lost = f"{frames.dropped} dropped and {frames.duplicates} repeated frames"
        found.append(Finding(False, f"Round {name} has {lost}."))
    if round_.is_gt and round_.motion is not None and round_.motion.verdict == "rejected":
        found.append(Finding(False, f"Round {name} was not used: {', '.join(round_.motion.reasons)}."))
    return found
