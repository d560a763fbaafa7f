"""The plots of a calibration: what was measured, with twice its standard deviation about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from alignment.calibration.curve import recorded, tone_curve
from alignment.calibration.document import (
    Calibration,
    LensCalibration,
    Measured,
    RailBend,
    ToneCalibration,
)
from alignment.photometry import standard_tone_curve
from alignment.report_axes import INNER, LEFT, SERIES, Box, Drawing, Figure, Panel, spread
from alignment.report_words import number

Array = NDArray[np.float64]

_HEIGHT = 290
_LABEL_PX = 8
"""Room for the label of an axis that no legend stands above."""
_ANGLES = ("pitch", "yaw", "roll")
_ACROSS = ("y", "z")
_CODES = np.linspace(2.0, 253.0, 126)


def calibration_figures(found: Calibration) -> Iterator[Figure]:
    """Draw what a calibration holds: lens, rail, tone curve and noise, each where it was measured."""
    if found.lens is not None:
        yield _distortion_figure(found.lens, found.width, found.height)
    if found.rail is not None and found.rail.bends:
        yield _bend_figure("turn", "Turn of the camera along the rail", _ANGLES, "deg", found.rail.bends)
        yield _bend_figure("across", "Way across the rail", _ACROSS, "mm", found.rail.bends)
    if found.tone is not None:
        yield _tone_figure(found.tone)
        yield _correction_figure(found.tone)
    if found.noise:
        yield _noise_figure(found)


def _panel(drawing: Drawing, top: float, *, x: tuple[float, float], y: tuple[float, float]) -> Panel:
    return Panel(drawing, Box(LEFT, top + 14, INNER, _HEIGHT - top - 54), x=x, y=y)


def _distortion_figure(lens: LensCalibration, width: int, height: int) -> Figure:
    """Displacement by distortion from the middle to the farthest corner."""
    radius = np.linspace(0.0, float(np.hypot(width, height)) / 2, 80)
    moved, sigma = distortion_px(lens, radius)
    title = "Displacement by distortion"
    corner, doubt = (number(float(v[-1]), 1) for v in (moved, sigma))
    caption = f"In the corner {corner} ± {doubt} px; negative is towards the middle."
    drawing = Drawing("distortion", _HEIGHT, title=title, description=caption)
    low, high = (moved + times * sigma for times in (-2, 2))
    panel = _panel(drawing, _LABEL_PX, x=(0.0, float(radius[-1])), y=spread([0.0, *low, *high]))
    panel.axes("distance from the middle in px", "displacement in px")
    panel.area(radius, low, high, "sigma")
    panel.line(radius, moved, "line s0")
    return Figure(title, drawing.markup(), caption)


def distortion_px(lens: LensCalibration, radius_px: Array) -> tuple[Array, Array]:
    """How far the lens moves what belongs at a distance from the middle, and its standard deviation, px."""
    tangent = radius_px / lens.focal_px.value
    cube, fifth = (lens.focal_px.value * tangent**power for power in (3, 5))
    k1, k2 = lens.distortion_k1, lens.distortion_k2
    variance = (k1.sigma * cube) ** 2
    if k2 is not None:
        variance = variance + 2 * lens.distortion_covariance * cube * fifth + (k2.sigma * fifth) ** 2
    return k1.value * cube + lens.k2 * fifth, np.sqrt(np.maximum(variance, 0.0))


def _bend_figure(
    name: str, title: str, quantities: Sequence[str], unit: str, bends: Sequence[RailBend]
) -> Figure:
    place = np.array([b.position_mm for b in bends])
    curves = [_along(bends, f"{q}_{unit}") for q in quantities]
    spans = ", ".join(
        f"{q} {np.ptp(value):.4f} {unit}" for q, (value, _) in zip(quantities, curves, strict=True)
    )
    caption = f"Peak to peak: {spans}."
    drawing = Drawing(f"bend-{name}", _HEIGHT, title=title, description=caption)
    top = drawing.legend(14, [("line", f"line s{k}", q) for k, q in enumerate(quantities)], left_px=LEFT)
    reach = np.concatenate([value + times * sigma for value, sigma in curves for times in (-2, 2)])
    panel = _panel(drawing, top, x=spread(place, margin=0.02), y=spread(reach))
    panel.axes("position in mm", unit, y_ticks=6)
    for k, (value, sigma) in enumerate(curves):
        panel.area(place, value - 2 * sigma, value + 2 * sigma, f"sigma s{k}")
        panel.line(place, value, f"line s{k}")
    return Figure(title, drawing.markup(), caption)


def _along(bends: Sequence[RailBend], quantity: str) -> tuple[Array, Array]:
    measured: list[Measured] = [getattr(bend, quantity) for bend in bends]
    return np.array([m.value for m in measured]), np.array([m.sigma for m in measured])


def _tone_figure(tone: ToneCalibration) -> Figure:
    title = "Tone curve"
    low, high = tone.measured_codes
    caption = (
        f"Seen from code {low:.0f} to {high:.0f} over {len(tone.exposures_s)} exposures; continued beyond."
    )
    drawing = Drawing("tone", _HEIGHT, title=title, description=caption)
    entries = [("line", "line s0", "measured"), ("line", "line dashed commanded", f"{tone.base} by the tag")]
    panel = _panel(drawing, drawing.legend(14, entries, left_px=LEFT), x=(0.0, 255.0), y=(0.0, 1.0))
    panel.axes("code", "light, white = 1")
    panel.band(low, high, "phase-cruise")
    codes = _CODES.astype(np.float32)
    panel.line(_CODES, standard_tone_curve(tone.base).light(codes), "line dashed commanded")
    panel.line(_CODES, tone_curve(tone, "measured").light(codes), "line s0")
    return Figure(title, drawing.markup(), caption)


def _correction_figure(tone: ToneCalibration) -> Figure:
    """What the tag gets wrong, in per cent of light."""
    title = "Tone curve against its tag"
    caption = f"Light by the measured curve over that of {tone.base}; its constant is free."
    drawing = Drawing("correction", _HEIGHT, title=title, description=caption)
    codes, log_light, sigma = (np.array(v) for v in (tone.codes, tone.log_light, tone.sigma))
    seen = (codes >= tone.measured_codes[0]) & (codes <= tone.measured_codes[1])
    low, value, high = (100 * np.expm1(log_light[seen] + times * sigma[seen]) for times in (-2, 0, 2))
    panel = _panel(drawing, _LABEL_PX, x=(0.0, 255.0), y=spread([0.0, *low, *high]))
    panel.axes("code", "per cent of light", y_ticks=6)
    panel.area(codes[seen], low, high, "sigma")
    panel.line(codes[seen], value, "line s0")
    return Figure(title, drawing.markup(), caption)


def _noise_figure(found: Calibration) -> Figure:
    title = "Noise of a pixel"
    caption = (
        "Standard deviation of one channel as recorded; near black and white, clipping takes part of it away."
    )
    tone = standard_tone_curve("bt709") if found.tone is None else tone_curve(found.tone, "measured")
    light = tone.light(_CODES.astype(np.float32)).astype(np.float64)
    curves = [recorded(noise, tone, light) for noise in found.noise]
    drawing = Drawing("noise", _HEIGHT, title=title, description=caption)
    entries = [("line", f"line s{k % SERIES}", f"ISO {noise.iso}") for k, noise in enumerate(found.noise)]
    top = drawing.legend(14, entries, left_px=LEFT)
    panel = _panel(
        drawing, top, x=(0.0, 255.0), y=(0.0, 1.08 * max(float(sigma.max()) for _, sigma in curves))
    )
    panel.axes("mean code", "standard deviation in codes")
    for k, (mean, sigma) in enumerate(curves):
        panel.line(mean, sigma, f"line s{k % SERIES}")
    return Figure(title, drawing.markup(), caption)
