"""The measurement of two pictures in words, line by line."""

from __future__ import annotations

from collections.abc import Iterator

from alignment.report_words import number, with_unit
from catalog.audit import PairMeasurement

_PARALLAX = {
    "none": "nothing moves on its own",
    "parallax": "parallax: near and far things lie apart along one line",
    "moving_object": "things move on their own",
    "unknown": "too few parts can be measured to tell parallax",
}


def measurement_lines(found: PairMeasurement) -> Iterator[str]:
    """Yield how the two pictures lie to each other, how well that is known, and what differs between them."""
    shift = ", ".join(number(v, 3) for v in found.shift_px)
    yield f"displacement  {number(found.epe_px, 3)} px median, {number(found.epe_p95_px, 3)} px p95"
    yield f"shift         {shift} px (x, y)"
    pitch, yaw, roll = (number(v, 4) for v in found.rotation_deg)
    yield f"rotation      pitch {pitch}, yaw {yaw}, roll {roll} deg (pitch and yaw by a usual focal length)"
    yield f"scale         {number(found.scale, 6)}"
    yield f"leftover      {with_unit(found.local_p90_px, 3, 'px')} p90 of the parts; {_PARALLAX[found.parallax]}"
    yield f"other content {number(100 * found.masked_share, 1)} % of the picture"
    yield f"blur          {_blur(found)}"
    yield f"light         × {number(found.exposure_ratio, 3)}"
    ecc = (
        "found nothing" if found.ecc_shift_px is None else ", ".join(number(v, 3) for v in found.ecc_shift_px)
    )
    yield f"affine ECC    {ecc}{' px' if found.ecc_shift_px else ''}"
    trust = "trusted" if found.trustworthy else "not trusted: its checks contradict each other"
    yield (
        f"known to      {number(found.predicted_error_px, 3)} px (95 %); "
        f"confidence {number(found.confidence, 2)}, {trust}"
    )


def _blur(found: PairMeasurement) -> str:
    if found.blur.kind == "none":
        return "none of the second picture over the first"
    shape = "disc of radius" if found.blur.kind == "disc" else "motion over"
    return f"{shape} {number(found.blur.size_px, 1)} px"
