"""A calibration in words, line by line."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from alignment.calibration.document import Calibration, Measured


def summary_lines(calibration: Calibration) -> Iterator[str]:
    """Yield what was measured, each number with its sigma, then what was not and how to get it."""
    yield (
        f"rig {calibration.rig}, camera {calibration.camera}, {calibration.width} × {calibration.height} px, "
        f"recorded {calibration.date} in session {calibration.session}"
    )
    yield from _lens(calibration)
    yield from _rail(calibration)
    if calibration.readout is not None:
        yield f"readout        {_number(calibration.readout.readout_s, 1e3, 2, 'ms')} from the first to the last row"
    yield from _tone(calibration)
    for noise in calibration.noise:
        read = "read noise below what 8 bits show"
        if noise.read_noise_e is not None:
            read = f"read noise {_number(noise.read_noise_e, 1, 2, 'e')}"
        yield f"ISO {noise.iso:<6}     {_number(noise.electrons_at_white, 1, 0, 'e')} at white, {read}"
    for missing in calibration.missing:
        yield f"not measured: {missing.what}: {missing.why}; next: {missing.next_step}"


def _number(measured: Measured, scale: float, digits: int, unit: str) -> str:
    return f"{measured.value * scale:.{digits}f} ± {measured.sigma * scale:.{digits}f} {unit}"


def _lens(calibration: Calibration) -> Iterator[str]:
    lens = calibration.lens
    if lens is not None:
        yield f"focal length   {_number(lens.focal_px, 1, 1, 'px')} (from the {lens.focal_source})"
        x, y = lens.principal_px
        yield f"principal pt   {_number(x, 1, 1, 'px')}, {_number(y, 1, 1, 'px')}"
        yield f"distortion k1  {_number(lens.distortion_k1, 1, 4, '')}".rstrip()
    for board in calibration.boards:
        yield (
            f"board from {board.first_id:<4}{_number(board.px_per_mm, 1, 5, 'px/mm')}, "
            f"{_number(board.depth_mm, 1, 0, 'mm')} away, tilted {_number(board.tilt_deg, 1, 2, 'deg')}"
        )


def _rail(calibration: Calibration) -> Iterator[str]:
    rail = calibration.rail
    if rail is None or rail.mm_per_mm is None:
        return
    yield (
        f"rail scale     {_number(rail.mm_per_mm, 1, 5, 'mm per mm')}: divide the controller's steps per mm by it"
    )
    if rail.bends:
        spread = {
            name: float(np.std([getattr(b, f"{name}_deg").value for b in rail.bends]))
            for name in ("pitch", "yaw", "roll")
        }
        words = ", ".join(f"{name} {value:.4f}" for name, value in spread.items())
        first, last = rail.bends[0].position_mm, rail.bends[-1].position_mm
        yield f"straightness   {words} deg (standard deviation) from {first:.0f} to {last:.0f} mm"


def _tone(calibration: Calibration) -> Iterator[str]:
    tone = calibration.tone
    if tone is None:
        return
    low, high = tone.measured_codes
    seen = [s for c, s in zip(tone.codes, tone.sigma, strict=True) if low <= c <= high]
    curve = np.array([v for c, v in zip(tone.codes, tone.log_light, strict=True) if low <= c <= high])
    apart = 100 * float(np.ptp(curve)) if curve.size else 0.0
    yield (
        f"tone curve     {tone.base} bent by {apart:.1f} % of light over codes {low:.0f} to {high:.0f}, "
        f"± {100 * max(seen, default=0.0):.1f} %, {len(tone.exposures_s)} exposures"
    )
