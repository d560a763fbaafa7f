"""The page of a calibration: every number with its sigma, the plots, and what is missing; needs no network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alignment.calibration.document import Calibration, Measured, MissingMeasurement
from alignment.calibration.figures import calibration_figures
from alignment.calibration.store import StoredCalibration
from alignment.page import render_page
from alignment.report_axes import Figure
from alignment.report_words import number, utc_time
from catalog.session_folder import replace_file


@dataclass(frozen=True)
class NumberRow:
    """One measured number."""

    what: str
    value: str
    sigma: str
    unit: str
    count: int
    note: str


@dataclass(frozen=True)
class CalibrationPage:
    """Everything the template shows, in the order of the page."""

    calibration: Calibration
    hash: str
    recorded: str
    numbers: tuple[NumberRow, ...]
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
        numbers=tuple(_numbers(found)),
        figures=tuple(calibration_figures(found)),
        missing=found.missing,
    )
    return render_page("calibration.html.j2", page_of=page)


def _numbers(found: Calibration) -> Iterator[NumberRow]:
    lens, rail, readout = found.lens, found.rail, found.readout
    if lens is not None:
        yield _row("focal length", lens.focal_px, 1, "px", note=f"from the {lens.focal_source}")
        for axis, measured in zip("xy", lens.principal_px, strict=True):
            yield _row(f"principal point, {axis}", measured, 1, "px")
        yield _row("distortion k1", lens.distortion_k1, 4, "")
    for board in found.boards:
        name = f"board from {board.first_id}"
        yield _row(f"{name}, scale", board.px_per_mm, 5, "px/mm")
        yield _row(f"{name}, depth", board.depth_mm, 0, "mm")
        yield _row(f"{name}, tilt", board.tilt_deg, 2, "deg")
    if rail is not None and rail.mm_per_mm is not None:
        note = "divide the steps per mm of the controller by it"
        yield _row("rail scale", rail.mm_per_mm, 5, "mm per mm", note=note)
    if readout is not None:
        yield _row("readout", readout.readout_s, 2, "ms", scale=1e3, note="from the first to the last row")
    yield from _noise_rows(found)


def _noise_rows(found: Calibration) -> Iterator[NumberRow]:
    for noise in found.noise:
        yield _row(f"ISO {noise.iso}, electrons at white", noise.electrons_at_white, 0, "e")
        if noise.read_noise_e is not None:
            yield _row(f"ISO {noise.iso}, read noise", noise.read_noise_e, 2, "e")


def _row(
    what: str, measured: Measured, digits: int, unit: str, *, scale: float = 1.0, note: str = ""
) -> NumberRow:
    value, sigma = (number(scale * v, digits) for v in (measured.value, measured.sigma))
    return NumberRow(what, value, sigma, unit, measured.count, note)
