"""How far a take's positions are off, as parallax tells.

A camera that comes back turned by a hundredth of a degree moves the boards as 0.2 mm of rail would. Near and far
things together tell the two apart, and turns change slowly along the rail: some frames spread over a take tell of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignment.correction import PositionCorrection
from alignment.depth import position_gap
from alignment.matching import Match, match_frames
from alignment.motion import TakeMotion
from alignment.pair_job import single_threaded
from alignment.picture import Picture
from alignment.reference import screen_pair
from alignment.scene_depths import SceneDepths

_STEP_MM = 5.0
_FRAMES = (6, 24)
"""Fewest and most frames of a take that are looked at."""


@dataclass(frozen=True)
class ShiftSample:
    """What one frame of a take tells."""

    position_mm: float
    correction_mm: float
    """To add to the position."""
    sigma_mm: float
    """Standard deviation of it."""
    exposure_ratio: float
    """Light of the take over that of the reference."""


@dataclass(frozen=True)
class TakeShift:
    """How a take lies to the reference, as the pictures themselves tell."""

    correction: PositionCorrection
    """To add to the take's positions."""
    exposure_ratio: float
    """Light of the take over that of the reference."""

    @classmethod
    def of(cls, samples: Sequence[ShiftSample]) -> TakeShift | None:
        """Put samples together; None where there are none."""
        if not samples:
            return None
        gaps = np.array([(s.position_mm, s.correction_mm, s.sigma_mm) for s in samples])
        return cls(PositionCorrection(*gaps.T), float(np.median([s.exposure_ratio for s in samples])))


def shift_matches(reference: TakeMotion, motion: TakeMotion) -> list[Match]:
    """Match frames spread evenly over a take's uniform motion with the nearest of the reference."""
    places_mm = motion.cruise.position_mm
    travel_mm = abs(float(places_mm[-1] - places_mm[0]))
    frames = motion.cruise_frames(0)
    count = int(np.clip(travel_mm / _STEP_MM, *_FRAMES))
    chosen = np.unique(np.linspace(0, len(frames) - 1, count).astype(int))
    wanted = [frames[i] for i in chosen]
    return match_frames(wanted, reference.cruise_frames(0), limit_mm=np.inf, spread_px_per_mm=1.0)


def sample_shift(
    reference: TakeMotion,
    motion: TakeMotion,
    matches: Sequence[Match],
    *,
    depths: SceneDepths,
    focal_px: float,
) -> list[ShiftSample]:
    """Register matched frames at half size and tell from parallax what their positions are wrong by.

    Args:
        reference: Take that offers the ground truth.
        motion: The take.
        matches: Of its frames, as `shift_matches` chooses them, or some of these.
        depths: Of the scene.
        focal_px: Focal length, px.

    Returns:
        A sample for each match; none where a pair cannot be registered or the scene is too flat.
    """
    samples = []
    with (
        single_threaded(),
        reference.source.open(cached_frames=1) as gt,
        motion.source.open(cached_frames=1) as lq,
    ):
        for match in matches:
            first = Picture(gt.read(match.gt.index).rgb(), tone=reference.source.tone)
            second = Picture(lq.read(match.lq.index).rgb(), tone=motion.source.tone)
            found = screen_pair(reference, motion, match, first, second, focal_px=focal_px)
            if found is None:
                continue
            disparities = depths.seen_from(match.gt.position_mm)
            rolled_mm = motion.way_while_read_mm(match.lq.index) - reference.way_while_read_mm(match.gt.index)
            gap = position_gap(found, disparities, readout_gap_mm=rolled_mm)
            if gap is not None:
                beyond_mm = gap[0] - match.gap_mm
                samples.append(ShiftSample(match.lq.position_mm, beyond_mm, gap[1], found.exposure_ratio))
    return samples
