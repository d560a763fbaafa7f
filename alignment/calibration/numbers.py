"""The numbers of a calibration as they are shown, on the page and in words alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from alignment.calibration.document import (
    BoardCalibration,
    Calibration,
    LensCalibration,
    Measured,
    NoiseCalibration,
)
from alignment.report_words import number


@dataclass(frozen=True)
class NumberRow:
    """One measured number."""

    group: str
    """Of what: lens, a board, rail and shutter, or an ISO setting."""
    name: str
    value: str
    sigma: str
    unit: str
    count: int
    note: str = ""

    @property
    def words(self) -> str:
        """Value, sigma and unit in one text."""
        return f"{self.value} ± {self.sigma} {self.unit}".rstrip()


def number_rows(found: Calibration) -> Iterator[NumberRow]:
    """Yield every single number that was measured, in the order of lens, boards, rail, shutter, noise."""
    if found.lens is not None:
        yield from _lens_rows(found.lens)
    for board in found.boards:
        yield from _board_rows(board)
    if found.rail is not None and found.rail.mm_per_mm is not None:
        note = "divide the steps per mm of the controller by it; mm as the boards are printed"
        yield _row("rail and shutter", "rail scale", found.rail.mm_per_mm, 5, "mm per mm", note=note)
    if found.readout is not None:
        note = "from the first to the last row"
        yield _row("rail and shutter", "readout", found.readout.readout_s, 2, "ms", scale=1e3, note=note)
    for noise in found.noise:
        yield from _noise_rows(noise)


def _lens_rows(lens: LensCalibration) -> Iterator[NumberRow]:
    yield _row("lens", "focal length", lens.focal_px, 1, "px", note=f"from the {lens.focal_source}")
    for axis, measured in zip("xy", lens.principal_px, strict=True):
        yield _row("lens", f"principal point, {axis}", measured, 1, "px")
    note = "" if lens.distortion_k2 is not None else "k2 was not told from 0"
    yield _row("lens", "distortion k1", lens.distortion_k1, 4, "", note=note)
    if lens.distortion_k2 is not None:
        yield _row("lens", "distortion k2", lens.distortion_k2, 4, "")


def _board_rows(board: BoardCalibration) -> Iterator[NumberRow]:
    group = f"board from {board.first_id}"
    yield _row(group, "scale", board.px_per_mm, 5, "px/mm")
    yield _row(group, "depth", board.depth_mm, 0, "mm")
    yield _row(group, "tilt", board.tilt_deg, 2, "deg")


def _noise_rows(noise: NoiseCalibration) -> Iterator[NumberRow]:
    note = "" if noise.read_noise_e is not None else "read noise is below what 8 bits show"
    yield _row(f"ISO {noise.iso}", "electrons at white", noise.electrons_at_white, 0, "e", note=note)
    if noise.read_noise_e is not None:
        yield _row(f"ISO {noise.iso}", "read noise", noise.read_noise_e, 2, "e")


def _row(
    group: str,
    name: str,
    measured: Measured,
    digits: int,
    unit: str,
    *,
    scale: float = 1.0,
    note: str = "",
) -> NumberRow:
    value, sigma = (number(scale * v, digits) for v in (measured.value, measured.sigma))
    return NumberRow(group, name, value, sigma, unit, measured.count, note)
