"""What a calibration tells beforehand: the lens in place of its data sheet, the shutter's rows, a pixel's noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalog.session_folder import LensSpec

if TYPE_CHECKING:
    from alignment.calibration.document import Calibration

MID_TONE_LIGHT = 0.18
"""Light of the grey that a well exposed base round shows in the middle of its range, white = 1."""


def calibrated_lens(lens: LensSpec, known: Calibration) -> LensSpec:
    """Put the measured focal length into a lens; without one it stays as the data sheet says."""
    if known.lens is None:
        return lens
    focal_mm = known.lens.focal_px.value / known.width * lens.sensor_width_mm
    return lens.model_copy(update={"focal_mm": focal_mm})


def readout_s(known: Calibration | None) -> float:
    """Time of the shutter from the first to the last row; 0 where it is not known."""
    return 0.0 if known is None or known.readout is None else abs(known.readout.readout_s.value)


def mid_tone_noise(known: Calibration | None, *, iso: int, brighter_ev: float) -> float | None:
    """Forecast the noise of a mid-tone pixel, standard deviation in codes; None where it is not known.

    Args:
        known: The calibration in force.
        iso: Of the round.
        brighter_ev: How much brighter than the base the round comes out, stops.
    """
    if known is None:
        return None
    from alignment.calibration.curve import pixel_noise  # loads OpenCV

    return pixel_noise(known, iso=iso, light=MID_TONE_LIGHT * 2**brighter_ev)
