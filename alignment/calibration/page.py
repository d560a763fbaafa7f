"""The page of a calibration: every number with its sigma, the plots, and what is missing; needs no network."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from alignment.calibration.document import Calibration, MissingMeasurement
from alignment.calibration.figures import calibration_figures
from alignment.calibration.numbers import NumberRow, number_rows
from alignment.calibration.store import StoredCalibration
from alignment.page import render_page
from alignment.report_axes import Figure
from alignment.report_words import utc_time
from catalog.session_folder import replace_file


@dataclass(frozen=True)
class CalibrationPage:
    """Everything the template shows, in the order of the page."""

    calibration: Calibration
    hash: str
    recorded: str
    numbers: tuple[tuple[str, tuple[NumberRow, ...]], ...]
    """By what they are of."""
    figures: tuple[Figure, ...]
    missing: tuple[MissingMeasurement, ...]


def write_calibration_page(stored: StoredCalibration) -> Path:
    """Write the page beside a calibration's file, in one step, and return its path.

    Raises:
        OSError: It cannot be written.
    """
    target = stored.path.with_suffix(".html")
    replace_file(target, render_calibration(stored).encode())
    return target


def render_calibration(stored: StoredCalibration) -> str:
    """Render the page of a calibration; equal for equal input."""
    found = stored.calibration
    page = CalibrationPage(
        calibration=found,
        hash=stored.hash,
        recorded=utc_time(found.recorded_utc_us),
        numbers=tuple((g, tuple(rows)) for g, rows in groupby(number_rows(found), lambda row: row.group)),
        figures=tuple(calibration_figures(found)),
        missing=found.missing,
    )
    return render_page("calibration.html.j2", page_of=page)
