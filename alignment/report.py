"""The session report: one HTML page that needs no network, for the operator to look at and to keep.

Whatever stands in a session folder is data: the template escapes every value, figures are built as an element
tree, and `page` lets nothing run or load that is not its own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

import numpy as np
import yaml

from alignment.page import render_page
from alignment.report_axes import Figure
from alignment.report_error_figures import error_figures, place_figure, verdict_figure
from alignment.report_facts import (
    Fact,
    alignment_facts,
    device_facts,
    parameter_facts,
    version_facts,
)
from alignment.report_figures import motion_figures, pairing_figures, speed_figure
from alignment.report_pose_figure import gap_figure, pose_figure
from alignment.report_records import EventLine, TakeLine, checksum_text, event_lines, take_lines
from alignment.report_rounds import MOTION_COLUMNS, SETTINGS_COLUMNS, Row, motion_rows, settings_rows
from alignment.report_sheet import RejectGroup, SheetPart, contact_sheet, reject_groups, sheet_words
from alignment.report_source import Finding, ReportSource, Verdict, judge_session, read_source
from alignment.report_words import number, thousands, utc_time
from catalog.session_folder import PAIRS_FOLDER, SessionFolder, SessionRecord, replace_file

_VERDICTS = {
    "complete": ("●", "Complete"),
    "warnings": ("▲", "Complete with warnings"),
    "incomplete": ("✕", "Incomplete"),
}


@dataclass(frozen=True)
class Tile:
    """One of the large numbers at the top."""

    value: str
    unit: str
    label: str


@dataclass(frozen=True)
class Command:
    """A command to go on with."""

    line: str
    purpose: str


@dataclass(frozen=True)
class Report:
    """Everything the template shows, in the order of the page."""

    record: SessionRecord
    recorded: str
    symbol: str
    words: str
    level: str
    findings: tuple[Finding, ...]
    tiles: tuple[Tile, ...]
    settings_columns: tuple[str, ...]
    settings: tuple[Row, ...]
    gt_name: str
    motion_columns: tuple[str, ...]
    motion: tuple[Row, ...]
    speed: Figure | None
    motion_figures: tuple[Figure, ...]
    pose: Figure | None
    gap: Figure | None
    pairing_figures: tuple[Figure, ...]
    verdicts: Figure | None
    error_figures: tuple[Figure, ...]
    place: Figure | None
    sheet: tuple[SheetPart, ...]
    sheet_words: str
    fields: bool
    """Some of the sheet's pictures carry arrows."""
    targets: bool
    """Some of them carry what was followed in both frames."""
    pairs_folder: str
    rejects: tuple[RejectGroup, ...]
    takes: tuple[TakeLine, ...]
    events: tuple[EventLine, ...]
    devices: tuple[Fact, ...]
    alignment: tuple[Fact, ...]
    parameters: tuple[Fact, ...]
    versions: tuple[Fact, ...]
    plan: str
    profile: str
    checksums: str
    commands: tuple[Command, ...]


def write_report(folder: SessionFolder, target: Path) -> None:
    """Write the report of a session as one self-contained HTML file, in one step.

    Args:
        folder: The session; one that is not aligned yet, or not recorded to its end, gets a report that says so.
        target: The file to write; an older one is replaced.

    Raises:
        SessionFolderError: A file of the session is missing or does not fit its schema.
        DamagedDataError: The session's journal is damaged.
        OSError: The target cannot be written.
    """
    page = render_report(read_source(folder), pairs_folder=_relative(folder.path / PAIRS_FOLDER, target))
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, page.encode())


def _relative(folder: Path, target: Path) -> str:
    return quote(Path(os.path.relpath(folder, target.absolute().parent)).as_posix())


def render_report(source: ReportSource, *, pairs_folder: str) -> str:
    """Render the page.

    Args:
        source: The session.
        pairs_folder: Address of the folder of written pairs as seen from the page, URL-quoted.

    Returns:
        The HTML document; equal for equal input.
    """
    return render_page("report.html.j2", report=_compose(source, pairs_folder))


def _compose(source: ReportSource, pairs_folder: str) -> Report:
    verdict = judge_session(source)
    symbol, words = _VERDICTS[verdict.level]
    sheet = contact_sheet(source)
    return Report(
        record=source.record,
        recorded=utc_time(source.record.created_utc_us),
        symbol=symbol,
        words=words,
        level=verdict.level,
        findings=verdict.findings,
        tiles=_tiles(source),
        settings_columns=SETTINGS_COLUMNS,
        settings=settings_rows(source),
        gt_name=source.gt.name if source.gt else "",
        motion_columns=MOTION_COLUMNS,
        motion=motion_rows(source),
        speed=speed_figure(source),
        motion_figures=motion_figures(source),
        pose=pose_figure(source),
        gap=gap_figure(source),
        pairing_figures=pairing_figures(source),
        verdicts=verdict_figure(source),
        error_figures=error_figures(source),
        place=place_figure(source),
        sheet=sheet,
        sheet_words=sheet_words(sheet),
        fields=any(card.overlay for part in sheet for card in part.cards),
        targets=any(p.targets for p in source.accepted),
        pairs_folder=pairs_folder,
        rejects=reject_groups(source),
        takes=take_lines(source),
        events=event_lines(source),
        devices=device_facts(source),
        alignment=alignment_facts(source),
        parameters=parameter_facts(source),
        versions=_versions(source),
        plan=_yaml(source.record.plan),
        profile=_yaml(source.record.profile),
        checksums=checksum_text(source),
        commands=_commands(source, verdict),
    )


def _tiles(source: ReportSource) -> tuple[Tile, ...]:
    recorded = sum(r.valid is not None for r in source.rounds)
    accepted = source.accepted
    residual = [p.residual_px for p in accepted if p.residual_px is not None]
    predicted = [p.predicted_epe_px for p in accepted if p.predicted_epe_px is not None]
    return (
        Tile(f"{recorded} of {len(source.rounds)}", "", "rounds recorded"),
        Tile(thousands(len(accepted)), "", "pairs accepted"),
        Tile(thousands(len(source.pairs) - len(accepted)), "", "candidates rejected"),
        *_error_tiles("residual", residual),
        *_error_tiles("predicted error", predicted),
    )


def _error_tiles(what: str, values: list[float]) -> tuple[Tile, ...]:
    if not values:
        return ()
    high = float(np.percentile(values, 95))
    return (
        Tile(number(median(values), 3), "px", f"{what}, median"),
        Tile(number(high, 3), "px", f"{what}, p95"),
    )


def _versions(source: ReportSource) -> tuple[Fact, ...]:
    recorded = (Fact(f"{f.term} (recording)", f.value) for f in version_facts(source.record.versions))
    alignment = source.alignment.versions if source.alignment else {}
    return (*recorded, *(Fact(f"{f.term} (alignment)", f.value) for f in version_facts(alignment)))


def _yaml(document: dict[str, Any]) -> str:
    if not document:
        return ""
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=None, width=88)


def _commands(source: ReportSource, verdict: Verdict) -> tuple[Command, ...]:
    """List what to type next; first what the verdict asks for."""
    session = source.record.session
    mend = dict.fromkeys(f.command for f in verdict.findings if f.command)
    commands = [Command(line, "mend what the verdict names") for line in mend]
    if source.accepted:
        commands += [
            Command(f"catalog add {session}", "put the session and its pairs into the catalog"),
            Command(f"catalog list --where 'session = {session}'", "look at its pairs there"),
            Command(
                f"catalog export my-training-set --format folder --where 'session = {session}'",
                "make a training set of them, with checksums",
            ),
        ]
    commands.append(Command(f"alignment report {session}", "write this page anew"))
    return tuple(commands)
