"""What is left in written pairs, part by part: measured anew on their files, drawn as arrows with their doubt.

The homography says where a pair ought to lie, not where its pixels do. Registering the two written pictures once
more, at half size and from no shift at all, shows what a training run will meet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from alignment.errors import AlignmentError
from alignment.report_axes import Doubt, Target, arrows
from catalog.evidence import PairRecord
from catalog.session_folder import PAIRS_FOLDER

if TYPE_CHECKING:
    from alignment.registration import Registration

Array = NDArray[np.float64]

FIELD_PAIRS = 24
"""Most pairs that are measured anew: each costs about 0.2 s of 1080p."""
FIELD_GAIN = 100.0
"""As `arrows` means it: 0.05 px, the most that is left unwarped, is an arrow of 5 px."""
COLUMNS, ROWS = 8, 5
"""Most parts across and down."""
_PART_TILES = 3
"""Least side of a part, tiles."""
_LEAST_TILES = 5
"""Tiles that a part needs: its doubt comes from their scatter."""
_MOST_DOUBT_PX = 0.2
"""Parts known worse than this would say nothing and hide much."""
_WITHIN_95 = float(np.sqrt(5.991))
"""Standard deviations that hold 95 % of a plane's normal distribution."""
_WORKERS = 2


@dataclass(frozen=True, eq=False)
class FieldPart:
    """One part of a pair: how far the degraded side's content lies from the ground truth's."""

    centre_px: Array
    """``(2,)`` in the written pair."""
    shift_px: Array
    """``(2,)`` dx, dy."""
    covariance: Array
    """``(2, 2)`` px², of the mean of its tiles, from their scatter."""

    @property
    def doubt(self) -> Doubt:
        """The ellipse that holds the true shift in 95 % of cases, px and degrees."""
        variances, axes = np.linalg.eigh(self.covariance)
        minor, major = _WITHIN_95 * np.sqrt(np.maximum(variances, 0.0))
        turn_deg = float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1])))
        return Doubt(float(major), float(minor), turn_deg)


def field_overlays(
    session: Path, pairs: Sequence[PairRecord], *, focal_px: float | None
) -> dict[str, Markup]:
    """Draw what is left in the first `FIELD_PAIRS` pairs given; pairs whose files are gone are left out."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        drawn = list(pool.map(partial(_overlay, session, focal_px=focal_px), pairs[:FIELD_PAIRS]))
    return {p.pair: overlay for p, overlay in zip(pairs, drawn, strict=False) if overlay is not None}


def _overlay(session: Path, pair: PairRecord, *, focal_px: float | None) -> Markup | None:
    found = _registered(session / PAIRS_FOLDER, pair, focal_px)
    if found is None:
        return None
    parts = [p for p in field_parts(found) if p.doubt.major_px < _MOST_DOUBT_PX]
    shifts = [(*p.centre_px.tolist(), *p.shift_px.tolist()) for p in parts]
    doubts = [p.doubt for p in parts]
    targets = list(_targets(pair))
    if not parts and not targets:
        return None
    return arrows(found.size, shifts, doubts=doubts, targets=targets, gain=FIELD_GAIN)


def _targets(pair: PairRecord) -> Iterator[Target]:
    """Yield the targets that lie in the written pair."""
    if pair.lq_crop is None:
        return
    left, top, width, height = pair.lq_crop
    for target in pair.targets:
        x, y = target.lq_px[0] - left, target.lq_px[1] - top
        if 0 <= x < width and 0 <= y < height:
            yield Target(x, y, *target.misfit_px, radius_px=_WITHIN_95 * target.sigma_px)


def _registered(folder: Path, pair: PairRecord, focal_px: float | None) -> Registration | None:
    """Register the written pair at half size; None where a file is gone or nothing can be made out."""
    from alignment.camera_motion import typical_focal_px
    from alignment.decode import read_still
    from alignment.photometry import standard_tone_curve
    from alignment.picture import Picture
    from alignment.registration import Pinhole, register

    try:
        gt, lq = (
            Picture(read_still(folder / side / f"{pair.pair}.png"), tone=standard_tone_curve("srgb"))
            for side in ("gt", "lq")
        )
        width, height = lq.size
        return register(
            gt,
            lq,
            camera=Pinhole(focal_px or typical_focal_px(width, height), width, height),
            initial=np.eye(3),
            blur=pair.blur,
            finest_scale=2,
            models=("rotation",),
        )
    except AlignmentError:
        return None


def field_parts(found: Registration) -> Iterator[FieldPart]:
    """Gather the tiles of a registration over a coarse grid: what all of a part's tiles share."""
    from alignment.depth import tile_motion

    rest = found.leftover
    good = rest.measured & ~rest.foreign
    moved, weight = tile_motion(found), 1 / rest.sigma_px**2
    columns = max(min(rest.grid.columns // _PART_TILES, COLUMNS), 1)
    rows = max(min(rest.grid.rows // _PART_TILES, ROWS), 1)
    cells = np.minimum(rest.centres_px / np.array(found.size) * (columns, rows), (columns - 1, rows - 1))
    number = cells.astype(int) @ (1, columns)
    for k in range(columns * rows):
        tiles = np.flatnonzero(good & (number == k))
        if len(tiles) >= _LEAST_TILES:
            yield _part(rest.centres_px[tiles], moved[tiles], weight[tiles])


def _part(centres_px: Array, moved_px: Array, weight: Array) -> FieldPart:
    share = weight / weight.sum()
    mean = share @ moved_px
    apart = (moved_px - mean) * share[:, None]
    return FieldPart(share @ centres_px, mean, apart.T @ apart * len(share) / (len(share) - 1))
