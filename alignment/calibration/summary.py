"""A calibration in words, line by line."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from alignment.calibration.document import RailCalibration, ToneCalibration
from alignment.calibration.numbers import number_rows
from alignment.calibration.store import StoredCalibration

_LABEL = 32
"""Width of the column that says what a line is of."""


def summary_lines(stored: StoredCalibration) -> Iterator[str]:
    """Yield what was measured, each number with its sigma, then what was not and how to get it."""
    calibration = stored.calibration
    yield (
        f"calibration {stored.hash[:12]}: rig {calibration.rig}, camera {calibration.camera}, "
        f"{calibration.width} × {calibration.height} px, recorded {calibration.date} in session {calibration.session}"
    )
    for row in number_rows(calibration):
        note = f" ({row.note})" if row.note else ""
        yield f"{f'{row.group}, {row.name}':<{_LABEL}}{row.words}{note}"
    if calibration.rail is not None and calibration.rail.bends:
        yield f"{'straightness':<{_LABEL}}{_bends(calibration.rail)}"
    if calibration.tone is not None:
        yield f"{'tone curve':<{_LABEL}}{_tone(calibration.tone)}"
    for missing in calibration.missing:
        yield f"not measured: {missing.what}: {missing.why}; next: {missing.next_step}"


def _bends(rail: RailCalibration) -> str:
    spread = {
        name: float(np.std([getattr(b, f"{name}_deg").value for b in rail.bends]))
        for name in ("pitch", "yaw", "roll")
    }
    words = ", ".join(f"{name} {value:.4f}" for name, value in spread.items())
    first, last = rail.bends[0].position_mm, rail.bends[-1].position_mm
    return f"{words} deg (standard deviation) from {first:.0f} to {last:.0f} mm"


def _tone(tone: ToneCalibration) -> str:
    low, high = tone.measured_codes
    seen = [s for c, s in zip(tone.codes, tone.sigma, strict=True) if low <= c <= high]
    curve = np.array([v for c, v in zip(tone.codes, tone.log_light, strict=True) if low <= c <= high])
    apart = 100 * float(np.ptp(curve)) if curve.size else 0.0
    return (
        f"{tone.base} bent by {apart:.1f} % of light over codes {low:.0f} to {high:.0f}, "
        f"± {100 * max(seen, default=0.0):.1f} %, {len(tone.exposures_s)} exposures"
    )
